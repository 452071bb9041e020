"""A sketch of all that two of one kind have seen: union(a, b)."""

from __future__ import annotations

import polars as pl

from clickpipe.core.asked import union
from clickpipe.core.functions import Function


class Union(Function):
    takes = ("a", "b")
    sketches = 2
    gives = "sketch"

    def values(self, *columns: pl.Series) -> pl.Series:
        return union(*columns)
