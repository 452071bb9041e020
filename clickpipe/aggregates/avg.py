"""Arithmetic mean of a numeric column; nulls are not counted; null when there was no value.

Error: one rounding of the sum and one of the division, whatever the order of the records.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from clickpipe.core import exact
from clickpipe.core.aggregate import Aggregate, Exprs


class Avg(Aggregate):
    takes_numbers_only = True

    def result(self) -> str:
        return "float"

    def partial(self, value: pl.Expr, time: pl.Expr) -> Exprs:
        n = value.count().cast(pl.Int64)
        if self.kind == "int":
            return {"n": n, "sum": value.cast(pl.Int128).sum()}
        return {"n": n, **exact.partial(value)}

    def merge(self, piece: Mapping[str, pl.Expr]) -> Exprs:
        n = {"n": piece["n"].sum()}
        return n | ({"sum": piece["sum"].sum()} if self.kind == "int" else exact.merge(piece))

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        total = piece["sum"].cast(pl.Float64) if self.kind == "int" else exact.final(piece)
        return pl.when(piece["n"] > 0).then(total / piece["n"])
