"""The bytes of a log: segments of batches, which are zstd to every other program.

    00000000000000004096.ndjson.zst         named by the number of its first record

    a batch     head    a skippable frame of zstd, which `zstdcat` passes over:
                        0x184D2A5C, length of the rest  |  version  |  number of its first record  |  how many records
                        where its text begins in the partition's  |  length of its text  |  length of the body
                        when it arrived, its least and greatest event time (epoch ms, or none)
                        hash of the body (BLAKE2b, 16 bytes)  |  hash of all this (8 bytes)
                body    an ordinary frame of zstd, with checksum: whole lines of NDJSON

    00000000000000004096.index              the heads of its batches that are known to be durable, one after the other

All numbers are little endian. A head says how long its batch is, so batches are found without unpacking one, and the index can
be made again from the segment. What the index knows was acknowledged: if it is not there any more, it was damaged.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from clickpipe.errors import StateError
from clickpipe.state.trust import read_own

MAGIC = 0x184D2A5C
VERSION = 1
TEXT = 1 << 20  # bytes of text in a batch, about
SEGMENT = 64 << 20  # bytes of a segment, from which on another one is begun
NONE = -(1 << 63)
_HEAD = struct.Struct("<IIIQIQIIqqq16s8s")
HEAD = _HEAD.size
_PACKED = struct.Struct("<36xI48x")  # of a head: the length of the body
_MARK = struct.pack("<II", MAGIC, HEAD - 8)
_LEVEL = 1
_MOST = 64 << 20  # bytes of text that a batch can have: what says more is none of ours


@dataclass(frozen=True)
class Head:
    """What is known of a batch. `offset`: the number of its first record; `text`: where its text begins; `arrival`, `least`,
    `greatest`: epoch milliseconds, the last two NONE where it has no event time."""

    offset: int
    records: int
    text: int
    length: int
    packed: int
    arrival: int
    least: int
    greatest: int
    hash: bytes

    @property
    def size(self) -> int:
        """Bytes of the batch in its segment."""
        return HEAD + self.packed

    @property
    def next(self) -> int:
        """The number of the record behind it."""
        return self.offset + self.records

    def to_bytes(self) -> bytes:
        values = (self.offset, self.records, self.text, self.length, self.packed, self.arrival, self.least, self.greatest)
        data = _HEAD.pack(MAGIC, HEAD - 8, VERSION, *values, self.hash, b"")[:-8]
        return data + blake2b(data, digest_size=8).digest()


def head_of(data: bytes) -> Head | None:
    """None for what is no whole head. Raises StateError for one of a later version."""
    if len(data) != HEAD or not data.startswith(_MARK) or blake2b(data[:-8], digest_size=8).digest() != data[-8:]:
        return None
    _, _, version, *values, hash_, _ = _HEAD.unpack(data)
    if version != VERSION:
        raise StateError(f"a log of format version {version}, which this clickpipe does not know")
    offset, records, text, length, packed, arrival, least, greatest = values
    return Head(offset, records, text, length, packed, arrival, least, greatest, hash_)


class Packer:
    """Lines -> batches. Not for several threads at once."""

    def __init__(self) -> None:
        import zstandard

        self._packer = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)

    def batch(self, text: bytes, offset: int, at: int, arrival: int, times: tuple[int, int] | None) -> tuple[Head, bytes]:
        """`text`: whole lines; `offset`, `at`: the numbers of its first record and of its first byte."""
        body = self._packer.compress(text)
        least, greatest = times or (NONE, NONE)
        hash_ = blake2b(body, digest_size=16).digest()
        head = Head(offset, text.count(b"\n"), at, len(text), len(body), arrival, least, greatest, hash_)
        return head, head.to_bytes() + body


def pieces(text: bytes, size: int = TEXT) -> Iterator[bytes]:
    """Whole lines, about so many bytes at a time."""
    at = 0
    while at < len(text):
        end = text.find(b"\n", at + size - 1) + 1 or len(text)
        yield text[at:end]
        at = end


class Unpacker:
    """Batches -> lines. Not for several threads at once."""

    def __init__(self) -> None:
        import zstandard

        self._error: Any = zstandard.ZstdError
        self._unpacker = zstandard.ZstdDecompressor()

    def text(self, head: Head, body: bytes) -> bytes | None:
        """None where the body is not the one that was written."""
        if blake2b(body, digest_size=16).digest() != head.hash or head.length > _MOST:
            return None
        try:
            text: bytes = self._unpacker.decompress(body, max_output_size=head.length)
        except self._error:
            return None
        return text if len(text) == head.length else None


def heads(file: int, at: int, end: int) -> Iterator[tuple[int, Head]]:
    """Whole batches from `at` on, up to `end`, and where each begins; the first that is not whole ends it."""
    while at + HEAD <= end:
        head = head_of(os.pread(file, HEAD, at))
        if head is None or at + head.size > end:
            return
        yield at, head
        at += head.size


def has_head(file: int, at: int, end: int) -> bool:
    """Whether a whole head begins anywhere from `at` on."""
    held = b""
    while at < end:
        data = held + os.pread(file, min(1 << 20, end - at), at)
        place = data.find(_MARK)
        while place >= 0:
            if head_of(os.pread(file, HEAD, at - len(held) + place)) is not None:
                return True
            place = data.find(_MARK, place + 1)
        at += len(data) - len(held)
        held = data[-len(_MARK) :]
    return False


def index_of(path: str) -> str:
    return path.removesuffix(".ndjson.zst") + ".index"


def indexed(path: str) -> list[Head]:
    """The heads in a segment's index, as far as they follow one another."""
    data = _index(path)
    found: list[Head] = []
    for at in range(0, len(data) - HEAD + 1, HEAD):
        head = head_of(data[at : at + HEAD])
        if head is None or (found and head.offset != found[-1].next):
            break
        found.append(head)
    return found


def index_end(path: str) -> tuple[int, Head] | None:
    """Where the last batch of a segment's index ends, by what the heads say of their lengths, and its head. Only this one is
    checked: many small batches make a long index."""
    data = _index(path)
    data = data[: len(data) // HEAD * HEAD]
    last = head_of(data[-HEAD:])
    if last is None:
        return None
    return sum(HEAD + packed for (packed,) in _PACKED.iter_unpack(data)), last


def _index(path: str) -> bytes:
    try:
        return read_own(index_of(path))
    except FileNotFoundError:
        return b""


def end_of(known: Sequence[Head]) -> int:
    """The length of a segment that consists of these batches."""
    return sum(head.size for head in known)
