"""Records: count(*); values that are not null: count(x); different ones, exactly: count(DISTINCT x).

Memory: one number per group; with DISTINCT one row per group and value.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from clickpipe.core.aggregate import Aggregate, Exprs


class Count(Aggregate):
    takes_star = True

    def result(self) -> str:
        return "int"

    def partial(self, value: pl.Expr, time: pl.Expr) -> Exprs:
        # Polars counts in 32 bits, and a sum of those wraps round without a word.
        return {"n": (pl.len() if self.kind == "*" else value.count()).cast(pl.Int64)}

    def merge(self, piece: Mapping[str, pl.Expr]) -> Exprs:
        return {"n": piece["n"].sum()}

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        return piece["n"]
