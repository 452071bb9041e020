"""How far values lie apart: the greatest less the least; null when there was none."""

from collections.abc import Mapping

import polars as pl

from clickpipe.core.aggregate import Aggregate


class Spread(Aggregate):
    takes = ("int", "float")

    def partial(self, value: pl.Expr, order: pl.Expr) -> Mapping[str, pl.Expr]:
        return {"least": value.min(), "greatest": value.max()}

    def merge(self, piece: Mapping[str, pl.Expr]) -> Mapping[str, pl.Expr]:
        return {"least": piece["least"].min(), "greatest": piece["greatest"].max()}

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        return piece["greatest"] - piece["least"]
