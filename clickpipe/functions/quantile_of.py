"""A quantile of what a sketch has seen: quantile_of(s, 0.99), of quantiles; with a list, as in [0.5, 0.99], a list."""

from __future__ import annotations

from typing import Any

import polars as pl

from clickpipe.core.asked import answered
from clickpipe.core.buckets import Buckets
from clickpipe.core.compute import json_of
from clickpipe.core.functions import Function


class QuantileOf(Function):
    takes = ("s", "q")
    gives = "float"

    def __init__(self, q: Any) -> None:
        self._q, self._is_list = q, Buckets("float", q).is_list
        self.gives = "json" if self._is_list else "float"

    def values(self, *columns: pl.Series) -> pl.Series:
        if not self._is_list:
            return answered(columns[0], "quantiles", pl.Float64(), self._q)
        lists = answered(columns[0], "quantiles", pl.List(pl.Float64), self._q)
        return lists.to_frame().select(json_of(pl.col(lists.name)).alias(lists.name)).to_series()
