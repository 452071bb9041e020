"""Quantiles with a relative error: DDSketch, with its buckets as rows of (group, bucket, count).

    γ = (1 + a) / (1 - a)      bucket i of x > 0:  γ**(i-1) < x <= γ**i      its value: (1 + a) γ**(i-1) = (1 - a) γ**i

Merging adds counts, so a sketch of parts is the sketch of the whole. Zero has a bucket of its own, and negative values those
of their magnitudes, mirrored. NaN and infinity never come here: a record cannot hold them.
Memory: one row per bucket met: 345 per power of 1,000 at 1 %. For all that a double can be no more than 150,000 at 1 %, and
15,000,000 at 0.01 %.
Error: `accuracy`, of the value, at every quantile.
Source: Masson, Rim, Lee 2019, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees".
"""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable
from typing import Any

import polars as pl

from clickpipe.core.quantile import Quantile
from clickpipe.errors import PlanError

ACCURACY = 0.01
_LARGEST = 745.2  # no double has a natural logarithm beyond
_GREATEST = sys.float_info.max
_ROUNDING = 1e-12  # of logarithms: so much a value may be beyond its bucket


class Buckets(Quantile):
    """Shape of the sub-key: 0 for zero, offset + i for positive, -(offset + i) for negative values, so that it is in order."""

    keeps = "buckets of {x}, some hundred"
    grows = False

    def __init__(self, kind: str, q: Any, accuracy: Any = ACCURACY) -> None:
        super().__init__(kind, q)
        if isinstance(accuracy, bool) or not isinstance(accuracy, int | float) or not 0.0001 <= accuracy <= 0.2:
            raise PlanError(f"the accuracy is from 0.0001 to 0.2, and not {accuracy}", hint="0.01 is 1 %")
        self.accuracy = float(accuracy)
        self.gamma = (1 + self.accuracy) / (1 - self.accuracy)
        self.offset = math.ceil(_LARGEST / math.log(self.gamma)) + 1

    def shares(self) -> Hashable:
        return ("buckets", self.accuracy)

    def prepared(self, value: pl.Expr) -> pl.Expr:
        x = value.cast(pl.Float64)
        place = (x.abs().log() / math.log(self.gamma)).ceil() + self.offset
        # A null, and only that, is no bucket. (The logarithm of zero is infinite, and casts to nothing.)
        return pl.when(x == 0).then(0).otherwise((place * x.sign()).cast(pl.Int32, strict=False))

    def sub_key(self, value: pl.Expr, order: pl.Expr) -> pl.Expr:
        return value

    def at(self, q: float, *found: pl.Expr) -> pl.Expr:
        bucket = found[0]
        # The upper end of a bucket may be beyond all doubles.
        lower = ((bucket.abs() - self.offset - 1).cast(pl.Float64) * math.log(self.gamma)).exp()
        value = ((1 + self.accuracy) * lower).clip(upper_bound=_GREATEST)
        return pl.when(bucket == 0).then(0.0).otherwise(value * bucket.sign())

    def bounds(self, estimate: pl.Expr) -> tuple[pl.Expr, pl.Expr] | None:
        """The ends of its bucket: the error is a share of the true value, and not of the estimate."""
        if self.is_list:
            low, high = self._ends(pl.element())
            return estimate.list.eval(low), estimate.list.eval(high)
        return self._ends(estimate)

    def _ends(self, estimate: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
        near, far = (estimate / (1 + side * self.accuracy) * (1 - side * _ROUNDING) for side in (1, -1))
        far = far.clip(-_GREATEST, _GREATEST)
        return pl.min_horizontal(near, far), pl.max_horizontal(near, far)
