"""A stream of bytes -> blocks of whole lines, in bounded memory.

A line longer than 1 MiB is never kept: its beginning and its length are all that is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from clickpipe.ndjson import LONGEST_LINE

_SHOWN = 1024  # bytes of an overlong line that a dead letter shows


@dataclass(frozen=True)
class Overlong:
    """A line too long to be a record. Unit: bytes."""

    offset: int
    beginning: bytes
    length: int


@dataclass(frozen=True)
class Block:
    """Whole lines, and where the first begins. Only the last block of an input may lack its last newline."""

    data: bytes
    offset: int
    end: int  # where the next block begins; overlong lines may stand in between
    overlong: tuple[Overlong, ...] = field(default=())


class Cutter:
    """Cuts chunks of any size into blocks of whole lines.

    Memory: the chunk and the unfinished line, at most 1 MiB.
    """

    def __init__(self, whole: Callable[[bytes], int] = len, offset: int = 0) -> None:
        self._whole = whole  # how much of some whole lines is whole records
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._offset = offset  # of the first byte in _rest
        self._skipping: Overlong | None = None

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
        cut = chunk.rfind(b"\n") + 1
        block = None
        if cut:
            data = chunk if cut == len(chunk) and not self._rest else b"".join([*self._rest, memoryview(chunk)[:cut]])
            end = self._whole(data)
            self._rest, self._rest_size = [], 0
            self._keep(data[end:])
            block = Block(data if end == len(data) else data[:end], self._offset, self._offset + end, finished)
            self._offset += end
        self._keep(chunk[cut:])
        return block or (Block(b"", self._offset, self._offset, finished) if finished else None)

    def finish(self) -> Block | None:
        """What is left at the end of the input: a last line without its newline."""
        overlong = (self._skipping,) if self._skipping else ()
        data = b"".join(self._rest)
        return Block(data, self._offset, self._offset + len(data), overlong) if data or overlong else None

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._rest.append(rest)
            self._rest_size += len(rest)
        if self._rest_size > LONGEST_LINE:
            self._skipping = Overlong(self._offset, b"".join(self._rest)[:_SHOWN], 0)
            self._skip(self._rest_size)
            self._rest, self._rest_size = [], 0

    def _skip(self, count: int) -> None:
        assert self._skipping is not None
        self._skipping = Overlong(self._skipping.offset, self._skipping.beginning, self._skipping.length + count)
        self._offset += count


def joined(blocks: list[Block]) -> Block:
    """One block of several that adjoin."""
    if len(blocks) == 1:
        return blocks[0]
    overlong = tuple(line for block in blocks for line in block.overlong)
    return Block(b"".join(block.data for block in blocks), blocks[0].offset, blocks[-1].end, overlong)
