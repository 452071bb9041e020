"""Keys as numbers of 128 bits: grouping and joining by them is several times as fast as by text.

They are of one process only and never written down: the seeds are secret, so that nobody can make two keys meet.
Error: two of a billion keys are taken for one with a probability of 1e-21.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import polars as pl

_SEEDS = secrets.randbits(64), secrets.randbits(64)


def number(by: Sequence[str]) -> pl.Expr:
    """Records equal in these columns have the same number, nulls too."""
    keys = pl.struct(by) if len(by) > 1 else pl.col(by[0])
    high, low = (keys.hash(seed).cast(pl.Int128) for seed in _SEEDS)
    return high * (1 << 63) + low
