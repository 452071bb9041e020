"""Sketches that count what their sub-keys stand for: cells, buckets. Payload: each one's number and count (i64), in order.

A count is no more than 2**53: what sums up to more counts as that. So no sum wraps, of however many sketches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import polars as pl

from clickpipe.core.aggregate import SUB_KEY, Exprs
from clickpipe.core.flat import GROUP, check_rising, in_order, packed, unpacked
from clickpipe.core.refused import refuse
from clickpipe.core.sketch import PAYLOAD, Sketch

MOST = 2**53
_NUMBER, _N = "number", "n"


def summed(counts: pl.Expr) -> pl.Expr:
    return counts.cast(pl.Int128).sum().clip(upper_bound=MOST).cast(pl.Int64)


class Counts(Sketch):
    """Shape of the rows: SUB_KEY and `n`. `number_type`: of the sub-key, as numpy spells it."""

    number_type: ClassVar[str]

    def numbers(self) -> tuple[int, int]:
        """The least and the greatest that there can be."""
        raise NotImplementedError

    def merge(self, piece: Exprs) -> Exprs:
        return {_N: summed(piece[_N])}

    def payloads(self, rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        groups, rows = in_order(rows, keys)
        met = rows.filter(pl.col(SUB_KEY).is_not_null() & (pl.col(_N) > 0)).rename({SUB_KEY: _NUMBER})
        return groups.select(*keys, packed(met, groups.height, self._dtype()).alias(PAYLOAD))

    def unpacked(self, payloads: pl.Series) -> pl.DataFrame:
        owners, records = unpacked(payloads, self._dtype())
        check_rising(owners, records[_NUMBER])
        rows = pl.DataFrame({GROUP: owners, SUB_KEY: records[_NUMBER], _N: records[_N]})
        refuse(owners, ~rows[_N].is_between(1, MOST), "a number that counts nothing, or too much")
        refuse(owners, ~rows[SUB_KEY].is_between(*self.numbers()), "no such cell or bucket")
        return rows

    def _dtype(self) -> list[tuple[str, str]]:
        return [(_NUMBER, self.number_type), (_N, "<i8")]
