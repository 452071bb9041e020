"""Value of the latest record by event time; of two at the same instant the one that arrived last.

Nulls are skipped. Without event time: by arrival alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from clickpipe.core.aggregate import Aggregate, Exprs


class Last(Aggregate):
    def partial(self, value: pl.Expr, time: pl.Expr) -> Exprs:
        return _last(value, pl.when(value.is_not_null()).then(time))

    def merge(self, piece: Mapping[str, pl.Expr]) -> Exprs:
        return _last(piece["value"], piece["time"])

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        return piece["value"]


def _last(value: pl.Expr, time: pl.Expr) -> Exprs:
    # Rows of a group keep their order. (arg_max is no way: Polars 2.1 mistakes the order of some sorted columns.)
    return {"value": value.filter(time == time.max()).last(), "time": time.max()}
