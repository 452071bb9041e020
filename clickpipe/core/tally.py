"""Counting: of records, or of values that are not null. What count(…) is, and what we count ourselves."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from clickpipe.core.aggregate import Aggregate, Exprs
from clickpipe.core.summary import Call, column_of


class Tally(Aggregate):
    """Of kind `*`: of records."""

    def result(self) -> str:
        return "int"

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        # Polars counts in 32 bits, and a sum of those wraps round without a word.
        return {"n": (pl.len() if self.kind == "*" else value.count()).cast(pl.Int64)}

    def merge(self, piece: Mapping[str, pl.Expr]) -> Exprs:
        return {"n": piece["n"].sum()}

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        return piece["n"]


def tally(name: str, kind: str = "*") -> Call:
    """A count under this name; of kind bool: of records for which the argument is not null."""
    return Call(name, Tally(kind), pl.lit(value=True))


def tally_piece(name: str) -> str:
    """The column that its piece has."""
    return column_of(name, "n")
