"""Logs: durable queues of records on disk, one writer and any number of readers.

    $CLICKPIPE_HOME/logs/clicks/
        log.json                             id, partitions, by which columns, where each begins by now; with its hash
        lock                                 held by the one who writes
        0/00000000000000000000.ndjson.zst    the first segment of partition 0 (segments.py), and its .index
        0/00000000000000073411.ndjson.zst

A record is acknowledged when it is durable. Offsets are record numbers, of each partition from 0.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from clickpipe.errors import PlanError, StateError, near
from clickpipe.state.files import make_folder, sync_file, sync_way, write_whole
from clickpipe.state.home import home
from clickpipe.state.manifest import sealed, unsealed
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.state.trust import check_folder, check_no_links, read_own
from clickpipe.store.segments import HEAD, Head, Unpacker, has_head, head_of, heads, indexed

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_META = "log.json"
_SUFFIX = ".ndjson.zst"


@dataclass(frozen=True)
class Meta:
    """What is fixed of a log, and `starts`: the first record that each partition still has."""

    id: str
    partitions: int
    by: Sequence[str]
    starts: Sequence[int]

    def to_bytes(self) -> bytes:
        return sealed(orjson.dumps({"clickpipe": "log", "v": FORMAT, **asdict(self)}) + b"\n")


def folder() -> str:
    return os.path.join(home(), "logs")


def path_of(name: str) -> str:
    """Raises PlanError for a name that could lead elsewhere."""
    if not _NAME.fullmatch(name):
        raise PlanError(f"a log cannot be called {name!r}", hint="letters, digits, _ and -", word=name)
    return os.path.join(folder(), name)


def names() -> list[str]:
    """All logs there are."""
    try:
        found = os.listdir(folder())
    except FileNotFoundError:
        return []
    return sorted(name for name in found if _NAME.fullmatch(name) and os.path.exists(os.path.join(folder(), name, _META)))


def meta_of(path: str) -> Meta | None:
    """None where there is no log. Raises StateError for one that is damaged, or of a later format."""
    try:
        line = unsealed(read_own(os.path.join(path, _META)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    if line is None:
        hint = f"clickpipe log repair {os.path.basename(path)} makes it again from the segments"
        raise StateError(f"{os.path.join(path, _META)} is damaged", hint=hint)
    said = orjson.loads(line)
    if said["v"] > FORMAT:
        raise StateError(f"{path} was written by a newer clickpipe (format {said['v']}; this one knows {FORMAT})")
    return Meta(said["id"], said["partitions"], tuple(said["by"]), tuple(said["starts"]))


def made(name: str, partitions: int | None, by: Sequence[str], patience: Patience = NO_PATIENCE) -> Meta:
    """A log that is there, or is made now. Raises PlanError where it is there and has other partitions."""
    path = path_of(name)
    meta = meta_of(path)
    if meta is None:
        count = partitions or 1
        check_folder(path)
        for number in range(count):
            make_folder(os.path.join(path, str(number)), patience)
            sync_way(os.path.join(path, str(number)))
        check_no_links(path)
        meta = Meta(secrets.token_hex(16), count, tuple(by), (0,) * count)
        write_meta(path, meta, patience)
    check_no_links(path)
    if (partitions or meta.partitions) != meta.partitions or (by and tuple(by) != tuple(meta.by)):
        has = f"{meta.partitions} by {','.join(meta.by)}" if meta.by else str(meta.partitions)
        raise PlanError(f"log {name} has {has} partitions for its whole life", hint="another log, or none of these options")
    return meta


def write_meta(path: str, meta: Meta, patience: Patience = NO_PATIENCE) -> None:
    write_whole(os.path.join(path, _META), meta.to_bytes(), "log", patience)


def bases(path: str) -> list[int]:
    """The numbers of the first records of a partition's segments."""
    return sorted(int(name.removesuffix(_SUFFIX)) for name in os.listdir(path) if name.endswith(_SUFFIX) and name[:1].isdigit())


def segment(path: str, base: int) -> str:
    return os.path.join(path, f"{base:020d}{_SUFFIX}")


@dataclass(frozen=True)
class Place:
    """Where the next batch of a partition goes: in the segment that begins with record `base`, `at` so many bytes."""

    base: int
    at: int
    offset: int
    text: int

    def after(self, head: Head) -> Place:
        return Place(self.base, self.at + head.size, head.next, head.text + head.length)


class Log:
    """One log, open for reading. Raises PlanError for one that is not there, StateError for one that is damaged."""

    def __init__(self, name: str) -> None:
        self.name, self.path = name, path_of(name)
        meta = meta_of(self.path)
        if meta is None:
            known = names()
            notes = [f"there are: {', '.join(known) or 'none'}"]
            raise PlanError(f'no log "{name}"', hint=near(name, known), notes=notes, word=name)
        self.meta = meta

    @property
    def id(self) -> str:
        return self.meta.id

    @property
    def partitions(self) -> int:
        return self.meta.partitions

    @property
    def starts(self) -> Sequence[int]:
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
        if not found:
            return Place(0, 0, 0, 0)
        return end_of_segment(self.title(number), path, found[-1])

    def batches(self, number: int, offset: int | None = None) -> Iterator[tuple[Head, bytes]]:
        """Batches from the one on that has this record, as far as there are any now, and their text.

        Raises PlanError for a record that is not there any more, StateError for damage.
        """
        reader = Reader(self, number, self.starts[number] if offset is None else offset)
        try:
            yield from reader.now()
        finally:
            reader.close()


