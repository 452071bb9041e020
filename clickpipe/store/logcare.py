"""Logs looked after: checked byte by byte, cut where they are damaged, and let go where they are old.

Retention lets whole segments go, never the last one that has records, and nothing that a checkpoint of this home still needs.
What a log begins with is written down before a segment goes: a crash in between leaves too much, never too little.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from clickpipe.errors import StateError
from clickpipe.faults import kill_point
from clickpipe.state.directory import StateDirectory
from clickpipe.state.epochs import Epochs
from clickpipe.state.files import cut, make_folder, remove, rename, sync_folder, write_whole
from clickpipe.state.home import home, pipeline_directory
from clickpipe.state.savepoints import Savepoints
from clickpipe.store.logs import Log, Meta, bases, meta_of, path_of, segment, write_meta
from clickpipe.store.logwriter import locked
from clickpipe.store.segments import HEAD, Head, Unpacker, heads, index_of, indexed


@dataclass(frozen=True)
class Part:
    """A segment. `records`, `newest`: how many it has, and when the last of them arrived; `end`: the record behind it."""

    partition: int
    base: int
    end: int
    records: int
    bytes: int
    oldest: int | None
    newest: int | None


def parts(log: Log) -> Iterator[Part]:
    """All segments, by partition and offset."""
    for number in range(log.partitions):
        for base in bases(log.partition(number)):
            yield _part(log, number, base)


def _part(log: Log, number: int, base: int) -> Part:
    path = segment(log.partition(number), base)
    size = os.stat(path).st_size
    known = indexed(path)
    if sum(head.size for head in known) != size:
        known = [head for _, head in _walked(path)]
    end = known[-1].next if known else base
    first, last = (known[0].arrival, known[-1].arrival) if known else (None, None)
    return Part(number, base, end, end - base, size, first, last)


def _walked(path: str) -> list[tuple[int, Head]]:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return list(heads(file, 0, os.fstat(file).st_size))
    finally:
        os.close(file)


# check


def troubles(log: Log) -> Iterator[str]:
    """What is not as it was written, in words. Every byte is looked at."""
    for number in range(log.partitions):
        try:
            for _ in log.batches(number):
                pass
            place = log.place(number)
            found = bases(log.partition(number))
            size = os.stat(segment(log.partition(number), found[-1])).st_size if found else 0
            if size > place.at:
                yield f"{log.title(number)}: {size - place.at:,} bytes at its end are of an append that was cut short: harmless"
        except StateError as error:
            yield str(error)


# repair


def repair(name: str) -> list[str]:
    """Cut each partition where it is damaged, and put the rest aside. What was done, in words. Raises OutsideError while it is
    written."""
    path = path_of(name)
    lock = locked(path, name)
    try:
        try:
            meta = meta_of(path)
        except StateError:
            meta = None
        done = [] if meta else [f"log {name}: its log.json is made anew; readers that had begun must begin anew"]
        meta = meta or _guessed(path)
        write_meta(path, meta)
        log = Log(name)
        for number in range(log.partitions):
            done += _mended(log, number)
        return done
    finally:
        os.close(lock)


def _guessed(path: str) -> Meta:
    """What the folders say of a log whose log.json cannot be read."""
    numbers = sorted(int(name) for name in os.listdir(path) if name.isdigit())
    starts = [min(bases(os.path.join(path, str(number))), default=0) for number in numbers]
    return Meta(secrets.token_hex(16), len(numbers), (), starts)


def _mended(log: Log, number: int) -> list[str]:
    path, done = log.partition(number), []
    offset = None
    for base in bases(path):
        name = segment(path, base)
        if offset is not None and base != offset:
            done.append(_put_aside(log, number, name, 0))
            continue
        at, offset = _whole(name, base)
        if at < os.stat(name).st_size:
            done.append(_put_aside(log, number, name, at))
            offset = -1  # nothing behind it can be reached
        remove(index_of(name))
        _index(name)
    return done


def _whole(path: str, base: int) -> tuple[int, int]:
    """How many bytes of a segment are as they were written, and the record behind them."""
    unpacker, offset, end = Unpacker(), base, 0
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for at, head in heads(file, 0, os.fstat(file).st_size):
            if head.offset != offset or unpacker.text(head, os.pread(file, head.packed, at + HEAD)) is None:
                break
            offset, end = head.next, at + head.size
    finally:
        os.close(file)
    return end, offset


def _put_aside(log: Log, number: int, path: str, at: int) -> str:
    """The bytes from `at` on, in a file beside the log's segments."""
    folder = f"{log.path}.damaged"
    make_folder(folder)
    aside = os.path.join(folder, f"{number}-{os.path.basename(path)}.from-{at}.{int(time.time())}")
    with open(path, "rb") as file:
        file.seek(at)
        rest = file.read()
    write_whole(aside, rest, "aside")
    kill_point("after-aside")
    if at:
        cut(path, at)
    else:
        rename(path, f"{aside}.segment")
        remove(index_of(path))
    return f"{log.title(number)}: {len(rest):,} bytes of {os.path.basename(path)}, from byte {at:,} on, are in {aside}"


