"""The few bytes of protocol buffers that sketches are exchanged in: fields of a message, written and read.

    field       (number << 3) + wire type, as a varint, and its value:
                0 a varint     1 eight bytes     2 a length, as a varint, and as many bytes     5 four bytes
    varint      seven bits a byte, the lowest first; the highest bit says that there are more
    sint32      ..., -2, -1, 0, 1, 2, ... as 3 1 0 2 4 ...

Source: protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from clickpipe.errors import DataError

_LONGEST = 10  # bytes of a varint


def bytes_field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def double_field(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def signed_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(2 * value if value >= 0 else -2 * value - 1)


def varint(value: int) -> bytes:
    said = bytearray()
    while value > 127:
        said.append(value & 127 | 128)
        value >>= 7
    return bytes([*said, value])


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values: an integer of a varint, else the bytes. Raises DataError."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = _varint(data, at)
            case 5:
                size = 4
            case _:
                raise _damaged()
        if at + size > len(data):
            raise _damaged()
        yield key >> 3, data[at : at + size]
        at += size


def signed(value: int | bytes) -> int:
    """Of a sint32."""
    if isinstance(value, bytes):
        raise _damaged()
    return value >> 1 if value & 1 == 0 else -(value >> 1) - 1


def double(value: int | bytes) -> float:
    return doubles(value)[-1]


def doubles(value: int | bytes) -> tuple[float, ...]:
    """One, or some that are packed."""
    if isinstance(value, int) or len(value) % 8 or not value:
        raise _damaged()
    return struct.unpack(f"<{len(value) // 8}d", value)


def message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise _damaged()
    return value


def joined(found: Iterable[tuple[int, int | bytes]], number: int) -> bytes:
    """The message of a field. What comes in parts is one, and its parts behind each other are that."""
    return b"".join(message(value) for at, value in found if at == number)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The value, and where it ends."""
    value = 0
    for place, byte in enumerate(data[at : at + _LONGEST]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise _damaged()


def _damaged() -> DataError:
    return DataError("a damaged protocol buffer")
