"""The first values of a group, by event time, as a list: what list and string_agg share.

Kept as rows of (group, instant, values of that instant as they came). Where that is not known, as of records of several workers,
the values of an instant are in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from clickpipe.core.aggregate import SUB_KEY, VALUE, Aggregate, Exprs
from clickpipe.core.calls import is_whole
from clickpipe.errors import PlanError

MOST = 100_000
_GROUP = "\0group"


class Firsts(Aggregate):
    """`most`: how many are kept. Memory: as many values per group."""

    ordered_by = "time"

    def __init__(self, kind: str, most: Any) -> None:
        super().__init__(kind)
        if not is_whole(most, 1, MOST):
            raise PlanError(f"the number of values is from 1 to {MOST:,}, and not {most}")
        self._most = most

    def sub_key(self, value: pl.Expr, order: pl.Expr) -> pl.Expr:
        return pl.when(value.is_not_null()).then(order)

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        return {"values": value.drop_nulls().implode()}

    def merge(self, piece: Exprs) -> Exprs:
        # (Sorting and cutting what is exploded within a group goes wrong in Polars 2.1.)
        return {"values": piece["values"].list.explode(keep_nulls=False, empty_as_null=False).implode()}

    def trimmed(self, rows: pl.DataFrame, keys: Sequence[str], piece: Mapping[str, str]) -> pl.DataFrame:
        values = pl.col(piece["values"])
        rows = rows.with_columns((values.list.sort() if self.by_value else values).list.head(self._most))
        if rows.height <= self._most:
            return rows
        place = pl.col(SUB_KEY).rank("ordinal")
        return rows.filter(((place.over(keys) if keys else place) <= self._most) | pl.col(SUB_KEY).is_null())

    def values(self, rows: pl.DataFrame, keys: Sequence[str], piece: Mapping[str, str]) -> pl.DataFrame:
        group = list(keys) or [_GROUP]
        rows = rows if keys else rows.with_columns(pl.lit(0).alias(_GROUP))
        values = pl.col(piece["values"])
        exploded = values.list.explode(keep_nulls=False, empty_as_null=False).implode()
        lists = rows.sort(SUB_KEY, maintain_order=True).group_by(group, maintain_order=True).agg(exploded)
        return lists.select(*keys, self.told(values.list.head(self._most)).alias(VALUE))

    def told(self, values: pl.Expr) -> pl.Expr:
        """The value, of the list."""
        raise NotImplementedError
