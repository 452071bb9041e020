"""One value of a group, chosen by what its records are ordered by; among equals by their arrival.

Where that is not known, as of records of several workers, the least of the equals is taken; for the newest, the greatest.
"""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from clickpipe.core.aggregate import Aggregate, Exprs


class Chosen(Aggregate):
    """Of the records where neither the value nor what orders it is null."""

    greatest: ClassVar[bool] = False  # the record that comes last in the order, not first
    newest: ClassVar[bool] = False  # of equals the one that arrived last

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        return self._chosen(value, pl.when(value.is_not_null()).then(order))

    def merge(self, piece: Exprs) -> Exprs:
        return self._chosen(piece["value"], piece["order"])

    def final(self, piece: Exprs) -> pl.Expr:
        return piece["value"]

    def _chosen(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        # Rows of a group keep their order. (arg_max is no way: Polars 2.1 mistakes the order of some sorted columns.)
        end = order.max() if self.greatest else order.min()
        equals = value.filter(order == end)
        return {"value": self._one_of(equals), "order": end}

    def _one_of(self, equals: pl.Expr) -> pl.Expr:
        if self.by_value:
            return equals.max() if self.newest else equals.min()
        return equals.last() if self.newest else equals.first()
