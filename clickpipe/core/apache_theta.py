"""Sets as the compact theta sketches of Apache DataSketches, serial version 3: our own payload is one.

     0   preamble longs  u8    1 nothing or one value, 2 all values, 3 with theta       1   serial version  u8    3
     2   family          u8    3                                                        3   not used
     5   flags           u8    1 big endian, 4 empty, 8 compact, 16 ordered             6   hash of the seed  u16
     8   the one hash    u64; or the number of hashes u32, and 4 bytes of nothing
    16   theta           u64   if there are 3 longs; then the hashes, u64 each

It does not say how many hashes are kept. Its values are ours if they were updated as texts.
Source: org.apache.datasketches.theta.PreambleUtil.
"""

from __future__ import annotations

import struct

import polars as pl

from clickpipe.core import hashing
from clickpipe.core.aggregate import SUB_KEY
from clickpipe.core.forms import Form
from clickpipe.core.sketch import PAYLOAD, Sketch
from clickpipe.errors import DataError

SEED_HASH = 0x93CC  # of seed 9001, so that unlike seeds are told
ALL = 2**63 - 1  # theta of a set that is whole
_FAMILY, _VERSION = 3, 3
_BIG_ENDIAN, _EMPTY = 1, 4


class ApacheTheta(Form):
    says_parameter = False

    def is_one(self, data: bytes) -> bool:
        return len(data) >= 8 and data[2] == _FAMILY

    def written(self, sketch: Sketch, rows: pl.DataFrame) -> bytes:
        return bytes(sketch.payloads(rows, [])[PAYLOAD].item())

    def read(self, data: bytes) -> tuple[float | None, pl.DataFrame]:
        _check(data)
        longs, is_empty = data[0], bool(data[5] & _EMPTY)
        n = int(not is_empty) if longs == 1 else int.from_bytes(data[8:12], "little")
        if len(data) != 8 * (longs + n) or (is_empty and n):
            raise DataError("a damaged theta sketch: it ends in the middle, or has more behind its end")
        if is_empty:
            return None, _rows([], None)
        theta = int.from_bytes(data[16:24], "little") if longs == 3 else ALL
        found = list(struct.unpack(f"<{n}Q", data[8 * longs :]))
        if len(set(found)) != n or not all(0 < hash_ < theta for hash_ in found) or not 0 < theta <= ALL:
            raise DataError("a damaged theta sketch: its hashes are not those of a set")
        return None, _rows(found, theta if theta < ALL else None)


def _check(data: bytes) -> None:
    if data[1] != _VERSION:
        hint = "write it uncompressed" if data[1] == 4 else ""
        raise DataError(f"a theta sketch of serial version {data[1]}; this clickpipe reads version {_VERSION}", hint=hint)
    if data[5] & _BIG_ENDIAN or not 1 <= data[0] <= 3:
        raise DataError("a damaged theta sketch, or a big-endian one")
    if not data[5] & _EMPTY and int.from_bytes(data[6:8], "little") != SEED_HASH:
        raise DataError(f"a theta sketch of another seed: {hashing.SEED} was expected")


def _rows(hashes: list[int], theta: int | None) -> pl.DataFrame:
    """A row without a hash has theta."""
    limits = [] if theta is None else [theta]
    columns = {SUB_KEY: [*hashes, *[None] * len(limits)], "theta": [*[None] * len(hashes), *limits]}
    return pl.DataFrame(columns, schema={SUB_KEY: pl.UInt64, "theta": pl.UInt64})
