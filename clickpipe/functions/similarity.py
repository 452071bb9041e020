"""How alike two sets are, from 0 to 1: similarity(a, b), of similarity and of set. Jaccard's: what both have, of what one has."""

from __future__ import annotations

import polars as pl

from clickpipe.core.asked import compared
from clickpipe.core.functions import Function


class Similarity(Function):
    takes = ("a", "b")
    sketches = 2
    gives = "float"

    def values(self, *columns: pl.Series) -> pl.Series:
        return compared(columns[0], columns[1], "similarity", pl.Float64())
