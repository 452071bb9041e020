"""A log: the records that it holds, and with --follow those that come.

Each partition is a split. Guarantee: replayable; what was read is durable before a checkpoint says so. When a record arrived is
kept in the log, so that a clock that runs ahead is judged by that, and the same in each replay.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clickpipe.core.eventtime import EventTime
from clickpipe.core.format import Format
from clickpipe.core.source import Arrived, Source, Split
from clickpipe.core.time import parse_instant
from clickpipe.core.watched import Watched, WatchedSplit
from clickpipe.errors import PlanError, StateError
from clickpipe.lines import Block
from clickpipe.store.logends import bases, segment
from clickpipe.store.logs import Log, Reader
from clickpipe.store.segments import Head

LOOK = 0.01  # seconds between two looks for more
_NUMBER = re.compile(r"[0-9]{1,19}")
_LEAST_OF_TIME = 10  # digits: what has fewer is no time of our days


@dataclass(frozen=True)
class LogSource(Source):
    """`start`: earliest, latest, a record's number or a time of arrival; None: earliest."""

    start: str | None = None

    def starting(self, where: str) -> Source:
        return LogSource(self.address, where)

    def splits(self) -> list[Split]:
        log = Log(self.address)
        return [LogSplit(log, number, self.start) for number in range(log.partitions)]

    def watched(self, form: Format, time_: EventTime, say: Callable[[str], None], *, is_bounded: bool) -> Watched:
        return LogWatch(self.address, time_, self.start, is_bounded=is_bounded)

    @property
    def is_divided(self) -> bool:
        return Log(self.address).partitions > 1


def first_of(log: Log, number: int, start: str | None) -> int:
    """The record that a word for a start means. A number that the log has is a record's. Raises PlanError."""
    if start in (None, "earliest"):
        return log.starts[number]
    end = log.place(number).offset
    if start == "latest":
        return end
    if _NUMBER.fullmatch(start) and int(start) <= end:
        return int(start)
    if _NUMBER.fullmatch(start) and len(start) < _LEAST_OF_TIME:
        raise PlanError(f"{log.title(number)} ends with record {end:,}, and {int(start):,} is behind that", word="--from")
    try:
        instant = parse_instant(start)
    except ValueError as error:
        hint = "earliest, latest, a record's number or a time of arrival"
        raise PlanError(f"--from: {error}", hint=hint, word="--from") from None
    return next((head.offset for head in log.heads(number) if head.arrival >= instant), end)


def text_at(log: Log, number: int, offset: int) -> int:
    """Where the text of this record begins in the partition's."""
    reader = Reader(log, number, offset)
    try:
        found = reader.next()
        if found is None:
            return reader.text
        head, text = found
        lines = text.split(b"\n", max(0, offset - head.offset))
        return head.text + sum(len(line) + 1 for line in lines[: offset - head.offset])
    finally:
        reader.close()


class LogSplit(Split):
    """One partition, as far as it goes when reading begins. Unit of offsets: bytes of the partition's text."""

    noun = "log"
    keeps_arrivals = True
    _is_bounded = False

    def __init__(self, log: Log, number: int, start: str | None = None) -> None:
        self.name, self._log, self._number = log.title(number), log, number
        self.begin = text_at(log, number, first_of(log, number, start))
        end = log.place(number)
        self._end, self._text = end.offset, end.text
        self._arrivals: list[Arrived] = []
        self._reader: Reader | None = None

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        self._reader = reader = Reader(self._log, self._number, text=offset)
        while reader.offset < self._end and (found := reader.next()):
            head, text = found
            self._arrivals.append(Arrived(head.text + head.length, head.arrival))
            yield text[max(0, offset - head.text) :]

    def extent(self, position: int) -> tuple[int, int] | None:
        return max(0, position - self.begin), self._text - self.begin

    def bound(self) -> None:
        """It ends so by itself; but more may come another time."""
        self._is_bounded = True

    def left(self, offset: int) -> int:
        return max(0, self._text - offset) if self._is_bounded else 0

    def arrived(self, block: Block) -> Sequence[Arrived]:
        """Pieces of a block that arrived together, in order; what is before it is forgotten."""
        return taken(self._arrivals, block)

    def identity(self, offset: int) -> Mapping[str, Any]:
        _check_start(self._log, self._number, offset)
        _check_end(self._log, self._number, offset)
        if self._reader:
            self._reader.sync()
        return {"log": self._log.meta.id_at(self._number, offset)}

    def close(self) -> None:
        if self._reader:
            self._reader.close()


def _check_start(log: Log, number: int, offset: int) -> None:
    """Raises StateError where retention has let go what is to be read next."""
    Reader(log, number, text=offset).close()


def _check_end(log: Log, number: int, offset: int) -> None:
    end = log.place(number)
    if offset > end.text:
        raise StateError(
            f"{log.title(number)} has shrunk: {offset:,} bytes of it had been read, and it has {end.text:,}",
            hint="--reset starts anew, and keeps what there is aside",
        )


def taken(arrivals: list[Arrived], block: Block) -> list[Arrived]:
    while arrivals and arrivals[0].end <= block.offset:
        arrivals.pop(0)
    found = [one for one in arrivals if one.end < block.end]
    rest = next((one for one in arrivals if one.end >= block.end), None)
    return [*found, Arrived(block.end, rest.arrival)] if rest else found


