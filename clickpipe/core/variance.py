"""Variance from exact sums, so that neither order nor cancellation touches it.

Kept: n, the sum of x and the sum of x², both exact (see core/exact.py). The square of a double
does not fit a double, so it is kept as the product and its rounding error (Dekker's split). The
division happens once, at the end, over whole numbers of any size.

Memory: nine numbers per group. Cost: at the end some microseconds per group.
Source: Dekker 1971, "A floating-point technique for extending the available precision", section 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import polars as pl

from clickpipe.columns import NUMBERS
from clickpipe.core import exact
from clickpipe.core.aggregate import Aggregate, Exprs

_SPLIT = float(2**27 + 1)
_PARTS = ("x.", "xx.", "err.")


class Moments(Aggregate):
    """What var, stddev and their like share. `of` makes the value of the variance."""

    less: ClassVar[int] = 1  # a sample of n has n - 1 degrees of freedom, a population n

    takes = NUMBERS

    def result(self) -> str:
        return "float"

    def of(self, variance: float) -> float:
        raise NotImplementedError

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        x = value.cast(pl.Float64)
        square = x * x
        high = x * _SPLIT - (x * _SPLIT - x)
        low = x - high
        error = ((high * high - square) + 2.0 * high * low) + low * low
        parts = zip(_PARTS, (x, square, pl.when(error.is_finite()).then(error)), strict=True)
        sums = [exact.partial(number, prefix) for prefix, number in parts]
        return {"n": x.count().cast(pl.Int64)} | {name: piece for pieces in sums for name, piece in pieces.items()}

    def merge(self, piece: Mapping[str, pl.Expr]) -> Exprs:
        sums = [exact.merge(piece, prefix) for prefix in _PARTS]
        return {"n": piece["n"].sum()} | {name: expr for pieces in sums for name, expr in pieces.items()}

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        names = ["n", *(prefix + name for prefix in _PARTS for name in exact.PIECES)]
        packed = pl.struct(*(piece[name].alias(name) for name in names))
        return packed.map_batches(self._all, return_dtype=pl.Float64, is_elementwise=True)

    def _all(self, groups: pl.Series) -> pl.Series:
        values = [self._one(group) for group in groups.to_list()]
        return pl.Series(values, dtype=pl.Float64)

    def _one(self, group: Mapping[str, Any]) -> float | None:
        n = group["n"]
        if n <= self.less:
            return None
        if any(group[prefix + "beyond"] for prefix in _PARTS):
            return None  # a square of 2**100 or more: no honest answer in doubles
        x, xx, error = (exact.as_integer(*(group[prefix + name] for name in exact.PIECES[:3])) for prefix in _PARTS)
        scale = 1 << 120
        spread = max(0, n * (xx + error) * scale - x * x)  # n² times the variance, times scale²
        return self.of(_divide(spread, n * (n - self.less) * scale * scale))


def _divide(a: int, b: int) -> float:
    try:
        return a / b
    except OverflowError:
        return math.inf
