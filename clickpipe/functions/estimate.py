"""How many different values a sketch has seen: estimate(s), of distinct and set."""

from __future__ import annotations

import polars as pl

from clickpipe.core.asked import answered
from clickpipe.core.functions import Function


class Estimate(Function):
    takes = ("s",)
    sketches = 1
    gives = "int"

    def values(self, *columns: pl.Series) -> pl.Series:
        return answered(columns[0], "estimates", pl.Int64(), nothing=0)
