"""Similarity sketches as the LeanMinHash of the Python library datasketch: its serialize(), little endian.

    seed (i64), minus the number of permutations (i32), 1 for scheme affine32 (u8), the least hash of each (u32)

It does not say its hash function. Its hashes are ours if that was, of the UTF-8 text of a value,
    mmh3.hash128(text, 9001, signed=False) & (2**32 - 1)
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import polars as pl

from clickpipe.core.aggregate import SUB_KEY
from clickpipe.core.forms import Form
from clickpipe.errors import DataError

if TYPE_CHECKING:
    from clickpipe.core.sketch import Sketch

_HEAD = struct.Struct("<qiB")
_SEED, _AFFINE32 = 1, 1


class DatasketchMinHash(Form):
    def is_one(self, data: bytes) -> bool:
        return len(data) > _HEAD.size and _HEAD.unpack_from(data)[1] < 0

    def written(self, sketch: Sketch, rows: pl.DataFrame) -> bytes:
        hashes = rows.sort(SUB_KEY)["least"].to_numpy().astype("<u4").tobytes()
        return _HEAD.pack(_SEED, -len(rows), _AFFINE32) + hashes

    def read(self, data: bytes) -> tuple[float | None, pl.DataFrame]:
        import numpy as np

        seed, count, scheme = _HEAD.unpack_from(data)
        if (seed, scheme) != (_SEED, _AFFINE32) or len(data) != _HEAD.size - 4 * count:
            raise DataError(f"a MinHash of seed {_SEED} and scheme affine32 was expected")
        hashes = np.frombuffer(data, "<u4", offset=_HEAD.size)
        places = np.arange(-count, dtype=np.uint32)
        return -count, pl.DataFrame({SUB_KEY: places, "least": hashes})
