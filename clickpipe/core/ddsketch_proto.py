"""Quantile sketches as the protocol buffer of DDSketch, as the Python library ddsketch writes and reads it.

    DDSketch       1 mapping   2 positive store   3 negative store   4 count of zeros, a double
    mapping        1 gamma, a double   2 offset of indexes, a double   3 interpolation: 0, none, is the only one
    store          1 counts by index, a map sint32 -> double   2 counts in a row, doubles   3 the index of the first, a sint32

Bucket i has gamma**(i - 1) < x <= gamma**i, there as here. (Java's library takes gamma**i <= x < gamma**(i + 1) for it,
in the same bytes: what it reads of these is higher by one bucket's width.) Counts are whole numbers here.
Source: github.com/DataDog/sketches-py, ddsketch/pb.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import polars as pl

from clickpipe.core.aggregate import SUB_KEY
from clickpipe.core.buckets import Buckets
from clickpipe.core.counts import MOST
from clickpipe.core.forms import Form
from clickpipe.core.protobuf import (
    bytes_field,
    double,
    double_field,
    doubles,
    fields,
    joined,
    message,
    signed,
    signed_field,
    varint,
)
from clickpipe.errors import DataError, PlanError

if TYPE_CHECKING:
    from clickpipe.core.sketch import Sketch

_MAPPING, _POSITIVE, _NEGATIVE, _ZEROS = 1, 2, 3, 4
_GAMMA, _OFFSET, _INTERPOLATION = 1, 2, 3
_BY_INDEX, _IN_A_ROW, _FIRST = 1, 2, 3
_LONGEST = 90_000  # buckets: as text they still fit a line of the stream
_NO_DOUBLE = bytes(8)


class DDSketchProto(Form):
    def is_one(self, data: bytes) -> bool:
        return data[:1] == varint(_MAPPING << 3 | 2)

    def written(self, sketch: Sketch, rows: pl.DataFrame) -> bytes:
        assert isinstance(sketch, Buckets)
        counts: dict[int, int] = dict(rows.select(SUB_KEY, "n").iter_rows())
        positive = {bucket - sketch.offset: n for bucket, n in counts.items() if bucket > 0}
        negative = {-bucket - sketch.offset: n for bucket, n in counts.items() if bucket < 0}
        if sum(max(store) - min(store) + 1 for store in (positive, negative) if store) > _LONGEST:
            raise DataError(f"a DDSketch has a row of all buckets from the least to the greatest, and here are over {_LONGEST:,}")
        stores = bytes_field(_POSITIVE, _store(positive)) + bytes_field(_NEGATIVE, _store(negative))
        zeros = double_field(_ZEROS, float(counts[0])) if counts.get(0) else b""
        return bytes_field(_MAPPING, double_field(_GAMMA, sketch.gamma)) + stores + zeros

    def read(self, data: bytes) -> tuple[float | None, pl.DataFrame]:
        found = list(fields(data))
        accuracy, shift = _mapping(joined(found, _MAPPING))
        try:
            offset = Buckets("float", 0.5, accuracy).offset
        except PlanError as error:
            raise DataError(f"a DDSketch that cannot be one here: {error}") from None
        positive, negative = (_counts(joined(found, number), shift) for number in (_POSITIVE, _NEGATIVE))
        if any(not -offset < index < offset for index in (*positive, *negative)):
            raise DataError("a damaged DDSketch: an index beyond all numbers")
        zeros = _whole(double(dict(found).get(_ZEROS, _NO_DOUBLE)))
        counts = {0: zeros} | {offset + index: n for index, n in positive.items()}
        counts |= {-offset - index: n for index, n in negative.items()}
        met = {bucket: n for bucket, n in counts.items() if n}
        return accuracy, pl.DataFrame({SUB_KEY: list(met), "n": list(met.values())}, schema={SUB_KEY: pl.Int32, "n": pl.Int64})


def _store(counts: Mapping[int, int]) -> bytes:
    """In a row: the library reads no others."""
    if not counts:
        return b""
    first, last = min(counts), max(counts)
    row = [float(counts.get(index, 0)) for index in range(first, last + 1)]
    return bytes_field(_IN_A_ROW, struct.pack(f"<{len(row)}d", *row)) + (signed_field(_FIRST, first) if first else b"")


def _mapping(data: bytes) -> tuple[float, int]:
    """The accuracy, and what is to be taken off of indexes."""
    found = dict(fields(data))
    if found.get(_INTERPOLATION, 0) != 0:
        raise DataError("a DDSketch with an interpolated mapping: only logarithmic ones can be read")
    gamma, shift = double(found.get(_GAMMA, b"")), double(found.get(_OFFSET, _NO_DOUBLE))
    if not gamma > 1 or not shift.is_integer():
        raise DataError(f"a DDSketch of gamma {gamma:g} and index offset {shift:g} cannot be read")
    return _accuracy(gamma), int(shift)


def _accuracy(gamma: float) -> float:
    """The shortest that has this gamma: 0.01, and not 0.010000000000000009, which would be another accuracy."""
    exact = (gamma - 1) / (gamma + 1)
    for digits in range(1, 18):
        shorter = float(f"{exact:.{digits}g}")
        if gamma in ((1 + shorter) / (1 - shorter), 1 + 2 * shorter / (1 - shorter)):
            return shorter
    return float(f"{exact:.9g}")


def _counts(data: bytes, shift: int) -> Counter[int]:
    by_index: dict[int, int] = {}
    row: list[float] = []
    first = 0
    for number, value in fields(data):
        if number == _BY_INDEX:
            entry = dict(fields(message(value)))
            by_index[signed(entry.get(1, 0)) - shift] = _whole(double(entry.get(2, _NO_DOUBLE)))
        elif number == _IN_A_ROW:
            row += doubles(value) if value else ()
        elif number == _FIRST:
            first = signed(value)
    counts = Counter(by_index) + Counter({first + place - shift: _whole(n) for place, n in enumerate(row) if n})
    if any(count > MOST for count in counts.values()):
        raise DataError("a DDSketch with a count beyond 2**53")
    return counts


def _whole(count: float) -> int:
    if not (0 <= count <= MOST and count.is_integer()):
        raise DataError(f"a DDSketch with a count of {count:g}: only whole numbers of values up to 2**53 can be read")
    return int(count)
