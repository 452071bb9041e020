"""Whether a condition holds for all records; nulls are skipped; null when there was no value."""

from __future__ import annotations

from clickpipe.core.extreme import Least


class BoolAnd(Least):
    rolled_up = "bool_and"
    takes = ("bool",)