class LogTail(WatchedSplit):
    """One partition that is followed."""

    def __init__(self, log: Log, number: int, time_: EventTime) -> None:
        self.name, self._log, self._number = log.title(number), log, number
        self.clock = time_.clock(is_live=True)
        self.offset = 0  # bytes of text
        self.limit: int | None = None  # the record before which a bounded read ends
        self._reader: Reader | None = None
        self._arrivals: list[Arrived] = []
        self._peeked: list[tuple[Head, bytes]] = []

    def start(self, offset: int) -> None:
        self.offset = offset
        self._reader = Reader(self._log, self._number, text=offset)

    @property
    def is_done(self) -> bool:
        return self.limit is not None and self._next_record() >= self.limit

    def _next_record(self) -> int:
        assert self._reader is not None
        return self._peeked[0][0].offset if self._peeked else self._reader.offset

    def read(self, at_most: int) -> Block | None:
        """The next records, some batches together."""
        self.taken, texts, begin = 0, [], self.offset
        while self.taken < at_most and not self.is_done and (found := self._next()):
            head, text = found
            text = text[max(0, self.offset - head.text) :]
            self._arrivals.append(Arrived(head.text + head.length, head.arrival))
            self.offset = head.text + head.length
            self.taken += len(text)
            texts.append(text)
        return Block(b"".join(texts), begin) if texts else None

    def _next(self) -> tuple[Head, bytes] | None:
        assert self._reader is not None
        return self._peeked.pop(0) if self._peeked else self._reader.next()

    def peek(self, at_most: int) -> Block | None:
        """The same, and it will be read again."""
        assert self._reader is not None
        size = 0
        while size < at_most and (found := self._reader.next()):
            self._peeked.append(found)
            size += len(found[1])
        if not self._peeked:
            return None
        first = self._peeked[0][0].text
        return Block(b"".join(text for _, text in self._peeked)[max(0, self.offset - first) :], self.offset)

    def arrived(self, block: Block) -> Sequence[Arrived]:
        return taken(self._arrivals, block)

    def silence(self) -> float | None:
        """By when its newest segment was written to."""
        path = self._log.partition(self._number)
        try:
            return max(0.0, time.time() - os.stat(segment(path, bases(path)[-1])).st_mtime)
        except (IndexError, FileNotFoundError):
            return None

    def left(self) -> int:
        """Bytes of text that are there, and not read."""
        return self._log.place(self._number).text - self.offset

    def to_json(self) -> dict[str, Any]:
        if self._reader:
            self._reader.sync()
        return {
            "name": self.name,
            "offset": self.offset,
            "record": self._next_record(),
            "identity": self._identity(self.offset),
            "given": self.has_given,
            "greatest": self.clock.greatest,
            "done": False,
        }

    def restore(self, said: Mapping[str, Any]) -> None:
        if said["identity"] != self._identity(said["offset"]):
            raise StateError(
                f"{self.name} is not the log that was read before: its first {said['offset']:,} bytes have changed",
                hint="--reset starts anew, and keeps what there is aside",
            )
        _check_end(self._log, self._number, said["offset"])
        self.start(said["offset"])
        self.has_given, self.clock.greatest = said["given"], said["greatest"]
        self.clock.restore(said)

    def _identity(self, offset: int) -> dict[str, Any]:
        return {"log": self._log.meta.id_at(self._number, offset)}

    def close(self) -> None:
        if self._reader:
            self._reader.close()


class LogWatch(Watched):
    """All partitions of a log. `is_bounded`: as far as they go when reading begins."""

    look = LOOK

    def __init__(self, name: str, time_: EventTime, start: str | None, *, is_bounded: bool) -> None:
        self._log, self._start, self._is_bounded = Log(name), start, is_bounded
        self.tails: list[LogTail] = [LogTail(self._log, number, time_) for number in range(self._log.partitions)]

    def begin(self) -> None:
        for number, tail in enumerate(self.tails):
            tail.start(text_at(self._log, number, first_of(self._log, number, self._start)))
        self._bound()

    def _bound(self) -> None:
        if self._is_bounded:
            for number, tail in enumerate(self.tails):
                tail.limit = self._log.place(number).offset

    def restore(self, splits: list[Mapping[str, Any]]) -> None:
        said = {one["name"]: one for one in splits}
        for tail in self.tails:
            if tail.name not in said:
                raise StateError(f"{tail.name} is new, and the checkpoint is of another log", hint="--reset starts anew")
            tail.restore(said[tail.name])
        self._bound()

    def blocks(self, at_most: int) -> Iterator[tuple[LogTail, Block]]:
        self.taken = 0
        for tail in self.tails:
            block = tail.read(at_most)
            self.taken += tail.taken
            if block:
                yield tail, block

    def sample(self, at_most: int) -> Iterator[Block]:
        return (block for tail in self.tails if (block := tail.peek(at_most)))

    def rewind(self) -> None:
        """What was looked at is kept, and comes again."""

    @property
    def is_over(self) -> bool:
        if self.has_ended():
            return not self.left()
        return all(tail.is_done for tail in self.tails)

    def left(self) -> int:
        return sum(tail.left() for tail in self.tails)

    def close(self) -> None:
        for tail in self.tails:
            tail.close()
