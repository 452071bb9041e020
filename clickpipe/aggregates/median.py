"""Exact median: the value in the middle, or the mean of the two there.

Nulls are skipped; null when there was no value. Memory: one row per group and different value.
"""

from __future__ import annotations

from clickpipe.core.quantile import Between


class Median(Between):
    def __init__(self, kind: str) -> None:
        super().__init__(kind, 0.5)
