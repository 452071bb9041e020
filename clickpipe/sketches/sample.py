"""Some of the values, each as likely as its weight says: sample(page, event_id, 100, amount). For sample_of, union and merge.

The second argument tells records apart: of those that are equal in it and in weight one counts. Its hash draws lots, so that
the sample does not depend on how records were batched or which process saw them, and a replay draws the same.

    lot = hash / 2^64 / weight, of the k records with the least lots, and their values

A lot is kept as the bits of its float, which are in the same order. Division is exact to the bit on every machine, as the
logarithms of other weighted samples are not. Weights below 1e-100 count as 1e-100, those above 1e100 as that; a record
without one, or whose is not above zero, is not drawn.

Payload: text, a line for each of them in the order of lots: the lot, a space and the value as JSON.
Memory: k rows per group.
Error: given the (k + 1)th lot t, a record is drawn with the probability min(1, weight * t).
Source: Duffield, Lund, Thorup 2007, "Priority sampling for estimation of arbitrary subset sums".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import polars as pl

from clickpipe.core import hashing
from clickpipe.core.aggregate import ORDER, SUB_KEY, VALUE, WEIGHT, Exprs
from clickpipe.core.calls import is_whole
from clickpipe.core.counted_json import JSON, NUMBER, as_said, check_lines, packed_lines, unpacked_lines
from clickpipe.core.flat import GROUP, in_order
from clickpipe.core.refused import refuse
from clickpipe.core.sketch import PAYLOAD, Sketch
from clickpipe.errors import PlanError

K, MOST = 100, 100_000
LEAST, GREATEST = 1e-100, 1e100


class Sample(Sketch):
    keeps = "a sample of {x}"
    number = 7
    ordered_by: ClassVar[str] = "argument"
    is_weighed: ClassVar[bool] = True

    def __init__(self, kind: str, k: Any = K) -> None:
        super().__init__(kind)
        if not is_whole(k, 1, MOST):
            raise PlanError(f"a sample has from 1 to {MOST:,} values, and not {k}")
        self.k = k

    def parameter(self) -> tuple[str, float]:
        return "k", self.k

    def prepared(self, value: pl.Expr) -> pl.Expr:
        return as_said(value, self.kind)

    def sub_key(self, value: pl.Expr, order: pl.Expr) -> pl.Expr:
        weight = order.struct.field(WEIGHT)
        share = hashing.low(hashing.hashed(hashing.text_of(order.struct.field(ORDER)))).cast(pl.Float64) / 2**64
        lot = (share / weight.clip(LEAST, GREATEST)).reinterpret(dtype=pl.UInt64)
        return pl.when(value.is_not_null() & (weight > 0) & weight.is_not_nan()).then(lot)

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
        refuse(rows[GROUP], rows[JSON].is_null(), "a lot without a value")
        check_lines(rows, NUMBER, self.k)
        return rows.rename({NUMBER: SUB_KEY})

    def samples(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Shape: GROUP and VALUE, a JSON list."""
        values = rows.sort(GROUP, SUB_KEY).group_by(GROUP, maintain_order=True).agg(pl.col(JSON).str.join(","))
        return values.select(GROUP, pl.format("[{}]", pl.col(JSON)).alias(VALUE))
