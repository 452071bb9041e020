"""Files of an archive made anew: many small ones as one, or one without some of its rows.

    day=2026-03-01/   clicks-…-000000000041-1.parquet  20 KiB  ┐
                      clicks-…-000000000042-1.parquet  19 KiB  ├->  compacted-9f86d081-000000000112-1.parquet
                      …                                        ┘    in one version: nobody sees both, or none

What is made anew has the rows of one writer and lineage, in the order of time as far as files are. Memory: some row groups.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b

import polars as pl

from clickpipe.columns import table_dtype
from clickpipe.errors import Caution, StateError
from clickpipe.faults import kill_point
from clickpipe.state.files import rename, sync_file
from clickpipe.store.archivefiles import GROUP, Origin
from clickpipe.store.archiveruns import Run
from clickpipe.store.archives import Archive, Snapshot, bounds_of, hidden_of, scan, spoken
from clickpipe.store.versions import File, Shape, Version

_CHUNK = 1 << 20
_ENOUGH = 0.5  # of the target: a file of that size stays as it is
_TRIES = 10  # of a change that others keep from being made


class ChangedError(Exception):
    """Files that were to go had gone already."""


def compact(
    archive: Archive,
    target: int,
    say: Callable[[str], None] = lambda _: None,
    tell: Callable[[int, int], None] = lambda _, __: None,
) -> tuple[int, int]:
    """How many files there were, and how many there are now. `target`: bytes of a file; `tell`: how many bytes were made anew,
    of how many. Raises StateError, DiskError."""
    run = Run(archive, "compacted")
    try:
        archive.tidy()
        snapshot = archive.snapshot()
        groups = list(_groups(snapshot, target))
        sizes = [sum(file.bytes for file in group) for group in groups]
        for number, group in enumerate(groups, 1):
            tell(sum(sizes[: number - 1]), sum(sizes))
            made = _merged(archive, snapshot, group, run.origin, number)
            kill_point("after-compacted")
            try:
                archive.commit([made], Shape(), {}, _all_of({file.path for file in group}))
            except ChangedError:
                say(Caution(f"{os.path.dirname(made.path) or archive.name}: changed meanwhile, and left as it is"))
    finally:
        run.abandon()
    return len(snapshot.files), len(archive.snapshot().files)


def _all_of(paths: set[str]) -> Callable[[Version], Sequence[str]]:
    """What takes away these files, if all are still there."""

    def still(now: Version) -> Sequence[str]:
        if not paths <= set(now.files):
            raise ChangedError
        return sorted(paths)

    return still


def _groups(snapshot: Snapshot, target: int) -> Iterator[list[File]]:
    """Small files of one folder, writer and columns that are to become one."""
    alike: dict[tuple[object, ...], list[File]] = defaultdict(list)
    for file in snapshot.files:
        if file.bytes < target * _ENOUGH:
            alike[(os.path.dirname(file.path), file.writer, file.lineage, file.time, tuple(file.types.items()))].append(file)
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
    shape = {column: table_dtype(kind) for column, kind in first.types.items()}
    rows = pl.scan_parquet([snapshot.path_of(file) for file in group], schema=shape, glob=False, hive_partitioning=False)
    made = replace(
        first,
        path=os.path.join(os.path.dirname(first.path), name),
        least=_least(group),
        greatest=_greatest(group),
        numbers=_numbers(group),
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
    with spoken(archive.name, part):
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


def _numbers(files: Sequence[File]) -> tuple[int, int] | None:
    bounds = [bounds_of(file) for file in files]
    least, greatest = [one for one, _ in bounds if one is not None], [one for _, one in bounds if one is not None]
    return (min(least), max(greatest)) if files[0].numbers and len(least) == len(greatest) == len(files) else None


def hash_of(path: str) -> str:
    """Of a whole file, as the manifest has it."""
    made = blake2b(digest_size=16)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            made.update(chunk)
    return made.hexdigest()


def replace_rows(archive: Archive, files: Sequence[File], shape: Shape, span: tuple[int, int] | None, run: Run) -> None:
    """Staged files take the place of all rows whose time is in `span`, in one version; None: of all there are.

    Unit: milliseconds, the second bound exclusive. `shape`: of their rows. Raises StateError where others keep changing it.
    """
    for _ in range(_TRIES):
        kept, away = _without(archive, span, shape.time["column"] if shape.time else None, run.origin)
        whose = {archive.newest().files[path].writer for path in away if path in archive.newest().files}
        ours = [replace(file, writer=min(whose)) for file in files] if len(whose) == 1 else files
        try:
            return archive.commit([*ours, *kept], shape, {}, _all_of(set(away)))
        except ChangedError:
            archive.clear(run.origin.staged(), [file.path for file in files])
    raise StateError(f"archive {archive.name} is changed all the time: do it again when it is not compacted")


def _without(archive: Archive, span: tuple[int, int] | None, time: str | None, origin: Origin) -> tuple[list[File], list[str]]:
    """Files made anew that have no rows of that time, and the paths of those that then go."""
    snapshot = archive.snapshot()
    if span is None:
        return [], [file.path for file in snapshot.files]
    kept, away = [], []
    for number, file in enumerate((file for file in snapshot.within(span) if file.time == time is not None), 1):
        away.append(file.path)
        if not (file.least is not None and file.greatest is not None and span[0] <= file.least and file.greatest < span[1]):
            made = _written(archive, _renamed(file, origin, number), _outside(snapshot, file, span))
            kept.append(made)
    return [file for file in kept if file.rows], away


def _renamed(file: File, origin: Origin, number: int) -> File:
    """Of the rows that stay its bounds still hold, although there may be narrower ones."""
    name = f"{origin.stem}{file.newest:012d}-{100_000 + number}.parquet"
    return replace(file, path=os.path.join(os.path.dirname(file.path), name))


def _outside(snapshot: Snapshot, file: File, span: tuple[int, int]) -> pl.LazyFrame:
    assert file.time is not None
    at = pl.col(file.time)
    at = at.dt.epoch("ms") if file.types[file.time] == "time" else at
    inside = (at >= span[0]) & (at < span[1])
    return scan(replace(snapshot, columns=file.types), [file]).filter(~inside.fill_null(False))


def retain(archive: Archive, keep: int, now: int | None = None, *, is_dry: bool = False) -> list[File]:
    """Files whose newest row is older than `keep` milliseconds go. Which."""
    now = int(time.time() * 1_000) if now is None else now
    old = [file for file in archive.snapshot().files if file.greatest is not None and file.greatest < now - keep]
    if old and not is_dry:
        paths = [file.path for file in old]
        archive.commit([], Shape(), {}, lambda _: paths)
    return old
