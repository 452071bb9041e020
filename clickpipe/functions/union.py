"""A sketch of all that two of one kind have seen: union(a, b)."""

from __future__ import annotations

import polars as pl

from clickpipe.core.functions import Function
from clickpipe.core.sketch import by_place, united


class Union(Function):
    takes = ("a", "b")
    sketches = 2
    gives = "sketch"

    def values(self, *columns: pl.Series) -> pl.Series:
        first, second = columns
        is_there = first.is_not_null() & second.is_not_null()
        both = pl.concat([some.rename("s").set(~is_there, None) for some in (first, second)])
        places = pl.concat([pl.Series(range(first.len()), dtype=pl.UInt32)] * 2)
        found = united(both, places)
        return by_place([found], first, pl.String())
