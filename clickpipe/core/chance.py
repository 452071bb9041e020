"""Chance as a pure function of seed and record number: the same in any block, process and version.

Source: the finalizer of SplitMix64 (Steele, Lea, Flood 2014), which is a hash of a counter.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import polars as pl

_WORD = 2**64
_GOLDEN = 0x9E3779B97F4A7C15
_SCALE = 2**32  # thresholds are whole numbers below this: no rounding decides anything


class Chance:
    """Independent streams of random numbers, one per purpose."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def bits(self, number: pl.Expr, purpose: int) -> pl.Expr:
        """32 random bits for each record number, as Int64."""
        start = (self._seed * 0xD1B54A32D192ED03 + purpose * _GOLDEN) % _WORD
        z = number.cast(pl.UInt64) * _word(_GOLDEN) + _word(start)
        z = (z ^ (z // _word(2**30))) * _word(0xBF58476D1CE4E5B9)
        z = (z ^ (z // _word(2**27))) * _word(0x94D049BB133111EB)
        return ((z ^ (z // _word(2**31))) // _word(_SCALE)).cast(pl.Int64)

    def below(self, number: pl.Expr, purpose: int, limit: int) -> pl.Expr:
        """A whole number from 0 to `limit` - 1."""
        return self.bits(number, purpose) * limit // _SCALE

    def happens(self, number: pl.Expr, purpose: int, probability: float) -> pl.Expr:
        return self.bits(number, purpose) < int(probability * _SCALE)


def _word(value: int) -> pl.Expr:
    return pl.lit(value, dtype=pl.UInt64)


class Choice:
    """One of several values, each with its weight."""

    def __init__(self, values: Sequence[str], weights: Sequence[float]) -> None:
        total = sum(weights)
        self._bounds = [int(bound * _SCALE / total) for bound in accumulate(weights)]
        self._values = pl.Series(list(values), dtype=pl.String)

    def pick(self, bits: pl.Series) -> pl.Series:
        bounds = pl.Series(self._bounds, dtype=pl.Int64)
        place = bounds.search_sorted(bits, side="right").clip(upper_bound=len(self._values) - 1)
        return self._values.gather(place)
