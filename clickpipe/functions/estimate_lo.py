"""The least that estimate(s) may stand for, at 95 %: estimate_lo(s)."""

from __future__ import annotations

import polars as pl

from clickpipe.core.asked import answered
from clickpipe.core.functions import Function


class EstimateLo(Function):
    takes = ("s",)
    sketches = 1
    gives = "int"

    def values(self, *columns: pl.Series) -> pl.Series:
        return answered(columns[0], "lows", pl.Int64(), nothing=0)