def _index(path: str) -> None:
    found = _walked(path)
    if found:
        write_whole(index_of(path), b"".join(head.to_bytes() for _, head in found), "index")


# retain


def retain(name: str, keep: int | None, most: int | None, now: int | None = None, *, is_dry: bool = False) -> list[Part]:
    """Segments go whose newest record arrived more than `keep` milliseconds ago, and the oldest while a partition has more than
    its part of `most` bytes. Which. Raises StateError.
    """
    log = Log(name)
    now = int(time.time() * 1_000) if now is None else now
    needed = needs(log)
    gone: list[Part] = []
    for number in range(log.partitions):
        mine = [part for part in parts(log) if part.partition == number]
        gone += _old(mine, keep, None if most is None else most // log.partitions, now, needed.get(number))
    if gone and not is_dry:
        _let_go(log, gone)
    return gone


def _old(mine: list[Part], keep: int | None, most: int | None, now: int, needed: int | None) -> list[Part]:
    """Of one partition, the oldest first, as long as each may go."""
    gone: list[Part] = []
    size = sum(part.bytes for part in mine)
    last = max((number for number, part in enumerate(mine) if part.records), default=0)
    for part in mine[:last]:
        is_old = keep is not None and part.newest is not None and part.newest < now - keep
        is_too_much = most is not None and size > most
        if not (is_old or is_too_much) or (needed is not None and part.end > needed):
            break
        gone.append(part)
        size -= part.bytes
    return gone


def _let_go(log: Log, gone: list[Part]) -> None:
    starts = list(log.starts)
    for part in gone:
        starts[part.partition] = max(starts[part.partition], part.end)
    write_meta(log.path, replace(log.meta, starts=tuple(starts)))
    kill_point("after-log-start")
    for part in gone:
        path = segment(log.partition(part.partition), part.base)
        remove(path)
        remove(index_of(path))
        kill_point("after-segment-removed")
    for number in {part.partition for part in gone}:
        sync_folder(log.partition(number))


def needs(log: Log) -> dict[int, int]:
    """Of each partition the first record that a checkpoint or savepoint of this home may still read."""
    titles = {log.title(number): number for number in range(log.partitions)}
    found: dict[int, int] = {}
    folder = os.path.join(home(), "pipelines")
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.startswith("."):
            continue
        directory = StateDirectory(pipeline_directory(name))
        manifests = [*Epochs(directory.path).manifests(), *(manifest for _, manifest in Savepoints(directory).all())]
        for manifest in manifests:
            for split in (manifest.entry(0, "source") or {}).get("splits", ()):
                if split.get("identity") == {"log": log.id} and split["name"] in titles:
                    number = titles[split["name"]]
                    record = _record_at(log, number, split["offset"])
                    found[number] = min(found.get(number, record), record)
    return found


def _record_at(log: Log, number: int, text: int) -> int:
    """The first record of the batch that has this byte of a partition's text."""
    for part in [one for one in parts(log) if one.partition == number]:
        for _, head in _walked(segment(log.partition(number), part.base)):
            if head.text + head.length > text:
                return head.offset
    return log.place(number).offset
