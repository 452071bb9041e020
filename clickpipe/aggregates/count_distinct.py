"""Different values that are not null, counted exactly. Also written count(DISTINCT x).

Memory: one row per group and value.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from clickpipe.core.aggregate import Aggregate, Exprs


class CountDistinct(Aggregate):
    def result(self) -> str:
        return "int"

    def sub_key(self, value: pl.Expr) -> pl.Expr:
        # -0.0 and 0.0 are one value, and so the two must be one key.
        return value + 0.0 if self.kind == "float" else value

    def partial(self, value: pl.Expr, time: pl.Expr) -> Exprs:
        return {"n": value.is_not_null().any()}

    def merge(self, piece: Mapping[str, pl.Expr]) -> Exprs:
        return {"n": piece["n"].any()}

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        return piece["n"].sum().cast(pl.Int64)
