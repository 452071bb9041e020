"""Quantiles of a numeric column, within 1 % of their value: quantiles(latency_ms). For quantile_of, union and merge.

quantiles(x, 0.001) is within 0.1 %. Negative values are as good as positive ones.
Payload: buckets in order: number (i32) and count (i64). Number 0 is zero, offset + i positive, -(offset + i) negative.
Error: `accuracy`, of the value, at every quantile, and of every group however small. Memory: one row per bucket met.
Source: DDSketch, see core/buckets.py.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from clickpipe.core.aggregate import VALUE
from clickpipe.core.buckets import ACCURACY, Buckets
from clickpipe.core.counts import Counts
from clickpipe.core.ddsketch_proto import DDSketchProto
from clickpipe.core.flat import GROUP
from clickpipe.core.sketch import Sketch


class Quantiles(Counts, Buckets):
    number = 3
    number_type = "<i4"
    forms = {"ddsketch": DDSketchProto()}

    def __init__(self, kind: str, accuracy: Any = ACCURACY) -> None:
        super().__init__(kind, 0.5, accuracy)

    @classmethod
    def reopened(cls, parameter: float) -> Sketch:
        return cls("float", parameter)

    def parameter(self) -> tuple[str, float]:
        return "accuracy", self.accuracy

    def numbers(self) -> tuple[int, int]:
        return 1 - 2 * self.offset, 2 * self.offset - 1

    def quantiles(self, rows: pl.DataFrame, q: Any) -> pl.DataFrame:
        """Shape: GROUP and VALUE."""
        n = pl.col("n").cast(pl.Int128)  # all together they may be more than 64 bits count
        found = Buckets(self.kind, q, self.accuracy).values(rows.rename({GROUP: "at"}).with_columns(n), ["at"], {"n": "n"})
        return found.select(pl.col("at").alias(GROUP), VALUE)
