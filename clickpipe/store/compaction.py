"""Files of an archive made anew: many small ones as one, or one without some of its rows.

    day=2026-03-01/   clicks-…-000000000041-1.parquet  20 KiB  ┐
                      clicks-…-000000000042-1.parquet  19 KiB  ├->  compacted-9f86d081-000000000112-1.parquet
                      …                                        ┘    in one version: nobody sees both, or none

What is made anew has the rows of one writer and lineage, in the order of time as far as files are. Memory: some row groups.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b

import polars as pl

from clickpipe.errors import StateError
from clickpipe.faults import kill_point
from clickpipe.state.files import rename, sync_file
from clickpipe.store.archivefiles import GROUP, Origin
from clickpipe.store.archives import Archive, Snapshot, dtype, hidden_of, scan
from clickpipe.store.versions import File, Version

_CHUNK = 1 << 20
_ENOUGH = 0.5  # of the target: a file of that size stays as it is


def compact(archive: Archive, target: int, say: Callable[[str], None] = lambda _: None) -> tuple[int, int]:
    """How many files there were, and how many there are now. `target`: bytes of a file. Raises StateError, DiskError."""
    snapshot = archive.snapshot()
    before = len(snapshot.files)
    origin = Origin("compacted", secrets.token_hex(8))
    archive.clear("compacted", None, [])
    for number, group in enumerate(_groups(snapshot, target), 1):
        made = _merged(archive, snapshot, group, origin, number)
        kill_point("after-compacted")
        away = {file.path for file in group}
        if not _exchange(archive, [made], away):
            say(f"{os.path.dirname(made.path) or archive.name}: changed meanwhile, and left as it is")
    return before, len(archive.snapshot().files)


def _exchange(archive: Archive, made: Sequence[File], away: set[str]) -> bool:
    """Whether all that was to go was still there."""
    if not away <= set(archive.newest().files):
        for file in made:
            os.unlink(hidden_of(os.path.join(archive.folder, file.path)))
        return False

    def still(now: Version) -> Sequence[str]:
        if not away <= set(now.files):
            raise StateError(f"archive {archive.name} was changed at the same moment: do it again")
        return sorted(away)

    archive.commit(made, archive.newest().shape, {}, still)
    return True


def _groups(snapshot: Snapshot, target: int) -> Iterator[list[File]]:
    """Small files of one folder, writer and columns that are to become one."""
    alike: dict[tuple[object, ...], list[File]] = defaultdict(list)
    for file in snapshot.files:
        if file.bytes < target * _ENOUGH:
            alike[(os.path.dirname(file.path), file.writer, file.lineage, tuple(file.types.items()))].append(file)
    for files in alike.values():
        group: list[File] = []
        for file in files:
            if group and sum(one.bytes for one in group) + file.bytes > target:
                yield from [group] if len(group) > 1 else []
                group = []
            group.append(file)
        yield from [group] if len(group) > 1 else []


def _merged(archive: Archive, snapshot: Snapshot, group: Sequence[File], origin: Origin, number: int) -> File:
    first = group[0]
    name = f"{origin.stem}{snapshot.version:012d}-{number}.parquet"
    shape = {column: dtype(kind) for column, kind in first.types.items()}
    rows = pl.scan_parquet([snapshot.path_of(file) for file in group], schema=shape, glob=False, hive_partitioning=False)
    made = replace(
        first,
        path=os.path.join(os.path.dirname(first.path), name),
        least=_least(group),
        greatest=_greatest(group),
        after=min(file.after for file in group),
        newest=max(file.newest for file in group),
    )
    made = _written(archive, made, rows)
    if made.rows != (expected := sum(file.rows for file in group)):
        raise StateError(f"{os.path.dirname(first.path)}: {expected:,} rows were to be compacted, and {made.rows:,} came out")
    return made


def _written(archive: Archive, file: File, rows: pl.LazyFrame) -> File:
    """These rows as a staged file, durable under a name that nobody looks for."""
    staged = hidden_of(os.path.join(archive.place(os.path.dirname(file.path)), os.path.basename(file.path)))
    part = f"{staged}.{os.getpid()}.part"
    rows.sink_parquet(part, compression="zstd", row_group_size=GROUP, statistics=True, maintain_order=True)
    sync_file(part)
    kill_point("before-compacted-rename")
    rename(part, staged)
    count = int(pl.scan_parquet(staged, glob=False).select(pl.len()).collect().item())
    return replace(file, rows=count, bytes=os.stat(staged).st_size, hash=hash_of(staged))


def _least(files: Sequence[File]) -> int | None:
    known = [file.least for file in files if file.least is not None]
    return min(known) if len(known) == len(files) else None


def _greatest(files: Sequence[File]) -> int | None:
    known = [file.greatest for file in files if file.greatest is not None]
    return max(known) if len(known) == len(files) else None


def hash_of(path: str) -> str:
    """Of a whole file, as the manifest has it."""
    made = blake2b(digest_size=16)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            made.update(chunk)
    return made.hexdigest()


def without(archive: Archive, span: tuple[int, int] | None, origin: Origin) -> tuple[list[File], list[str]]:
    """Files made anew that have no rows of a time, and the paths of those that then go. `span`: None for all there is.

    Unit: milliseconds, the second bound exclusive.
    """
    snapshot = archive.snapshot()
    if span is None:
        return [], [file.path for file in snapshot.files]
    made, away = [], []
    for number, file in enumerate(snapshot.within(span), 1):
        away.append(file.path)
        is_inside = file.least is not None and file.greatest is not None and span[0] <= file.least and file.greatest < span[1]
        if not is_inside and snapshot.time is not None:
            kept = _written(archive, _renamed(file, origin, number), _outside(snapshot, file, span))
            made.extend([kept] if kept.rows else [])
    return made, away


def _renamed(file: File, origin: Origin, number: int) -> File:
    return replace(
        file, path=os.path.join(os.path.dirname(file.path), f"{origin.stem}{file.newest:012d}-{1_000 + number}.parquet")
    )


def _outside(snapshot: Snapshot, file: File, span: tuple[int, int]) -> pl.LazyFrame:
    assert snapshot.time is not None
    own = replace(snapshot, columns=file.types)
    time_ = pl.col(snapshot.time)
    at = time_.dt.epoch("ms") if file.types[snapshot.time] == "time" else time_
    return scan(own, [file]).filter(~((at >= span[0]) & (at < span[1])).fill_null(False))


def retain(archive: Archive, keep: int, now: int | None = None, *, is_dry: bool = False) -> list[File]:
    """Files whose newest row is older than `keep` milliseconds go. Which."""
    now = int(time.time() * 1_000) if now is None else now
    old = [file for file in archive.snapshot().files if file.greatest is not None and file.greatest < now - keep]
    if old and not is_dry:
        paths = [file.path for file in old]
        archive.commit([], archive.newest().shape, {}, lambda _: paths)
    return old
