"""Whether a condition holds for any record; nulls are skipped; null when there was no value."""

from __future__ import annotations

from clickpipe.core.extreme import Greatest


class BoolOr(Greatest):
    rolled_up = "bool_or"
    takes = ("bool",)
