"""The least or greatest value: of false and true, whether all are true, or any is."""

from __future__ import annotations

import polars as pl

from clickpipe.core.aggregate import Aggregate, Exprs


class Least(Aggregate):
    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        return {"min": value.min()}

    def merge(self, piece: Exprs) -> Exprs:
        return {"min": piece["min"].min()}

    def final(self, piece: Exprs) -> pl.Expr:
        return piece["min"]


class Greatest(Aggregate):
    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        return {"max": value.max()}

    def merge(self, piece: Exprs) -> Exprs:
        return {"max": piece["max"].max()}

    def final(self, piece: Exprs) -> pl.Expr:
        return piece["max"]
