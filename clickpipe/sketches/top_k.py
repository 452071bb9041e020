"""The most frequent values: top_k(page, 20). For top_of, union and merge.

Payload: text, a line for each value in the order of values: its count, a space and the value as JSON. Before them a line
without a value has what no count is short by more.
Error: at most records / (10 k, or 1,000), said with each value; none where there are no more different values than that.
Where no counter is left top_of has one entry, without a value, that says it.
Memory: 10 k rows, or 1,000.
Source: Misra and Gries, see core/counters.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from clickpipe.core.aggregate import SUB_KEY, VALUE, Exprs
from clickpipe.core.counted_json import JSON, NUMBER, as_said, check_lines, packed_lines, unpacked_lines
from clickpipe.core.counters import Counters
from clickpipe.core.counts import MOST, summed
from clickpipe.core.flat import GROUP, in_order
from clickpipe.core.refused import refuse
from clickpipe.core.sketch import PAYLOAD, Sketch

_PARTS = ("value", "count", "error")


class TopK(Sketch, Counters):
    """The rows' values are JSON, so that 7 and "7" are two, as in the records."""

    number = 4

    def parameter(self) -> tuple[str, float]:
        return "k", self.k

    def prepared(self, value: pl.Expr) -> pl.Expr:
        return as_said(value, self.kind)

    def sub_key(self, value: pl.Expr, order: pl.Expr) -> pl.Expr:
        return value

    def merge(self, piece: Exprs) -> Exprs:
        return {"n": summed(piece["n"])}

    def payloads(self, rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        groups, rows = in_order(rows, keys)
        some = rows.filter(pl.col("n") > 0).rename({"n": NUMBER, SUB_KEY: JSON})
        return groups.select(*keys, packed_lines(some, groups.height).alias(PAYLOAD))

    def unpacked(self, payloads: pl.Series) -> pl.DataFrame:
        rows = unpacked_lines(payloads, pl.Int64)
        refuse(rows[GROUP], ~rows[NUMBER].is_between(1, MOST), "a value that counts nothing, or too much")
        check_lines(rows, JSON, self.most + 1)
        return rows.select(GROUP, pl.col(JSON).alias(SUB_KEY), pl.col(NUMBER).alias("n"))

    def tops(self, rows: pl.DataFrame, k: int | None) -> pl.DataFrame:
        """Shape: GROUP and VALUE, a JSON list of value, count and error, the most frequent first."""
        found = Counters.values(self, rows.rename({GROUP: "at"}), ["at"], {"n": "n"}).rename({"at": GROUP}).drop_nulls(VALUE)
        one = pl.format(
            '{{"value":{},"count":{},"error":{}}}',
            *(pl.col(VALUE).struct.field(name).cast(pl.String).fill_null("null") for name in _PARTS),
        )
        lists = found.select(GROUP, pl.col(VALUE).list.head(self.k if k is None else k)).explode(VALUE)
        lists = lists.select(GROUP, one.alias("one")).group_by(GROUP, maintain_order=True).agg(pl.col("one").str.join(","))
        return lists.select(GROUP, pl.format("[{}]", pl.col("one")).alias(VALUE))
