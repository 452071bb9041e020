"""Logs looked after: checked byte by byte, and let go where they are old.

Retention lets whole segments go, never the last one that has records, and nothing that a checkpoint of this home still needs.
What a log begins with is written down before a segment goes: a crash in between leaves too much, never too little.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from clickpipe.errors import StateError
from clickpipe.faults import kill_point
from clickpipe.state.directory import StateDirectory
from clickpipe.state.files import remove, sync_folder
from clickpipe.state.home import home, pipeline_directory
from clickpipe.state.savepoints import Savepoints
from clickpipe.store.logends import bases, open_segment, segment
from clickpipe.store.logmeta import write_meta
from clickpipe.store.logrepair import care
from clickpipe.store.logs import Log, Reader
from clickpipe.store.segments import Head, heads, index_of, indexed


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
    file = open_segment(path)
    try:
        return list(heads(file, 0, os.fstat(file).st_size))
    finally:
        os.close(file)


# check


@dataclass(frozen=True)
class Trouble:
    """What is not as it was written, in words. `is_harmless`: nothing that was acknowledged is concerned."""

    text: str
    is_harmless: bool = False


def troubles(log: Log) -> Iterator[Trouble]:
    """Every byte is looked at."""
    for number in range(log.partitions):
        try:
            yield from _of_partition(log, number)
        except StateError as error:
            yield Trouble(str(error))


def _of_partition(log: Log, number: int) -> Iterator[Trouble]:
    for _ in log.batches(number):
        pass
    found = bases(log.partition(number))
    size = os.stat(segment(log.partition(number), found[-1])).st_size if found else 0
    place = log.place(number)  # behind that: who writes meanwhile makes it whole
    if found and found[-1] == place.base and size > place.at:
        text = f"{log.title(number)}: {size - place.at:,} bytes at its end are of an append that was cut short: harmless"
        yield Trouble(text, is_harmless=True)


# retain


@dataclass
class Retained:
    """What a retention has let go, and `held`: what was to go and is needed, by which pipelines."""

    gone: list[Part] = field(default_factory=list)
    held: list[Part] = field(default_factory=list)
    by: set[str] = field(default_factory=set)


def retain(name: str, keep: int | None, most: int | None, now: int | None = None, *, is_dry: bool = False) -> Retained:
    """Segments go whose newest record arrived more than `keep` milliseconds ago, and the oldest while a partition has more than
    its part of `most` bytes. Raises PlanError, StateError.
    """
    path = Log(name).path
    now = int(time.time() * 1_000) if now is None else now
    with care(path):
        log, found = Log(name), Retained()
        needed = needs(log)
        for number in range(log.partitions):
            mine = [part for part in parts(log) if part.partition == number]
            for part in _old(mine, keep, None if most is None else most // log.partitions, now):
                by = {pipeline for pipeline, record in needed.get(number, {}).items() if part.end > record}
                (found.held if by else found.gone).append(part)
                found.by |= by
        if found.gone and not is_dry:
            _let_go(log, found.gone)
    return found


def _old(mine: list[Part], keep: int | None, most: int | None, now: int) -> list[Part]:
    """Of one partition, the oldest first, as far as nobody wants it any more."""
    old: list[Part] = []
    size = sum(part.bytes for part in mine)
    last = max((number for number, part in enumerate(mine) if part.records), default=0)
    for part in mine[:last]:
        is_old = keep is not None and part.newest is not None and part.newest < now - keep
        if not is_old and (most is None or size <= most):
            break
        old.append(part)
        size -= part.bytes
    return old


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


def needs(log: Log) -> dict[int, dict[str, int]]:
    """Of each partition the first record that the checkpoints and savepoints of a pipeline of this home may still read."""
    found: dict[int, dict[str, int]] = {}
    for name in _pipelines():
        for number, record in _needed_by(log, StateDirectory(pipeline_directory(name))):
            mine = found.setdefault(number, {})
            mine[name] = min(mine.get(name, record), record)
    return found


def _pipelines() -> list[str]:
    folder = os.path.join(home(), "pipelines")
    return sorted(name for name in os.listdir(folder) if not name.startswith(".")) if os.path.isdir(folder) else []


def _needed_by(log: Log, directory: StateDirectory) -> Iterator[tuple[int, int]]:
    titles = {log.title(number): number for number in range(log.partitions)}
    manifests = [*directory.manifests(), *(manifest for _, manifest in Savepoints(directory).all())]
    for split in (split for manifest in manifests for split in (manifest.entry(0, "source") or {}).get("splits", ())):
        if split.get("identity", {}).get("log") in log.meta.ids() and split["name"] in titles:
            yield titles[split["name"]], _record_at(log, titles[split["name"]], split["offset"])
    if not manifests and (spooled := directory.spool()) and spooled[0] == log.id:
        yield 0, spooled[1]


def _record_at(log: Log, number: int, text: int) -> int:
    """The first record of the batch that has this byte of a partition's text, or comes behind it."""
    try:
        reader = Reader(log, number, text=text)
    except StateError:  # it has been let go
        return log.starts[number]
    reader.close()
    return reader.offset
