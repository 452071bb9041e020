r"""Messages of a link <-> bytes. No I/O.

A message is a header of 20 bytes, big-endian, then its payload:

    0       1       2               4                               8
    +-------+-------+---------------+-------------------------------+
    | kind  | flags | 0             | length of the payload         |
    +-------+-------+---------------+-------------------------------+-------------------------------+
    | sequence                                                      |
    +-------------------------------+-------------------------------+
    | CRC-32 of the 16 bytes before and of the payload as it is sent|
    +---------------------------------------------------------------+

    kind    from     sequence                       payload
    1 data  writer   its own, from 0, without gaps  at most 4 MiB of the stream; flag 1: packed with zstd
    2 end   writer   the next one                   none: the stream is whole
    3 ack   reader   the first it has not           none: all before it is confirmed
    4 beat  both     0                              none: I live
    5 bye   writer   0                              none: I know that you have the end
    6 gone  reader   as in ack                      none: I want no more
    7 failed  both   0                              none: I have failed, and say why where I run

A header that promises more than 4 MiB, or a zstd frame that does not say its size or says more than 8 MiB, is refused before
anything is allocated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from zlib import crc32

import zstandard


class Kind(IntEnum):
    DATA, END, ACK, BEAT, BYE, GONE, FAILED = range(1, 8)


PACKED = 1  # a flag
LARGEST = 4 << 20  # of a payload as it is sent
LARGEST_UNPACKED = 8 << 20

_HEAD = struct.Struct(">BBHIQ")
_CHECK = struct.Struct(">I")
HEADER = _HEAD.size + _CHECK.size
_LEAST_TO_PACK = 512  # bytes: less is not worth it

Bytes = bytes | memoryview


class Damaged(Exception):
    """Bytes that no honest peer sends, or that were changed on their way."""


@dataclass(frozen=True)
class Message:
    kind: Kind
    sequence: int = 0
    payload: bytes = b""


def encoded(kind: Kind, sequence: int = 0, payload: Bytes = b"", *, packs: bool = False) -> tuple[bytes, Bytes]:
    """The header, and the payload as it is sent: packed, if that is wanted and makes it smaller."""
    flags = 0
    if packs and len(payload) >= _LEAST_TO_PACK:
        packed = zstandard.ZstdCompressor(level=1).compress(payload)
        if len(packed) < len(payload):
            payload, flags = packed, PACKED
    head = _HEAD.pack(kind, flags, 0, len(payload), sequence)
    return head + _CHECK.pack(crc32(payload, crc32(head))), payload


class Decoder:
    """Takes bytes in whatever pieces they come. Memory: one message.

    The next bytes belong into `space()`; `filled` says how many were put there, and gives a message that is whole.
    """

    def __init__(self) -> None:
        self._header = bytearray(HEADER)
        self._payload = bytearray()
        self._is_in_payload = False
        self._at = 0

    def space(self) -> memoryview:
        return memoryview(self._payload if self._is_in_payload else self._header)[self._at :]

    def filled(self, count: int) -> Message | None:
        """Raises Damaged; then nothing more can be read."""
        self._at += count
        if not self._is_in_payload:
            if self._at < HEADER:
                return None
            self._payload = bytearray(self._announced())
            self._is_in_payload, self._at = True, 0
        if self._at < len(self._payload):
            return None
        self._is_in_payload, self._at = False, 0
        return self._message()

    def _announced(self) -> int:
        """The length of the payload, which nobody has checked yet."""
        kind, flags, zero, length, _ = _HEAD.unpack_from(self._header)
        if kind not in set(Kind) or flags & ~PACKED or zero:
            raise Damaged(f"a message of unknown kind {kind}, flags {flags}")
        if length > (LARGEST if kind == Kind.DATA else 0):
            raise Damaged(f"a message that says it has {length} bytes")
        return int(length)

    def _message(self) -> Message:
        kind, flags, _, _, sequence = _HEAD.unpack_from(self._header)
        (check,) = _CHECK.unpack_from(self._header, _HEAD.size)
        if crc32(self._payload, crc32(memoryview(self._header)[: _HEAD.size])) != check:
            raise Damaged("a message whose checksum is wrong")
        return Message(Kind(kind), sequence, _unpacked(self._payload) if flags & PACKED else bytes(self._payload))


def _unpacked(data: bytearray) -> bytes:
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= LARGEST_UNPACKED:  # -1: it does not say
            raise Damaged(f"a packed message that says it has {size} bytes")
        return zstandard.ZstdDecompressor(max_window_size=LARGEST_UNPACKED).decompress(data, LARGEST_UNPACKED)
    except zstandard.ZstdError as error:
        raise Damaged(f"a packed message that is damaged: {error}") from None
