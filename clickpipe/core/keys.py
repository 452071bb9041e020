"""Keys as numbers, of one process only and never written down: Polars' hashes may be others in its next version.

128 bits, by which grouping and joining is several times as fast as by text. The seeds are secret, so that nobody can make two
keys meet. Error: two of a billion keys are taken for one with a probability of 1e-21.
"""

from __future__ import annotations

import operator
import secrets
from collections.abc import Sequence
from functools import reduce

import polars as pl

_SEEDS = secrets.randbits(63), secrets.randbits(63)


def number(by: Sequence[str]) -> pl.Expr:
    """Records equal in these columns have the same number, nulls too."""
    high, low = (hash_of(by, seed).cast(pl.Int128) for seed in _SEEDS)
    return high * (1 << 63) + low


def hash_of(by: Sequence[str], seed: int = 0) -> pl.Expr:
    """64 bits, for those who compare the values too. Columns have seeds of their own, or equal values would cancel out."""
    return reduce(operator.xor, (pl.col(name).hash(seed + place) for place, name in enumerate(by)))
