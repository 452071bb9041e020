"""How many different values a sketch has seen: estimate(s), of distinct and set."""

from __future__ import annotations

import polars as pl

from clickpipe.core.functions import Function
from clickpipe.core.sketch import answered


class Estimate(Function):
    takes = ("s",)
    gives = "int"

    def values(self, *columns: pl.Series) -> pl.Series:
        return answered(columns[0], "estimates", "estimate()", pl.Int64(), nothing=0)
