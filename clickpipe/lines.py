"""A stream of bytes -> blocks of whole lines, in bounded memory.

A line longer than 1 MiB is never kept: its beginning and its length are all that is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from clickpipe.ndjson import LONGEST_LINE

_MARK = b"\xef\xbb\xbf"
_SHOWN = 1024  # bytes of an overlong line that a dead letter shows
_LARGE = 64 << 10  # bytes of a record that goes on and on: from there on it is looked at when it has grown by a part …
_PART = 16  # … of so much, or who sends it byte by byte would keep us busy


@dataclass(frozen=True)
class Overlong:
    """A line too long to be a record, or given up for another `reason`. Unit: bytes."""

    offset: int
    beginning: bytes
    length: int
    reason: str = ""


def overlong(offset: int, line: bytes, length: int | None = None, reason: str = "") -> Overlong:
    """What is kept of such a line, or of its beginning."""
    return Overlong(offset, line[:_SHOWN], len(line) if length is None else length, reason)


@dataclass(frozen=True)
class Block:
    """Whole lines, and where the first begins. Only the last block of an input may lack its last newline."""

    data: bytes
    offset: int
    overlong: tuple[Overlong, ...] = field(default=())

    @property
    def end(self) -> int:
        """Where in the input the next byte stands."""
        return self.offset + len(self.data)


class Cutter:
    """Cuts chunks of any size into blocks of whole lines. A byte order mark at the beginning is no part of them.

    Memory: the chunk and the unfinished record, at most 1 MiB.
    """

    def __init__(self, whole: Callable[[bytes], int] = len, offset: int = 0) -> None:
        self._whole = whole  # how much of some lines is whole records, or lines that no record can begin with
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._offset = offset  # of the first byte in _rest
        self._skipping: Overlong | None = None
        self._looked_at_from = 0  # bytes kept, from which they are looked at again

    @property
    def offset(self) -> int:
        """Where the first byte stands that is in no block yet."""
        return self._offset

    @property
    def held(self) -> int:
        """Bytes of an unfinished record that are kept."""
        return self._rest_size

    @property
    def is_inside(self) -> bool:
        """Whether a line has begun that has not ended."""
        return bool(self._rest or self._skipping)

    def feed(self, chunk: bytes) -> Block | None:
        """The whole lines that `chunk` completes, if any."""
        finished: tuple[Overlong, ...] = ()
        if self._skipping:
            end = chunk.find(b"\n") + 1
            if not end:
                self._skip(len(chunk))
                return None
            self._skip(end - 1)
            finished = (self._skipping,)
            self._offset += 1
            self._skipping, chunk = None, chunk[end:]
        is_due = self._rest_size + len(chunk) >= self._looked_at_from
        cut = chunk.rfind(b"\n") + 1 if is_due else 0
        block = self._take(chunk, cut, finished) if cut else Block(b"", self._offset, finished)
        self._keep(chunk[cut:])
        if self._rest_size > LONGEST_LINE:
            block = joined([block, self._relieve()])
        return block if block.data or finished else None

    def finish(self) -> Block | None:
        """What is left at the end of the input: a last line without its newline, a record without its last quote."""
        skipped = (self._skipping,) if self._skipping else ()
        data = self._without_mark(b"".join(self._rest))
        return Block(data, self._offset, skipped) if data or skipped else None

    def _take(self, chunk: bytes, cut: int, finished: tuple[Overlong, ...]) -> Block:
        """The whole records in what was kept and the first `cut` bytes of the chunk."""
        data = chunk if cut == len(chunk) and not self._rest else b"".join([*self._rest, memoryview(chunk)[:cut]])
        data = self._without_mark(data)
        end = self._whole(data)
        block = Block(data if end == len(data) else data[:end], self._offset, finished)
        self._rest, self._rest_size = [], 0
        self._offset += end
        self._keep(data[end:])
        self._looked_at_from = len(data) + len(data) // _PART if not end and len(data) >= _LARGE else 0
        return block

    def _relieve(self) -> Block:
        """More is kept than a record can have: lines that none can begin with go out, and an endless line is skipped."""
        data = b"".join(self._rest)
        end = self._whole(data) if b"\n" in data else 0
        block = Block(data[:end], self._offset)
        self._rest, self._rest_size, self._looked_at_from = [], 0, 0
        self._offset += end
        self._keep(data[end:])
        if self._rest_size > LONGEST_LINE:
            self._skipping = overlong(self._offset, data[end:], 0)
            self._skip(self._rest_size)
            self._rest, self._rest_size = [], 0
        return block

    def _without_mark(self, data: bytes) -> bytes:
        if self._offset or not data.startswith(_MARK):
            return data
        self._offset = len(_MARK)
        return data[len(_MARK) :]

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._rest.append(rest)
            self._rest_size += len(rest)

    def _skip(self, count: int) -> None:
        assert self._skipping is not None
        self._skipping = replace(self._skipping, length=self._skipping.length + count)
        self._offset += count


def joined(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    skipped = tuple(line for block in blocks for line in block.overlong)
    return Block(b"".join(block.data for block in blocks), blocks[0].offset, skipped)


def line_count(blocks: list[Block]) -> int:
    return sum(block.data.count(b"\n") for block in blocks)
