"""Sums that do not depend on the order of addition.

Floating-point addition is not associative, so a plain sum would change with batch sizes and
workers. A double is cut into three whole numbers instead, which add exactly in 128 bits:

    x = whole + high / 2**60 + low / 2**120          high, low < 2**60

Bits below 2**-120 are cut off each value. Magnitudes of 2**100 and more (and infinities) are kept
in an ordinary floating sum beside, the only part that depends on the order.
Source: the fixed-point accumulator of Kulisch, cut to the range that measurements have.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

_STEP = float(2**60)
_LARGEST = float(2**100)
PIECES = ("whole", "high", "low", "beyond")


def partial(value: pl.Expr, prefix: str = "") -> dict[str, pl.Expr]:
    """The pieces of a sum of doubles."""
    value = value.cast(pl.Float64)
    near = pl.when(value.abs() < _LARGEST).then(value)
    whole = near.truncate()
    first = (near - whole) * _STEP
    high = first.truncate()
    low = ((first - high) * _STEP).truncate()
    return {
        f"{prefix}whole": whole.cast(pl.Int128).sum(),
        f"{prefix}high": high.cast(pl.Int64).cast(pl.Int128).sum(),
        f"{prefix}low": low.cast(pl.Int64).cast(pl.Int128).sum(),
        f"{prefix}beyond": pl.when(value.abs() >= _LARGEST).then(value).sum(),
    }


def merge(piece: Mapping[str, pl.Expr], prefix: str = "") -> dict[str, pl.Expr]:
    return {prefix + name: piece[prefix + name].sum() for name in PIECES}


def final(piece: Mapping[str, pl.Expr], prefix: str = "") -> pl.Expr:
    """The sum as a double. Error: one unit in the last place."""
    whole, high, low = _carried(*(piece[prefix + name] for name in PIECES[:3]))
    # Below zero the lanes would be a large whole and what is missing to it: the digits of a small sum would be lost.
    zero = pl.lit(0, pl.Int128)  # Polars 2.1 has no minus sign for 128 bits
    positive, negative = _rounded(whole, high, low), -_rounded(*_carried(*(zero - lane for lane in (whole, high, low))))
    return pl.when(whole < 0).then(negative).otherwise(positive) + piece[prefix + "beyond"]


def _carried(whole: pl.Expr, high: pl.Expr, low: pl.Expr) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """The same sum with each fraction in its lane, from 0 to below 2**60."""
    step = pl.lit(2**60, pl.Int128)
    high = high + low // step
    return whole + high // step, high % step, low % step


def _rounded(whole: pl.Expr, high: pl.Expr, low: pl.Expr) -> pl.Expr:
    fraction = high.cast(pl.Float64) / _STEP + low.cast(pl.Float64) / _STEP / _STEP
    return whole.cast(pl.Float64) + fraction


def as_integer(whole: int, high: int, low: int) -> int:
    """The exact sum, times 2**120."""
    return (whole << 120) + (high << 60) + low
