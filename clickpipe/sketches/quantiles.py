"""Quantiles of a numeric column, within 1 % of their value: quantiles(latency_ms). For quantile_of, union and merge.

quantiles(x, 0.001) is within 0.1 %. Negative values are as good as positive ones.
Payload: buckets in order: number (i32) and count (i64). Number 0 is zero, offset + i positive, -(offset + i) negative.
Error: `accuracy`, of the value, at every quantile, and of every group however small. Memory: one row per bucket met.
Source: DDSketch, see core/buckets.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from clickpipe.core.aggregate import SUB_KEY, VALUE
from clickpipe.core.buckets import ACCURACY, Buckets
from clickpipe.core.ddsketch_proto import DDSketchProto
from clickpipe.core.flat import GROUP, check_rising, in_order, packed, unpacked
from clickpipe.core.sketch import PAYLOAD, Sketch
from clickpipe.errors import DataError

_DTYPE = [("bucket", "<i4"), ("n", "<i8")]


class Quantiles(Sketch, Buckets):
    number = 3
    forms = {"ddsketch": DDSketchProto()}

    def __init__(self, kind: str, accuracy: Any = ACCURACY) -> None:
        super().__init__(kind, 0.5, accuracy)

    @classmethod
    def reopened(cls, parameter: float) -> Sketch:
        return cls("float", parameter)

    def parameter(self) -> tuple[str, float]:
        return "accuracy", self.accuracy

    def payloads(self, rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        groups, rows = in_order(rows, keys)
        met = rows.filter(pl.col(SUB_KEY).is_not_null() & (pl.col("n") > 0)).rename({SUB_KEY: "bucket"})
        return groups.select(*keys, packed(met, groups.height, _DTYPE).alias(PAYLOAD))

    def unpacked(self, payloads: pl.Series) -> pl.DataFrame:
        owners, records = unpacked(payloads, _DTYPE)
        check_rising(owners, records["bucket"])
        if (records["n"] < 1).any():
            raise DataError("a sketch is damaged: a bucket without values")
        return pl.DataFrame({GROUP: owners, SUB_KEY: records["bucket"], "n": records["n"]})

    def quantiles(self, rows: pl.DataFrame, q: float) -> pl.DataFrame:
        """Shape: GROUP and VALUE."""
        return Buckets(self.kind, q, self.accuracy).values(rows, [GROUP], {"n": "n"}).select(GROUP, VALUE)
