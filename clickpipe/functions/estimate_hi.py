"""The most that estimate(s) may stand for, at 95 %: estimate_hi(s)."""

from __future__ import annotations

import polars as pl

from clickpipe.core.asked import answered
from clickpipe.core.functions import Function


class EstimateHi(Function):
    takes = ("s",)
    sketches = 1
    gives = "int"

    def values(self, *columns: pl.Series) -> pl.Series:
        return answered(columns[0], "highs", pl.Int64(), nothing=0)
