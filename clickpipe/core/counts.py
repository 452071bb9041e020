"""Sketches that count what their sub-keys stand for: cells, buckets. Payload: each one's number and count (i64), in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import polars as pl

from clickpipe.core.aggregate import SUB_KEY
from clickpipe.core.flat import GROUP, check_rising, in_order, packed, unpacked
from clickpipe.core.refused import refuse
from clickpipe.core.sketch import PAYLOAD, Sketch

_NUMBER, _N = "number", "n"


class Counts(Sketch):
    """Shape of the rows: SUB_KEY and `n`. `number_type`: of the sub-key, as numpy spells it."""

    number_type: ClassVar[str]

    def payloads(self, rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        groups, rows = in_order(rows, keys)
        met = rows.filter(pl.col(SUB_KEY).is_not_null() & (pl.col(_N) > 0)).rename({SUB_KEY: _NUMBER})
        return groups.select(*keys, packed(met, groups.height, self._dtype()).alias(PAYLOAD))

    def unpacked(self, payloads: pl.Series) -> pl.DataFrame:
        owners, records = unpacked(payloads, self._dtype())
        check_rising(owners, records[_NUMBER])
        refuse(owners, pl.Series(records[_N] < 1), "a number that counts nothing")
        return pl.DataFrame({GROUP: owners, SUB_KEY: records[_NUMBER], _N: records[_N]})

    def _dtype(self) -> list[tuple[str, str]]:
        return [(_NUMBER, self.number_type), (_N, "<i8")]
