"""Distinct sketches as those of Apache DataSketches: HLL_8 written; HLL_4, HLL_6 and HLL_8 read.

     0   preamble ints  u8    2 list, 3 set, 10 registers          1   serial version   u8   1
     2   family         u8    7                                    3   lg k             u8   the precision
     4   lg array       u8    of hash tables                       5   flags            u8   4 empty, 8 compact, 16 out of order
     6   count or least u8    of a list; the registers' least      7   mode             u8   0 list, 1 set, 2 registers; + 4·type
     8   coupons of a list; count u32 and coupons of a set; or of registers:
     8   HIP estimate   f64   not meant in what is out of order   16   sums of 2**-rank  f64 f64   of ranks below 32, and others
    32   at the least   u32   how many registers are              36   exceptions       u32   of HLL_4
    40   registers            a byte, 6 or 4 bits each; then HLL_4's exceptions, as coupons

A coupon is (rank << 26) + 26 bits of the hash, the lowest of which are the register's number. Little endian. The registers
are ours if the values were updated as texts: numbers are hashed in another way there.
Source: datasketches-cpp, hll/include/HllSketchImpl; org.apache.datasketches.hll.PreambleUtil.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import polars as pl

from clickpipe.core.forms import Form
from clickpipe.core.registers import FEWEST, MOST, Registers, dense, sparse
from clickpipe.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from clickpipe.core.sketch import Sketch

_FAMILY, _VERSION = 7, 1
_EMPTY, _COMPACT, _OUT_OF_ORDER = 4, 8, 16
_LIST, _SET, _REGISTERS = 0, 1, 2
_HLL_4, _HLL_6, _HLL_8 = 0, 1, 2
_FACTS = struct.Struct("<8B3dII")
_SLOT_BITS = 26
_GREATEST = 64  # rank


class ApacheHll(Form):
    def is_one(self, data: bytes) -> bool:
        return len(data) >= 8 and data[2] == _FAMILY

    def written(self, sketch: Sketch, rows: pl.DataFrame) -> bytes:
        import numpy as np

        assert isinstance(sketch, Registers)
        if not rows.height:
            return bytes([2, _VERSION, _FAMILY, sketch.precision, 3, _EMPTY | _COMPACT, 0, _HLL_8 << 2 | _LIST])
        ranks = dense(rows, sketch.precision)
        counts = np.bincount(ranks, minlength=64)
        powers = counts * 2.0 ** -np.arange(len(counts))
        sums = float(powers[:32].sum()), float(powers[32:].sum())
        head = (10, _VERSION, _FAMILY, sketch.precision, 0, _COMPACT | _OUT_OF_ORDER, 0, _HLL_8 << 2 | _REGISTERS)
        return _FACTS.pack(*head, 0.0, *sums, int(counts[0]), 0) + ranks.tobytes()

    def read(self, data: bytes) -> tuple[float | None, pl.DataFrame]:
        _, version, _, precision, _, flags, _, mode = data[:8]
        if version != _VERSION:
            raise DataError(f"an Apache HLL sketch of serial version {version}; this clickpipe reads version {_VERSION}")
        if not FEWEST <= precision <= MOST:
            raise DataError(f"an Apache HLL sketch of lg k {precision}; this clickpipe takes {FEWEST} to {MOST}")
        match mode & 3:
            case 1 if flags & _EMPTY:
                raise _damaged()
            case 0 | 1:
                return precision, _of_coupons(_coupons(data, mode & 3), precision)
            case 2 if len(data) >= _FACTS.size and not flags & _EMPTY:
                return precision, _of_registers(data, mode >> 2 & 3, precision)
        raise _damaged()


def _coupons(data: bytes, mode: int) -> np.ndarray[Any, Any]:
    """Those of a list or set; in what is not compact there are empty places between them."""
    import numpy as np

    count, begin = (data[6], 8) if mode == _LIST else (int.from_bytes(data[8:12], "little"), 12)
    coupons = _numbers(data[begin:])
    if np.count_nonzero(coupons) != count:
        raise _damaged()
    return coupons


def _of_coupons(coupons: np.ndarray[Any, Any], precision: int) -> pl.DataFrame:
    return sparse(coupons & (2**precision - 1), coupons >> _SLOT_BITS, precision)


def _of_registers(data: bytes, kind: int, precision: int) -> pl.DataFrame:
    import numpy as np

    body, k = np.frombuffer(data, np.uint8)[_FACTS.size :], 2**precision
    sizes = {_HLL_4: k // 2, _HLL_6: k * 3 // 4 + 1, _HLL_8: k}
    if kind not in sizes or len(body) < sizes[kind]:
        raise _damaged()
    if kind == _HLL_8:
        ranks = body[:k]
    elif kind == _HLL_6:
        ranks = np.packbits(np.unpackbits(body, bitorder="little")[: k * 6].reshape(k, 6), axis=1, bitorder="little")[:, 0]
    else:
        ranks = _of_nibbles(body, least=data[6], exceptions=_numbers(data[_FACTS.size + k // 2 :]), k=k)
    return sparse(np.arange(k), ranks, precision)


def _of_nibbles(body: np.ndarray[Any, Any], least: int, exceptions: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    """HLL_4: what a rank is above the least of all; 15 where the exceptions say it."""
    import numpy as np

    nibbles = np.stack([body[: k // 2] & 15, body[: k // 2] >> 4], axis=1).reshape(k)
    ranks = nibbles + np.uint8(least)
    exceptions = exceptions[exceptions != 0]
    slots = exceptions & (k - 1)
    beyond = exceptions >> _SLOT_BITS
    if least > _GREATEST or (beyond < least + 15).any() or not np.array_equal(np.sort(slots), np.nonzero(nibbles == 15)[0]):
        raise _damaged()
    ranks[slots] = beyond
    return ranks


def _numbers(data: bytes) -> np.ndarray[Any, Any]:
    import numpy as np

    if len(data) % 4:
        raise _damaged()
    return np.frombuffer(data, "<u4")


def _damaged() -> DataError:
    return DataError("a damaged Apache HLL sketch")
