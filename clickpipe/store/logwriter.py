"""The one who writes a log: batches, appended and made durable together.

append --> buffered --> 1 MiB, or commit: packed --> segments --> fsync --> index: acknowledged
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from clickpipe.errors import ClickpipeError, OutsideError
from clickpipe.faults import kill_point
from clickpipe.state.files import GrowingFile, hold
from clickpipe.state.holders import command_line, holders
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.store.logends import Place, open_segment, segment
from clickpipe.store.logmeta import Meta, made
from clickpipe.store.logs import Log
from clickpipe.store.segments import HEAD, SEGMENT, TEXT, Head, Packer, end_of, heads, index_of, indexed, pieces


def locked(path: str, name: str, patience: Patience = NO_PATIENCE) -> int:
    """A descriptor while which is open nobody else writes the log. Raises OutsideError while somebody does."""
    lock = os.path.join(path, "lock")
    try:
        return hold(lock, patience)
    except OutsideError:
        notes = [f"process {pid}: {command_line(pid)}" for pid in holders(lock)]
        raise OutsideError(f"log {name} is written by somebody else: it has one writer", notes=notes) from None


@dataclass
class _Waiting:
    """Text of a partition that is in no batch yet."""

    text: list[bytes] = field(default_factory=list)
    size: int = 0
    arrival: int = 0
    times: tuple[int, int] | None = None
    has_times: bool = True

    def add(self, text: bytes, arrival: int, times: tuple[int, int] | None) -> None:
        if not self.text:
            self.arrival, self.times, self.has_times = arrival, times, times is not None
        elif times is not None and self.times is not None:
            self.times = min(times[0], self.times[0]), max(times[1], self.times[1])
        self.has_times &= times is not None
        self.text.append(text)
        self.size += len(text)


class Batches:
    """Text -> numbered batches of one partition, about 1 MiB of text each."""

    def __init__(self, place: Place, packer: Packer) -> None:
        self.place, self._packer, self._waiting = place, packer, _Waiting()

    def add(self, text: bytes, times: tuple[int, int] | None) -> list[tuple[Head, bytes]]:
        """Whole lines; the batches that are full now."""
        self._waiting.add(text, int(time.time() * 1_000), times)
        return self.rest() if self._waiting.size >= TEXT else []

    def rest(self) -> list[tuple[Head, bytes]]:
        """All that has come, as batches."""
        waiting, self._waiting = self._waiting, _Waiting()
        text = waiting.text[0] if len(waiting.text) == 1 else b"".join(waiting.text)
        return [self._batch(piece, waiting) for piece in pieces(text)]

    def _batch(self, text: bytes, waiting: _Waiting) -> tuple[Head, bytes]:
        times = waiting.times if waiting.has_times else None
        head, data = self._packer.batch(text, self.place.offset, self.place.text, waiting.arrival, times)
        self.place = self.place.after(head)
        return head, data

    @property
    def is_empty(self) -> bool:
        return not self._waiting.text


class Tail:
    """The end of a partition, where batches are appended. Raises StateError where it is damaged, DiskError."""

    def __init__(self, log: Log, number: int, patience: Patience = NO_PATIENCE) -> None:
        self._path, self._patience = log.partition(number), patience
        self._open(log.place(number))

    def _open(self, place: Place) -> None:
        path = segment(self._path, place.base)
        self.place = place
        self._file = GrowingFile(path, place.at, self._patience)
        known = indexed(path)
        while known and end_of(known) > place.at:
            known.pop()
        self._index = GrowingFile(index_of(path), len(known) * HEAD, self._patience)
        if end_of(known) < place.at:
            self._reindex(path, known)
        self._acknowledged: list[Head] = []

    def _reindex(self, path: str, known: list[Head]) -> None:
        """What the index lacks, from the segment."""
        file = open_segment(path)
        try:
            self._index.append(b"".join(head.to_bytes() for _, head in heads(file, end_of(known), self.place.at)))
        finally:
            os.close(file)

    def append(self, head: Head, data: bytes) -> None:
        """Not durable yet. A segment that is full is left for another one."""
        if rolled(self.place) != self.place:
            self.roll()
        self.put(head, data)

    def roll(self) -> None:
        """Begin another segment."""
        self.sync()
        self.close()
        kill_point("before-segment")
        self._open(Place(self.place.offset, 0, self.place.offset, self.place.text))

    def put(self, head: Head, data: bytes) -> None:
        """The same, in this segment."""
        self._file.append(data)
        self._acknowledged.append(head)
        self.place = self.place.after(head)

    def sync(self) -> None:
        """All that was appended is durable: then the index knows of it."""
        if not self._acknowledged:
            return
        kill_point("before-log-fsync")
        self._file.sync()
        kill_point("after-log-fsync")
        known, self._acknowledged = self._acknowledged, []
        self._index.append(b"".join(head.to_bytes() for head in known))

    def close(self) -> None:
        self._file.close()
        self._index.close()


class LogWriter:
    """Appends as records come, and acknowledges them together. Raises OutsideError while somebody else writes, StateError."""

    def __init__(
        self, name: str, partitions: int | None = None, by: Sequence[str] = (), patience: Patience = NO_PATIENCE
    ) -> None:
        self.meta: Meta = made(name, partitions, by, patience)
        self.log = Log(name)
        self._lock = locked(self.log.path, name, patience)
        packer = Packer()
        try:
            self._tails = [Tail(self.log, number, patience) for number in range(self.meta.partitions)]
        except ClickpipeError:
            os.close(self._lock)
            raise
        self._batches = [Batches(tail.place, packer) for tail in self._tails]

    def append(self, number: int, text: bytes, times: tuple[int, int] | None = None) -> None:
        """Whole lines for a partition. `times`: their least and greatest event time, in epoch milliseconds. Raises DiskError."""
        self._put(number, self._batches[number].add(text, times))

    def commit(self) -> None:
        """All that was appended is durable, and can be read. Raises DiskError."""
        for number, batches in enumerate(self._batches):
            if not batches.is_empty:
                self._put(number, batches.rest())
            self._tails[number].sync()

    def _put(self, number: int, found: list[tuple[Head, bytes]]) -> None:
        for head, data in found:
            self._tails[number].append(head, data)

    def ends(self) -> list[int]:
        return [tail.place.offset for tail in self._tails]

    def close(self) -> None:
        """Without a last commit: what was not acknowledged may be lost."""
        for tail in self._tails:
            tail.close()
        os.close(self._lock)


def rolled(place: Place) -> Place:
    """The place, in another segment where this one is full."""
    return Place(place.offset, 0, place.offset, place.text) if place.at >= SEGMENT else place
