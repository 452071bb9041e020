"""Per second of the window: rate(*) records, rate(x) the sum of a numeric column.

A window that is given out early is divided by its whole length; a session's length is from its first record to the end of
its gap.
"""

from __future__ import annotations

import polars as pl

from clickpipe.core.aggregate import Exprs
from clickpipe.core.total import Total


class Rate(Total):
    takes_star = True
    per_second = True

    def result(self) -> str:
        return "float"

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        if self.kind == "*":
            return {"n": pl.len().cast(pl.Int64)}
        return {"n": value.count().cast(pl.Int64)} if self.kind == "bool" else super().partial(value, order)

    def merge(self, piece: Exprs) -> Exprs:
        return {"n": piece["n"].sum()} if self._counts() else super().merge(piece)

    def final(self, piece: Exprs) -> pl.Expr:
        return (piece["n"] if self._counts() else super().final(piece)).cast(pl.Float64)

    def _counts(self) -> bool:
        return self.kind in ("*", "bool")
