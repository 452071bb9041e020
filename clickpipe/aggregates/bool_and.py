"""Whether a condition holds for all records; nulls are skipped; null when there was no value."""

from __future__ import annotations

from clickpipe.core.extreme import Least


class BoolAnd(Least):
    takes = ("bool",)
