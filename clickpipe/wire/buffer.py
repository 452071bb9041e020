"""Bytes that arrive in chunks, taken in the pieces that a stream is made of."""

from __future__ import annotations

from collections.abc import Iterator

from clickpipe.errors import DataError
from clickpipe.wire.codec import LONGEST_SIGNAL, TAB, is_signal

_LARGEST_FRAME = 256 << 20
_NEWLINE = 10


class Buffer:
    """Takes lines, whole frames and counted bytes from a run of chunks. Every byte is copied once at most.

    Memory: one frame. Raises DataError for a line or frame beyond all bounds.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._data, self._at = b"", 0
        self._fresh = True  # the byte before _at ended a line, or there is none

    def _more(self) -> bool:
        """Whether there is an unread byte, after reading on if need be."""
        if self._at < len(self._data):
            return True
        self._data, self._at = next(self._chunks, b""), 0
        return bool(self._data)

    def _take(self, end: int) -> bytes:
        taken = self._data[self._at : end]
        self._at = end
        if taken:
            self._fresh = taken[-1] == _NEWLINE
        return taken

    def line(self) -> bytes:
        """The next line with its newline; the rest where the input ends in mid-line; empty at its end."""
        parts: list[bytes] = []
        size = 0
        while self._more():
            end = self._data.find(b"\n", self._at) + 1
            parts.append(self._take(end or len(self._data)))
            size += len(parts[-1])
            if end:
                break
            if size > LONGEST_SIGNAL:
                raise DataError(f"a line of the stream is longer than {LONGEST_SIGNAL} bytes")
        return b"".join(parts)

    def peek_line(self) -> bytes:
        """The next line, left where it is. An endless one: as much as it takes to see that."""
        end = self._data.find(b"\n", self._at)
        if end >= 0:
            return self._data[self._at : end]
        parts, size = [self._data[self._at :]], len(self._data) - self._at
        while b"\n" not in parts[-1] and size <= LONGEST_SIGNAL and (chunk := next(self._chunks, b"")):
            parts.append(chunk)
            size += len(chunk)
        self._data, self._at = b"".join(parts), 0
        return self._data.split(b"\n", 1)[0]

    def records(self) -> bytes:
        """The lines up to the next signal."""
        parts: list[bytes] = []
        size = 0
        while self._more():
            at = self._signal_at()
            parts.append(self._take(len(self._data) if at < 0 else at))
            size += len(parts[-1])
            if at >= 0:
                break
            _check_size(size)
        return b"".join(parts)

    def _signal_at(self) -> int:
        """Where in the data the next line begins with a TAB; a TAB elsewhere is white space."""
        at = self._data.find(TAB, self._at)
        while at >= 0 and not (self._fresh if at == self._at else self._data[at - 1] == _NEWLINE):
            at = self._data.find(TAB, at + 1)
        return at

    def records_tolerant(self) -> bytes:
        """The same for a stream whose TABs were stripped: every line is looked at."""
        parts: list[bytes] = []
        size = 0
        while not is_signal(self.peek_line()) and (line := self.line()):
            parts.append(line)
            size += len(line)
            _check_size(size)
        return b"".join(parts)

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes; fewer only where the input ends."""
        parts: list[bytes] = []
        while count and self._more():
            parts.append(self._take(min(len(self._data), self._at + count)))
            count -= len(parts[-1])
        self._fresh = True  # a signal may follow at once
        return b"".join(parts)

    def rest(self) -> bytes:
        """What has arrived and was not taken."""
        return self._data[self._at :]


def _check_size(size: int) -> None:
    if size > _LARGEST_FRAME:
        raise DataError(f"a frame of the stream is larger than {_LARGEST_FRAME >> 20} MiB")
