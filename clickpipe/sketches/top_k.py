"""The most frequent values: top_k(page, 20). For top_of, union and merge.

Payload: text, a line for each value in the order of values: its count, a space and the value as JSON. Before them a line
without a value has what no count is short by more.
Error: at most records / (10 k, or 1,000), said with each value; none where there are no more different values than that.
Memory: 10 k rows, or 1,000.
Source: Misra and Gries, see core/counters.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from clickpipe.core import hashing
from clickpipe.core.aggregate import SUB_KEY, VALUE
from clickpipe.core.compute import json_of
from clickpipe.core.counters import Counters
from clickpipe.core.flat import GROUP, all_groups, in_order
from clickpipe.core.sketch import PAYLOAD, Sketch
from clickpipe.errors import DataError

_PARTS = ("value", "count", "error")


class TopK(Sketch, Counters):
    """The rows' values are JSON, so that 7 and "7" are two, as in the records."""

    number = 4

    def parameter(self) -> tuple[str, float]:
        return "k", self.k

    def prepared(self, value: pl.Expr) -> pl.Expr:
        if self.kind in ("str", "bool"):
            return json_of(value)
        return value if self.kind == "json" else hashing.text_of(value, self.kind)  # so that 7 and 7.0 are one

    def sub_key(self, value: pl.Expr, order: pl.Expr) -> pl.Expr:
        return value

    def payloads(self, rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        groups, rows = in_order(rows, keys)
        line = pl.format("{} {}", pl.col("n"), pl.col(SUB_KEY).fill_null(""))
        some = rows.filter(pl.col("n") > 0).group_by(GROUP, maintain_order=True).agg(line.str.join("\n").alias(PAYLOAD))
        texts = all_groups(some, groups.height)[PAYLOAD].fill_null("")
        return groups.select(*keys, texts.cast(pl.Binary).alias(PAYLOAD))

    def unpacked(self, payloads: pl.Series) -> pl.DataFrame:
        lines = pl.DataFrame({"line": payloads}).with_row_index(GROUP).filter(pl.col("line").bin.size() > 0)
        try:
            lines = lines.with_columns(pl.col("line").cast(pl.String).str.split("\n")).explode("line")
        except pl.exceptions.PolarsError:
            raise DataError("a sketch is damaged: it is not UTF-8") from None
        parts = pl.col("line").str.splitn(" ", 2).struct
        n = parts.field("field_0").cast(pl.Int64, strict=False).alias("n")
        value = parts.field("field_1")
        is_json = ((value == "") | value.str.json_path_match("$").is_not_null()).fill_null(value=False).alias("is_json")
        rows = lines.select(GROUP, pl.when(value != "").then(value).alias(SUB_KEY), n, is_json)
        is_known = rows["n"].is_not_null() & (rows["n"] > 0) & rows["is_json"]
        if not is_known.all() or rows.select(GROUP, SUB_KEY).is_duplicated().any():
            raise DataError("a sketch is damaged: a line that is not a count and a value")
        return rows.drop("is_json")

    def tops(self, rows: pl.DataFrame, k: int | None) -> pl.DataFrame:
        """Shape: GROUP and VALUE, a JSON list of value, count and error, the most frequent first."""
        found = Counters.values(self, rows, [GROUP], {"n": "n"}).drop_nulls(VALUE)
        one = pl.format('{{"value":{},"count":{},"error":{}}}', *(pl.col(VALUE).struct.field(name) for name in _PARTS))
        lists = found.select(GROUP, pl.col(VALUE).list.head(self.k if k is None else k)).explode(VALUE)
        lists = lists.select(GROUP, one.alias("one")).group_by(GROUP, maintain_order=True).agg(pl.col("one").str.join(","))
        return lists.select(GROUP, pl.format("[{}]", pl.col("one")).alias(VALUE))
