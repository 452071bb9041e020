"""Sum of a numeric column; null when there was no value.

Error: none for integers; for floats one rounding, whatever the order (see core/exact.py).
Raises DataError when a sum of integers leaves 64 bits: sum a float instead, CAST(x AS DOUBLE).
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from clickpipe.core import exact
from clickpipe.core.aggregate import Aggregate, Exprs


class Sum(Aggregate):
    takes_numbers_only = True

    def partial(self, value: pl.Expr, time: pl.Expr) -> Exprs:
        n = value.count().cast(pl.Int64)
        if self.kind == "int":
            return {"n": n, "sum": value.cast(pl.Int128).sum()}
        return {"n": n, **exact.partial(value)}

    def merge(self, piece: Mapping[str, pl.Expr]) -> Exprs:
        n = {"n": piece["n"].sum()}
        return n | ({"sum": piece["sum"].sum()} if self.kind == "int" else exact.merge(piece))

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        total = piece["sum"] if self.kind == "int" else exact.final(piece)
        return pl.when(piece["n"] > 0).then(total)
