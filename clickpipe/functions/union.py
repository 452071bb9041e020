"""A sketch of all that several of one kind have seen: union(a, b), or of more."""

from __future__ import annotations

from functools import reduce

import polars as pl

from clickpipe.core.asked import union
from clickpipe.core.functions import MORE, Function


class Union(Function):
    takes = ("a", "b", MORE)
    gives = "sketch"

    def values(self, *columns: pl.Series) -> pl.Series:
        return reduce(union, columns)
