"""A sketch of what two have both seen, visitors of A and of B: intersect(a, b), of set."""

from __future__ import annotations

import polars as pl

from clickpipe.core.asked import combined
from clickpipe.core.functions import Function


class Intersect(Function):
    takes = ("a", "b")
    sketches = 2
    gives = "sketch"

    def values(self, *columns: pl.Series) -> pl.Series:
        return combined(columns[0], columns[1], "intersection")
