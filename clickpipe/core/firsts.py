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
from clickpipe.core.flat import GROUP, all_groups, in_order
from clickpipe.errors import PlanError

MOST = 100_000
_LEFT = "\0left"  # how many values there is still a place for


class Firsts(Aggregate):
    """`most`: how many are kept. Memory: as many values per group."""

    keeps = "the first {x}, no more than the list may have"
    ordered_by = "time"

    def __init__(self, kind: str, most: Any) -> None:
        super().__init__(kind)
        if not is_whole(most, 1, MOST):
            raise PlanError(f"the number of values is from 1 to {MOST:,}, and not {most}")
        self.width = self._most = most

    def sub_key(self, value: pl.Expr, order: pl.Expr) -> pl.Expr:
        return pl.when(value.is_not_null()).then(order)

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        return {"values": value.drop_nulls().implode()}

    def merge(self, piece: Exprs) -> Exprs:
        # (Sorting and cutting what is exploded within a group goes wrong in Polars 2.1.)
        return {"values": piece["values"].list.explode(keep_nulls=False, empty_as_null=False).implode()}

    def trimmed(self, rows: pl.DataFrame, keys: Sequence[str], piece: Mapping[str, str]) -> pl.DataFrame:
        values = pl.col(piece["values"])
        if self.by_value:
            rows = rows.with_columns(values.list.sort())
        count = values.list.len().cast(pl.Int64)
        upto = count.cum_sum().over(keys, order_by=SUB_KEY) if keys else count.cum_sum()
        rows = (rows if keys else rows.sort(SUB_KEY)).with_columns((self._most - upto + count).alias(_LEFT))
        rows = rows.filter((pl.col(_LEFT) > 0) | pl.col(SUB_KEY).is_null())
        return rows.with_columns(values.list.head(pl.col(_LEFT))).drop(_LEFT)

    def values(self, rows: pl.DataFrame, keys: Sequence[str], piece: Mapping[str, str]) -> pl.DataFrame:
        groups, rows = in_order(rows, keys)
        exploded = pl.col(piece["values"]).list.explode(keep_nulls=False, empty_as_null=False).implode()
        lists = all_groups(rows.group_by(GROUP).agg(exploded.alias(VALUE)), groups.height)
        return groups.select(*keys, lists.select(self.told(pl.col(VALUE).list.head(self._most))).to_series().alias(VALUE))

    def told(self, values: pl.Expr) -> pl.Expr:
        """The value, of the list."""
        raise NotImplementedError
