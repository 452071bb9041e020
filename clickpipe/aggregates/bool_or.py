"""Whether a condition holds for any record; nulls are skipped; null when there was no value."""

from __future__ import annotations

import polars as pl

from clickpipe.core.aggregate import Aggregate, Exprs


class BoolOr(Aggregate):
    takes = ("bool",)

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        return {"any": value.max()}

    def merge(self, piece: Exprs) -> Exprs:
        return {"any": piece["any"].max()}

    def final(self, piece: Exprs) -> pl.Expr:
        return piece["any"]
