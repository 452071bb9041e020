"""Sums that do not depend on the order of addition.

Floating-point addition is not associative, so a plain sum would change with batch sizes and
workers. A double is cut into three whole numbers instead, which add exactly in 128 bits:

    x = whole + high / 2**60 + low / 2**120          high, low < 2**60

What a value has below 2**-120, and magnitudes of 2**100 and more, are kept in an ordinary floating
sum beside, the only part that depends on the order.
Error: one rounding, in any order, of zero and of magnitudes from 2**-67 (7e-21) to 2**100 (1e30); what
is smaller or larger is added as doubles are.
Source: the fixed-point accumulator of Kulisch, cut to the range that measurements have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

_STEP = float(2**60)
_LARGEST = float(2**100)
PIECES = ("whole", "high", "low", "beyond")


def partial(value: pl.Expr) -> dict[str, pl.Expr]:
    """The pieces of a sum of doubles."""
    return {name: lane.sum() for name, lane in lanes(value).items()}


def lanes(value: pl.Expr, prefix: str = "") -> dict[str, pl.Expr]:
    """What each value adds to them."""
    value = value.cast(pl.Float64)
    near = pl.when(value.abs() < _LARGEST).then(value)
    whole = near.truncate()
    first = (near - whole) * _STEP
    high = first.truncate()
    second = (first - high) * _STEP
    low = second.truncate()
    beyond = pl.when(value.abs() < _LARGEST).then((second - low) / _STEP / _STEP).otherwise(value)
    return {
        f"{prefix}whole": whole.cast(pl.Int128),
        f"{prefix}high": high.cast(pl.Int64).cast(pl.Int128),
        f"{prefix}low": low.cast(pl.Int64).cast(pl.Int128),
        f"{prefix}beyond": beyond,
    }


def merge(piece: Mapping[str, pl.Expr]) -> dict[str, pl.Expr]:
    return {name: piece[name].sum() for name in PIECES}


def final(piece: Mapping[str, pl.Expr]) -> pl.Expr:
    """The sum as a double."""
    whole, high, low = _carried(*(piece[name] for name in PIECES[:3]))
    # Below zero the lanes would be a large whole and what is missing to it: the digits of a small sum would be lost.
    zero = pl.lit(0, pl.Int128)  # Polars 2.1 has no minus sign for 128 bits
    positive, negative = _rounded(whole, high, low), -_rounded(*_carried(*(zero - lane for lane in (whole, high, low))))
    return pl.when(whole < 0).then(negative).otherwise(positive) + piece["beyond"]


def _carried(whole: pl.Expr, high: pl.Expr, low: pl.Expr) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """The same sum with each fraction in its lane, from 0 to below 2**60."""
    step = pl.lit(2**60, pl.Int128)
    high = high + low // step
    return whole + high // step, high % step, low % step


def _rounded(whole: pl.Expr, high: pl.Expr, low: pl.Expr) -> pl.Expr:
    fraction = high.cast(pl.Float64) / _STEP + low.cast(pl.Float64) / _STEP / _STEP
    return whole.cast(pl.Float64) + fraction


def as_integers(groups: pl.DataFrame, prefix: str) -> Any:
    """What the lanes of a sum hold, times 2**120: of each group, as integers of any size."""
    whole, high, low = (integers(groups[prefix + name]) for name in PIECES[:3])
    return (whole << 120) + (high << 60) + low


def integers(numbers: pl.Series) -> Any:
    """An array of integers of any size."""
    import numpy as np

    return np.array(numbers.fill_null(0).to_list(), dtype=object)
