"""A quantile of what a sketch has seen: quantile_of(s, 0.99), of quantiles."""

from __future__ import annotations

from typing import Any

import polars as pl

from clickpipe.core.asked import answered
from clickpipe.core.functions import Function
from clickpipe.core.quantile import fraction


class QuantileOf(Function):
    takes = ("s", "q")
    gives = "float"

    def __init__(self, q: Any) -> None:
        self.q = fraction(q)

    def values(self, *columns: pl.Series) -> pl.Series:
        return answered(columns[0], "quantiles", pl.Float64(), self.q)
