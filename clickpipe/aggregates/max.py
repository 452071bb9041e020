"""Greatest value; text is compared by code point; null when there was no value."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from clickpipe.core.aggregate import Aggregate, Exprs


class Max(Aggregate):
    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        return {"max": value.max()}

    def merge(self, piece: Mapping[str, pl.Expr]) -> Exprs:
        return {"max": piece["max"].max()}

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        return piece["max"]
