"""Logs: durable queues of records on disk, one writer and any number of readers.

    $CLICKPIPE_HOME/logs/clicks/
        log.json                             id, partitions, by which columns, where each begins by now (logmeta.py)
        lock                                 held by the one who writes
        care.lock                            held while retention or a repair is at work
        0/00000000000000000000.ndjson.zst    the first segment of partition 0 (segments.py), and its .index
        0/00000000000000073411.ndjson.zst

A record is acknowledged when it is durable. Offsets are record numbers, of each partition from 0.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

from clickpipe.errors import PlanError, StateError, near
from clickpipe.state.files import sync_output
from clickpipe.store.logends import Place, bases, damage, end_of_segment, first_text, missing, open_segment, segment
from clickpipe.store.logmeta import Meta, meta_of, path_of
from clickpipe.store.logmeta import names as names
from clickpipe.store.segments import HEAD, Head, Unpacker, has_head, heads, indexed

T = TypeVar("T")


class Log:
    """One log, open for reading. Raises PlanError for one that is not there, StateError for one that is damaged."""

    def __init__(self, name: str) -> None:
        self.name, self.path = name, path_of(name)
        meta = meta_of(self.path)
        if meta is None:
            known = names()
            notes = [f"there are: {', '.join(known) or 'none'}"]
            raise PlanError(f'no log "{name}"', hint=near(name, known), notes=notes, word=name)
        self.meta: Meta = meta

    @property
    def id(self) -> str:
        return self.meta.id

    @property
    def partitions(self) -> int:
        return self.meta.partitions

    @property
    def starts(self) -> Sequence[int]:
        return self.meta.starts

    def starts_by_now(self) -> Sequence[int]:
        """The same, looked up anew: retention may have let records go."""
        self.meta = meta_of(self.path) or self.meta
        return self.meta.starts

    def partition(self, number: int) -> str:
        """The path of a partition."""
        return os.path.join(self.path, str(number))

    def title(self, number: int) -> str:
        """What a partition is called."""
        return f"log:{self.name}" if self.partitions == 1 else f"log:{self.name}/{number}"

    def ends(self) -> list[int]:
        """The numbers that the next records will have."""
        return [self.place(number).offset for number in range(self.partitions)]

    def version(self) -> str:
        """Another one whenever records have come or gone."""
        sizes = [self._size(number) for number in range(self.partitions)]
        return f"{self.id}:{','.join(map(str, self.starts))}:{','.join(sizes)}"

    def _size(self, number: int) -> str:
        found = bases(self.partition(number))
        return f"{found[-1]}+{os.stat(segment(self.partition(number), found[-1])).st_size}" if found else "0"

    def place(self, number: int) -> Place:
        """The end of a partition, as far as its batches are whole. Raises StateError where what was acknowledged is not there."""
        path = self.partition(number)
        found = bases(path)
        if found:
            return end_of_segment(self.title(number), path, found[-1])
        if self.starts[number]:
            raise missing(self.title(number), path, self.starts[number], None)
        return Place(0, 0, 0, 0)

    def batches(self, number: int, offset: int | None = None) -> Iterator[tuple[Head, bytes]]:
        """Batches from the one on that has this record, as far as there are any now, and their text.

        Raises PlanError for a record that is not there any more, StateError for damage.
        """
        reader = Reader(self, number, self.starts[number] if offset is None else offset)
        try:
            yield from reader.now()
        finally:
            reader.close()

    def heads(self, number: int) -> Iterator[Head]:
        """The heads of all batches that there are now; their text stays packed. Raises StateError for damage."""
        reader = Reader(self, number, self.starts[number])
        try:
            while found := reader.skip():
                yield found
        finally:
            reader.close()


class Reader:
    """Reads one partition from a record on, and goes on as it grows.

    Raises PlanError for a record that the log has not any more, StateError for damage, and where retention was faster.
    """

    def __init__(self, log: Log, number: int, offset: int = 0, *, text: int | None = None) -> None:
        """`text`: begin with the batch that has this byte of the partition's text, instead of a record."""
        self.log, self._number, self._title = log, number, log.title(number)
        self._path, self._unpacker = log.partition(number), Unpacker()
        self._file: int | None = None
        self._base = self._at = 0
        self.offset = 0  # of the next batch
        self.text = 0
        try:
            self._seek(offset, text)
        except FileNotFoundError:  # retention was at work meanwhile
            log.starts_by_now()
            self._seek(offset, text)

    def _seek(self, offset: int, text: int | None) -> None:
        if text is None and offset < (start := self.log.starts[self._number]):
            raise PlanError(
                f"{self._title} begins with record {start:,} by now, and {offset:,} is before that",
                hint="--from earliest begins there",
                word="--from",
            )
        found = self._there()
        if not found:
            return
        upto = [base for base in found if (self._begin_of(base) <= text if text is not None else base <= offset)]
        self._open(upto[-1] if upto else found[0])
        if text is not None and text < self.text:
            raise self._let_go()
        for at, head in heads(self._file or 0, 0, self._size()):
            if (head.text + head.length > text) if text is not None else (head.next > offset):
                break
            self._at, self.offset, self.text = at + head.size, head.next, head.text + head.length

    def _there(self) -> list[int]:
        """The segments. Raises StateError where the log says that it begins with one that is not there."""
        for _ in range(2):  # a second time where retention was at work meanwhile
            found = bases(self._path)
            if not found and not self.log.starts[self._number]:
                return []
            if found and found[0] <= self.log.starts[self._number]:
                return found
            self.log.starts_by_now()
        raise missing(self._title, self._path, self.log.starts[self._number], found[0] if found else None)

    def _begin_of(self, base: int) -> int:
        file = open_segment(segment(self._path, base))
        try:
            return first_text(self._title, self._path, base, file)
        finally:
            os.close(file)

    def _open(self, base: int) -> None:
        file = open_segment(segment(self._path, base))
        self.close()
        self._file, self._base, self._at, self.offset = file, base, 0, base
        self.text = first_text(self._title, self._path, base, file)

    def _size(self) -> int:
        return os.fstat(self._file).st_size if self._file is not None else 0

    def next(self) -> tuple[Head, bytes] | None:
        """The next batch and its text, if it is there whole."""
        return self._next(self._whole)

    def skip(self) -> Head | None:
        """The head of the next batch, if it is there whole; its text is not looked at."""
        return self._next(self._passed)

    def _next(self, take: Callable[[int], T | None]) -> T | None:
        if self._file is None and not self._opened():
            return None
        size = self._size()
        if self._at + HEAD <= size and (found := take(size)):
            return found
        following = [base for base in bases(self._path) if base > self._base]
        if following and self._at == self._size():
            self._go_on(following[0])
            return self._next(take)
        if following or self._is_damaged(size):
            # It may have been written since we looked: then it is whole now.
            if found := take(self._size()):
                return found
            raise damage(self._title, segment(self._path, self._base), self._at, size, self.offset)
        return None

    def _opened(self) -> bool:
        found = self._there()
        if found:
            self._go_on(found[0])
        return bool(found)

    def _go_on(self, base: int) -> None:
        """With the next segment. Raises StateError where it is not the next, or has gone."""
        with suppress(FileNotFoundError):
            if base == self.offset:
                self._open(base)
                return
        if self.log.starts_by_now()[self._number] <= self.offset:
            raise missing(self._title, self._path, self.offset, base)
        raise self._let_go()

    def _let_go(self) -> StateError:
        start = self.log.starts_by_now()[self._number]
        return StateError(
            f"{self._title} begins with record {start:,} by now, and what was to be read next is before that",
            notes=[
                "its retention has let go what had not been read here",
                "--reset at ingest starts anew, where the log begins by now",
            ],
        )

    def _whole(self, size: int) -> tuple[Head, bytes] | None:
        assert self._file is not None
        for at, head in heads(self._file, self._at, size):
            text = self._unpacker.text(head, os.pread(self._file, head.packed, at + HEAD))
            return (head, text) if text is not None and self._pass(head) else None
        return None

    def _passed(self, size: int) -> Head | None:
        assert self._file is not None
        for _, head in heads(self._file, self._at, size):
            return head if self._pass(head) else None
        return None

    def _pass(self, head: Head) -> bool:
        """Whether it is the one that comes next: then it is behind us."""
        if head.offset != self.offset:
            return False
        self._at, self.offset, self.text = self._at + head.size, head.next, head.text + head.length
        return True

    def _is_damaged(self, size: int) -> bool:
        """Whether what is not whole here was, or has something whole behind it: else it is being written, or was cut short."""
        known = indexed(segment(self._path, self._base))
        if known and known[-1].next > self.offset:
            return True
        return self._file is not None and self._at + HEAD < size and has_head(self._file, self._at + 1, size)

    def now(self) -> Iterator[tuple[Head, bytes]]:
        """All that is there by now."""
        while found := self.next():
            yield found

    def sync(self) -> None:
        """What was read survives from here: a power failure must not take back what somebody has made results of."""
        if self._file is not None:
            sync_output(self._file, segment(self._path, self._base))

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None
