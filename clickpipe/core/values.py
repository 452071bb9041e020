"""Which values came how often, in rows of (group, value, count): for distinct counts, quantiles, the most frequent value.

Memory: one row per group and different value, or what a subclass takes for one. Calls over the same column share them.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

import polars as pl

from clickpipe.core.aggregate import Aggregate, Exprs


class Values(Aggregate):
    keeps: ClassVar[str] = "one row per different {x}"
    grows: ClassVar[bool] = True

    def shares(self) -> Hashable:
        return "values"

    def sub_key(self, value: pl.Expr, order: pl.Expr) -> pl.Expr:
        return value

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        return {"n": value.count().cast(pl.Int64)}

    def merge(self, piece: Exprs) -> Exprs:
        return {"n": piece["n"].sum()}