def end_of_segment(title: str, path: str, base: int) -> Place:
    """Where the last segment ends. Its index is believed as far as it goes; then the segment is looked through."""
    name = segment(path, base)
    known = indexed(name)
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        at = sum(head.size for head in known)
        if at > size or (known and head_before(file, at, known[-1]) is None):
            raise damage(title, name, min(at, size), size, known[-1].next)
        place = Place(base, at, known[-1].next if known else base, known[-1].text + known[-1].length if known else 0)
        if not known:
            place = Place(base, 0, base, first_text(path, base, file))
        for at, head in heads(file, place.at, size):
            if head.offset != place.offset or Unpacker().text(head, os.pread(file, head.packed, at + HEAD)) is None:
                break
            place = place.after(head)
        if place.at < size and has_head(file, place.at + 1, size):
            raise damage(title, name, place.at, size, place.offset)
        return place
    finally:
        os.close(file)


def first_text(path: str, base: int, file: int) -> int:
    """Where the text of a segment begins in the partition's."""
    first = head_of(os.pread(file, HEAD, 0))
    if first is not None:
        return first.text
    before = [one for one in bases(path) if one < base]
    return end_of_segment(path, path, before[-1]).text if before else 0


def head_before(file: int, end: int, head: Head) -> Head | None:
    """The head of the batch that ends there, if it is this one."""
    found = head_of(os.pread(file, HEAD, end - head.size))
    return found if found == head else None


def damage(title: str, path: str, at: int, end: int, offset: int) -> StateError:
    name = title.removeprefix("log:").partition("/")[0]
    return StateError(
        f"{title}: {path} is damaged between bytes {at:,} and {end:,}, from record {offset:,} on",
        notes=[
            "either put it back from a copy,",
            f"or clickpipe log repair {name} keeps what is before it, and puts the rest aside",
        ],
    )


class Reader:
    """Reads one partition from a record on, and goes on as it grows.

    Raises PlanError for a record that the log has not, StateError for damage.
    """

    def __init__(self, log: Log, number: int, offset: int = 0, *, text: int | None = None) -> None:
        """`text`: begin with the batch that has this byte of the partition's text, instead of a record."""
        self.log, self._number, self._title = log, number, log.title(number)
        self._path, self._unpacker = log.partition(number), Unpacker()
        self._file: int | None = None
        self._base = self._at = 0
        self.offset = 0  # of the next batch
        self.text = 0
        self._seek(offset, text)

    def _seek(self, offset: int, text: int | None) -> None:
        found = bases(self._path)
        if text is None and offset < (start := self.log.starts[self._number]):
            raise PlanError(
                f"{self._title} begins with record {start:,} by now, and {offset:,} is before that",
                hint="--from earliest begins there",
                word="--from",
            )
        if not found:
            self._base = self.offset = 0
            return
        self._base = found[0]
        for base in found if text is not None else [one for one in found if one <= offset][-1:] or found[:1]:
            if text is not None and base != found[0] and self._begin_of(base) > text:
                break
            self._base = base
        self._open(self._base)
        for at, head in heads(self._file or 0, 0, self._size()):
            if (head.text + head.length > text) if text is not None else (head.next > offset):
                break
            self._at, self.offset, self.text = at + head.size, head.next, head.text + head.length

    def _begin_of(self, base: int) -> int:
        file = os.open(segment(self._path, base), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return first_text(self._path, base, file)
        finally:
            os.close(file)

    def _open(self, base: int) -> None:
        self.close()
        self._file = os.open(segment(self._path, base), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._base, self._at, self.offset = base, 0, base
        self.text = first_text(self._path, base, self._file)

    def _size(self) -> int:
        return os.fstat(self._file).st_size if self._file is not None else 0

    def next(self) -> tuple[Head, bytes] | None:
        """The next batch and its text, if it is there whole."""
        if self._file is None and not self._opened():
            return None
        assert self._file is not None
        size = self._size()
        if self._at + HEAD <= size:
            found = self._whole(size)
            if found:
                return found
        following = [base for base in bases(self._path) if base > self._base]
        if following and self._at == self._size() and following[0] == self.offset:
            self._open(following[0])
            return self.next()
        if following or self._is_damaged(size):
            # It may have been written since we looked: then it is whole now.
            if found := self._whole(self._size()):
                return found
            raise damage(self._title, segment(self._path, self._base), self._at, size, self.offset)
        return None

    def _opened(self) -> bool:
        found = bases(self._path)
        if not found:
            return False
        self._open(found[0])
        return True

    def _whole(self, size: int) -> tuple[Head, bytes] | None:
        assert self._file is not None
        for _, head in heads(self._file, self._at, size):
            text = self._unpacker.text(head, os.pread(self._file, head.packed, self._at + HEAD))
            if text is None or head.offset != self.offset:
                return None
            self._at, self.offset, self.text = self._at + head.size, head.next, head.text + head.length
            return head, text
        return None

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
            sync_file(segment(self._path, self._base))

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None


def said_of(place: Place) -> Mapping[str, Any]:
    return asdict(place)
