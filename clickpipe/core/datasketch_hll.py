"""Distinct sketches as the HyperLogLogPlusPlus of the Python library datasketch: its serialize().

    the precision, a byte; then the rank of each register, a byte each

It does not say its hash function. Its registers are ours if that was, of the UTF-8 text of a value and for precision p,
    h = mmh3.hash128(text, 9001, signed=False);  (h >> 64) & ~(2**p - 1) | h & (2**p - 1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from clickpipe.core.forms import Form
from clickpipe.core.registers import Registers, dense, sparse
from clickpipe.errors import DataError

if TYPE_CHECKING:
    from clickpipe.core.sketch import Sketch

_FEWEST, _MOST = 4, 16


class DatasketchHll(Form):
    def is_one(self, data: bytes) -> bool:
        return bool(data) and _FEWEST <= data[0] <= _MOST and len(data) == 1 + 2 ** data[0]

    def written(self, sketch: Sketch, rows: pl.DataFrame) -> bytes:
        assert isinstance(sketch, Registers)
        if sketch.precision > _MOST:
            raise DataError(f"datasketch has no precision beyond {_MOST}, and this is one of {sketch}")
        return bytes([sketch.precision]) + dense(rows, sketch.precision).tobytes()

    def read(self, data: bytes) -> tuple[float | None, pl.DataFrame]:
        import numpy as np

        ranks = np.frombuffer(data, np.uint8)[1:]
        return data[0], sparse(np.arange(len(ranks)), ranks, data[0])
