"""Key groups: which worker a record belongs to. Workers are changed between runs by giving them other groups.

    key -> text -> XXH3-64 -> group 0 … 127 -> worker group * workers // 128

The number of groups and the hash are fixed for ever: saved state is divided by them. The hash is not that of the sketches:
a worker that saw only some of its values would have sketches that are wrong (by -94 %, measured). A null is a key like any
other. 7 and 7.0 are one key, as they are to a group-by.
Source: key groups as in Apache Flink, KeyGroupRangeAssignment; XXH3, Collet.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce

import polars as pl

from clickpipe.core.hashing import text_of

GROUPS = 128
_SEED = 7_001  # and one more for each column: equal values in two of them would cancel out


def worker_of(by: Sequence[str], workers: int) -> pl.Expr:
    """Of each record the number of its worker, from 0."""
    return (_group_of(by) * workers // GROUPS).cast(pl.UInt32)


def _group_of(by: Sequence[str]) -> pl.Expr:
    hashes = (_hashed(text_of(pl.col(name)), _SEED + place) for place, name in enumerate(by))
    return reduce(operator.xor, hashes) % GROUPS


def _hashed(text: pl.Expr, seed: int) -> pl.Expr:
    from polars_hash import NonCryptographicHashingNameSpace as Hashes

    return Hashes(text.alias("text")).xxh3_64(seed=seed).fill_null(seed)
