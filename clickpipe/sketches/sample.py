"""Some of the values, each as likely as any other: sample(page, event_id, 100). For sample_of, union and merge.

The second argument tells records apart: of those that are equal in it one counts. Its hash draws lots, so that the sample
does not depend on how records were batched or which process saw them, and a replay draws the same.

    the k records with the least hashes, and their values

Payload: text, a line for each of them in the order of hashes: the hash, a space and the value as JSON.
Memory: k rows per group.
Source: Cohen, Kaplan 2007, "Summarizing data using bottom-k sketches", of equal weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import polars as pl

from clickpipe.core import hashing
from clickpipe.core.aggregate import SUB_KEY, VALUE, Exprs
from clickpipe.core.calls import is_whole
from clickpipe.core.compute import json_of
from clickpipe.core.counted_json import JSON, NUMBER, packed_lines, unpacked_lines
from clickpipe.core.flat import GROUP, check_rising, in_order
from clickpipe.core.sketch import PAYLOAD, Sketch
from clickpipe.errors import PlanError

K, MOST = 100, 100_000


class Sample(Sketch):
    number = 7
    ordered_by: ClassVar[str] = "argument"

    def __init__(self, kind: str, k: Any = K) -> None:
        super().__init__(kind)
        if not is_whole(k, 1, MOST):
            raise PlanError(f"a sample has from 1 to {MOST:,} values, and not {k}")
        self.k = k

    def parameter(self) -> tuple[str, float]:
        return "k", self.k

    def prepared(self, value: pl.Expr) -> pl.Expr:
        return value if self.kind == "json" else json_of(value)

    def sub_key(self, value: pl.Expr, order: pl.Expr) -> pl.Expr:
        return pl.when(value.is_not_null()).then(hashing.low(hashing.hashed(order.cast(pl.String))))

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        return {JSON: value.min()}

    def merge(self, piece: Exprs) -> Exprs:
        return {JSON: piece[JSON].min()}

    def trimmed(self, rows: pl.DataFrame, keys: Sequence[str], piece: Mapping[str, str]) -> pl.DataFrame:
        if rows.height <= self.k:
            return rows
        lot = pl.col(SUB_KEY)
        limit = lot.bottom_k(self.k).max().over(keys) if keys else lot.bottom_k(self.k).max()
        return rows.filter(lot.is_null() | (lot <= limit))

    def payloads(self, rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        groups, rows = in_order(rows, keys)
        drawn = rows.filter(pl.col(SUB_KEY).is_not_null()).rename({SUB_KEY: NUMBER})
        return groups.select(*keys, packed_lines(drawn, groups.height).alias(PAYLOAD))

    def unpacked(self, payloads: pl.Series) -> pl.DataFrame:
        rows = unpacked_lines(payloads, pl.UInt64)
        check_rising(rows[GROUP], rows[NUMBER].to_numpy())
        return rows.rename({NUMBER: SUB_KEY})

    def samples(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Shape: GROUP and VALUE, a JSON list."""
        values = rows.sort(GROUP, SUB_KEY).group_by(GROUP, maintain_order=True).agg(pl.col(JSON).str.join(","))
        return values.select(GROUP, pl.format("[{}]", pl.col(JSON)).alias(VALUE))
