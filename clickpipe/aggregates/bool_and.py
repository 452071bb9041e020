"""Whether a condition holds for all records; nulls are skipped; null when there was no value."""

from __future__ import annotations

import polars as pl

from clickpipe.core.aggregate import Aggregate, Exprs


class BoolAnd(Aggregate):
    takes = ("bool",)

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        return {"all": value.min()}

    def merge(self, piece: Exprs) -> Exprs:
        return {"all": piece["all"].min()}

    def final(self, piece: Exprs) -> pl.Expr:
        return piece["all"]
