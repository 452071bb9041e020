"""Sums and what is made of them. Integers are summed in 128 bits, floats exactly (see core/exact.py).

An integer's sum is the `whole` lane of a float's, so a column that turns out to hold floats goes on
with the sums that it has.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from clickpipe.columns import NUMBERS
from clickpipe.core import exact
from clickpipe.core.aggregate import Aggregate, Exprs


class Total(Aggregate):
    """What sum and avg share. Pieces: how many values, and their sum."""

    takes = NUMBERS

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        n = value.count().cast(pl.Int64)
        if self.kind == "int":
            return {"n": n, "whole": value.cast(pl.Int128).sum()}
        return {"n": n, **exact.partial(value)}

    def merge(self, piece: Mapping[str, pl.Expr]) -> Exprs:
        n = {"n": piece["n"].sum()}
        return n | ({"whole": piece["whole"].sum()} if self.kind == "int" else exact.merge(piece))

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        """The sum."""
        return pl.when(piece["n"] > 0).then(piece["whole"] if self.kind == "int" else exact.final(piece))

    def widened(self, piece: Mapping[str, pl.Expr]) -> Exprs:
        nothing = {"high": pl.lit(0, pl.Int128), "low": pl.lit(0, pl.Int128), "beyond": pl.lit(0.0)}
        return {**piece, **nothing}
