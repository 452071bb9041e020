"""Value of the earliest record by event time; of two at the same instant the one that arrived first.

Nulls are skipped. Without event time: by arrival alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from clickpipe.core.aggregate import Aggregate, Exprs


class First(Aggregate):
    def partial(self, value: pl.Expr, time: pl.Expr) -> Exprs:
        return _first(value, pl.when(value.is_not_null()).then(time))

    def merge(self, piece: Mapping[str, pl.Expr]) -> Exprs:
        return _first(piece["value"], piece["time"])

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        return piece["value"]


def _first(value: pl.Expr, time: pl.Expr) -> Exprs:
    # Rows of a group keep their order. (arg_min is no way: Polars 2.1 mistakes the order of some sorted columns.)
    return {"value": value.filter(time == time.min()).first(), "time": time.min()}
