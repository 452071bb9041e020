"""How alike two sets are: similarity(user_id), of the audiences of two pages. For similarity, union and merge.

    the least of the values' hashes under each of 128 permutations; two sets have as many of them in common as they are alike

similarity(x, 512) takes 512 permutations: half of the error.
Payload: the 128 least hashes (u32); all bits are set where there was no value. They are those of a datasketch.MinHash (scheme
affine32, seed 1) that is fed with the lowest 32 bits of a value's MurmurHash3-128, seed 9001.
Error: 1 / (2 sqrt(128)), 0.044, one standard deviation at most. Memory: 128 numbers per group.
Source: Broder 1997, "On the resemblance and containment of documents"; the permutations are datasketch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import polars as pl

from clickpipe.core import hashing
from clickpipe.core.aggregate import SUB_KEY, VALUE, Exprs
from clickpipe.core.calls import is_whole
from clickpipe.core.datasketch_minhash import DatasketchMinHash
from clickpipe.core.flat import GROUP, in_order, of_arrays, packed, unpacked
from clickpipe.core.refused import refuse
from clickpipe.core.sketch import PAYLOAD, Sketch
from clickpipe.errors import PlanError
from clickpipe.lazy import numpy_for_polars

PERMUTATIONS, FEWEST, MOST = 128, 16, 1_024
_SEED = 1
_NONE = 2**32 - 1
_DTYPE = [("least", "<u4")]


class Similarity(Sketch):
    """Of records the pieces are a column for each permutation; of sketches, a row."""

    keeps = "128 numbers of {x}"
    number = 6
    forms = {"datasketch": DatasketchMinHash()}

    def __init__(self, kind: str, permutations: Any = PERMUTATIONS) -> None:
        super().__init__(kind)
        if not is_whole(permutations, FEWEST, MOST):
            raise PlanError(f"there are from {FEWEST} to {MOST:,} permutations, and not {permutations}")
        self.permutations = permutations

    def parameter(self) -> tuple[str, float]:
        return "permutations", self.permutations

    def prepared(self, value: pl.Expr) -> pl.Expr:
        return _mixed(hashing.low(hashing.hashed(hashing.text_of(value))))

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        found = _permutations(self.permutations)
        return {f"{place}": hashing.lowest(value * a + b, 32).min().cast(pl.UInt32) for place, (a, b) in enumerate(found)}

    def merge(self, piece: Exprs) -> Exprs:
        return {name: expr.min() for name, expr in piece.items()}

    def final(self, piece: Exprs) -> pl.Expr:
        numpy_for_polars()
        least = pl.concat_list([expr.fill_null(_NONE) for expr in piece.values()])
        return self.sealed(least.map_batches(_bytes_of, return_dtype=pl.Binary, is_elementwise=True))

    def payloads(self, rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        groups, rows = in_order(rows, keys)
        if not rows.height:
            nothing = b"\xff" * 4 * self.permutations
            return groups.select(*keys, pl.lit(nothing).alias(PAYLOAD))
        return groups.select(*keys, packed(rows, groups.height, _DTYPE).alias(PAYLOAD))

    def unpacked(self, payloads: pl.Series) -> pl.DataFrame:
        places = pl.int_range(payloads.len(), dtype=pl.UInt32, eager=True)
        refuse(places, payloads.bin.size() != 4 * self.permutations, f"it has not {self.permutations} hashes")
        owners, records = unpacked(payloads, _DTYPE)
        place = pl.int_range(pl.len(), dtype=pl.UInt32) % self.permutations
        return pl.DataFrame({GROUP: owners, "least": records["least"]}).select(GROUP, place.alias(SUB_KEY), "least")

    def similarity(self, first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
        """Shape: GROUP and VALUE, the share of what both have in what one of them has; null of two empty ones."""
        both = first.join(second.rename({"least": "other"}), on=[GROUP, SUB_KEY])
        is_something = (pl.min_horizontal("least", "other") < _NONE).any()
        return both.group_by(GROUP).agg(pl.when(is_something).then((pl.col("least") == pl.col("other")).mean()).alias(VALUE))


def _mixed(hash_: pl.Expr) -> pl.Expr:
    """The finaliser of MurmurHash3-32, in 64 bits."""
    hash_ = hashing.lowest(hash_, 32)
    hash_ = hashing.lowest((hash_ ^ _shifted(hash_, 16)) * pl.lit(0x85EBCA6B, pl.UInt64), 32)
    hash_ = hashing.lowest((hash_ ^ _shifted(hash_, 13)) * pl.lit(0xC2B2AE35, pl.UInt64), 32)
    return hash_ ^ _shifted(hash_, 16)


def _shifted(number: pl.Expr, bits: int) -> pl.Expr:
    return number // pl.lit(1 << bits, pl.UInt64)


@cache
def _permutations(count: int) -> list[tuple[pl.Expr, pl.Expr]]:
    """h -> a h + b, modulo 2**32. A product of two such numbers and a third fit 64 bits."""
    import numpy as np

    chance = np.random.RandomState(_SEED)  # whose numbers never change
    a = chance.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    b = chance.randint(0, 1 << 32, count, dtype=np.uint32)
    return [(pl.lit(int(x), pl.UInt64), pl.lit(int(y), pl.UInt64)) for x, y in zip(a, b, strict=True)]


def _bytes_of(lists: pl.Series) -> pl.Series:
    """Lists of as many u32 -> their bytes."""
    return of_arrays(lists.explode().to_numpy().astype("<u4").reshape(lists.len(), -1 if lists.len() else 0))
