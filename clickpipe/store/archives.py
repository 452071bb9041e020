"""Archives: history for years, in Parquet that any program can read.

    $CLICKPIPE_HOME/archives/clicks/
        day=2026-03-01/clicks-9f86d081-000000000042-0.parquet     committed: by pipeline, lineage, checkpoint
        day=2026-03-01/.clicks-9f86d081-…-0.parquet.staged        durable, and not yet committed
        day=2026-03-01/.clicks-….parquet.removed                  of an older version, for those who still read it
        .shell-9f86d081….run                                      held by a run without checkpoints (archiveruns.py)
        _versions/                                                which files count (versions.py)
        lock                                                      held while a version is made

Our readers take the files of one version; others take *.parquet, and see committed rows only too.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import polars as pl

from clickpipe.columns import table_dtype
from clickpipe.errors import PlanError, StateError, near
from clickpipe.faults import kill_point
from clickpipe.state.files import make_folder, outside, remove, rename_all, sync_way
from clickpipe.state.home import home
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.state.trust import check_folder, check_no_links
from clickpipe.store.versions import FOLDER, Change, File, Shape, Transaction, Version, Versions, widened

GRACE = 600_000  # milliseconds that a removed file stays for those who may still read it
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_STAGED, _REMOVED = ".staged", ".removed"


@dataclass(frozen=True)
class Snapshot:
    """An archive at one moment. `columns`: its types; `time`: the column with the times of its rows, `unit` its unit."""

    name: str
    folder: str
    version: int
    files: Sequence[File]
    columns: Mapping[str, str]
    time: str | None
    unit: str
    key: tuple[str, ...]
    is_revised: bool
    history: Sequence[Change]

    def path_of(self, file: File) -> str:
        """Where a file is now. Raises StateError where it is not, or has another length."""
        path = os.path.join(self.folder, file.path)
        for one in (path, hidden_of(path, _REMOVED)):
            with suppress(FileNotFoundError):
                size = os.stat(one).st_size
                if size != file.bytes:
                    raise StateError(f"{one} has {size:,} bytes, and {file.bytes:,} were written", notes=_WAYS_OUT)
                return one
        raise StateError(f"{path} is gone", notes=_WAYS_OUT)

    def has_times(self, file: File) -> bool:
        """Whether all rows of a file have one, in the archive's own column."""
        return file.time == self.time and file.least is not None and file.greatest is not None

    def within(self, span: tuple[int | None, int | None]) -> list[File]:
        """Files that may have rows of this time, the second bound exclusive."""
        first, end = span
        return [
            file
            for file in self.files
            if not self.has_times(file)
            or file.least is None
            or file.greatest is None
            or ((first is None or file.greatest >= first) and (end is None or file.least < end))
        ]


_WAYS_OUT = ("either put it back from a copy,", "or fill that time anew: clickpipe backfill")


class Archive:
    """One archive. Raises PlanError for a name that could lead elsewhere; unless `is_new`, for one that is not there."""

    def __init__(self, name: str, patience: Patience = NO_PATIENCE, *, is_new: bool = False) -> None:
        if not _NAME.fullmatch(name):
            raise PlanError(f"an archive cannot be called {name!r}", hint="letters, digits, _ and -", word=name)
        self.name, self.folder, self._patience = name, os.path.join(folder(), name), patience
        if not is_new and not os.path.isdir(os.path.join(self.folder, FOLDER)):
            known = names()
            notes = [f"there are: {', '.join(known) or 'none'}"]
            raise PlanError(f'no archive "{name}"', hint=near(name, known), notes=notes, word=name)
        self._versions = Versions(self.folder, patience)
        self._safe: set[str] = set()  # folders that survive

    def version(self) -> int:
        return self._versions.number()

    def newest(self) -> Version:
        """Raises StateError where it is damaged."""
        return self._versions.newest()

    def snapshot(self) -> Snapshot:
        """Raises StateError where it is damaged."""
        now = self.newest()
        files = sorted(now.files.values(), key=lambda file: (file.least is not None, file.least or 0, file.path))
        column = now.shape.time or {}
        return Snapshot(
            self.name,
            self.folder,
            now.number,
            files,
            now.shape.types,
            column.get("column"),
            column.get("unit", "ms"),
            tuple(now.shape.key),
            now.shape.revised,
            now.history,
        )

    def make(self) -> None:
        """Its folder is there, ours, and survives. Raises PlanError, DiskError."""
        check_folder(self.folder)
        make_folder(os.path.join(self.folder, FOLDER), self._patience)
        check_no_links(self.folder)
        sync_way(os.path.join(self.folder, FOLDER))

    def place(self, inner: str) -> str:
        """The path of a folder for files; it is there, and survives. `inner`: its way below the archive's, "" for that itself."""
        path = os.path.join(self.folder, inner) if inner else self.folder
        if inner not in self._safe:  # that it is there says nothing: whoever made it may have died at once
            check_folder(path)
            make_folder(path, self._patience)
            sync_way(path)
            self._safe.add(inner)
        return path

    def locked(self) -> AbstractContextManager[None]:
        """Nobody else makes a version meanwhile."""
        return self._versions.locked()

    def show(self, files: Sequence[File]) -> None:
        """Staged files get the names under which they are seen. Repeating it is harmless. Raises StateError where one is gone."""
        staged = {}
        for path in (os.path.join(self.folder, file.path) for file in files):
            if os.path.exists(hidden_of(path)):
                staged[hidden_of(path)] = path
                remove(hidden_of(path, _REMOVED))  # of a file that was called so before, in a life that was taken back
            elif not os.path.exists(path) and not os.path.exists(hidden_of(path, _REMOVED)):
                raise StateError(f"{path} was to be committed, and is gone", notes=_WAYS_OUT)
        rename_all(staged)
        kill_point("after-archive-shown")

    def commit(
        self,
        files: Sequence[File],
        shape: Shape,
        marker: Mapping[str, int],
        take_away: Callable[[Version], Sequence[str]] = lambda _: (),
    ) -> None:
        """These files belong to it from here on, and those that `take_away` names no longer, at once. Repeating it is harmless.

        `marker`: the lineage that they are of, and its epoch; where the archive is as far, nothing is done. What `take_away`
        raises goes through, and nothing was committed.
        """

        def made(now: Version) -> Transaction | None:
            if marker and _is_known(now, marker):
                return None
            away = [path for path in take_away(now) if path in now.files]
            self.show(files)
            return Transaction(widened(now.shape, shape), files, away, list(self._forgotten(now)), marker)

        self._versions.commit(made, self._tidy)

    def announce(self, shape: Shape) -> None:
        """The archive has these columns, before rows come that have them: nobody else gives them another type meanwhile.

        Raises StateError where one is of another type.
        """

        def made(now: Version) -> Transaction | None:
            then = widened(now.shape, shape)
            return None if then == now.shape else Transaction(then)

        self._versions.commit(made, self._tidy_all)

    def _tidy(self, now: Version) -> None:
        """What has just been removed is out of other readers' sight; what was removed some time ago is gone."""
        self._hide(path for path, since in now.removed.items() if since == now.at)
        for path, since in now.removed.items():
            if _is_over(since):
                remove(hidden_of(os.path.join(self.folder, path), _REMOVED))

    def _tidy_all(self, now: Version) -> None:
        """The same, and what a process has left undone that died."""
        self._hide(now.removed)
        self._tidy(now)

    def tidy(self) -> None:
        """The same, by whoever has the time."""
        self._versions.commit(lambda _: None, self._tidy_all)

    def _hide(self, paths: Iterable[str]) -> None:
        seen = (os.path.join(self.folder, path) for path in paths)
        rename_all({path: hidden_of(path, _REMOVED) for path in seen if os.path.exists(path)})
        kill_point("after-archive-hidden")

    def _forgotten(self, now: Version) -> Iterator[str]:
        """Removed files of which nothing is left."""
        for path in (path for path, since in now.removed.items() if _is_over(since)):
            seen = os.path.join(self.folder, path)
            if not os.path.exists(seen) and not os.path.exists(hidden_of(seen, _REMOVED)):
                yield path

    def rewind(self, lineage: str, epoch: int) -> None:
        """What came behind this checkpoint is taken away: it will be given again. Raises StateError where it was compacted."""
        self.check_rewind(lineage, epoch)

        def made(now: Version) -> Transaction | None:
            later = [path for path, file in now.files.items() if file.lineage == lineage and file.after >= epoch]
            return Transaction(now.shape, (), later, (), {lineage: epoch})

        self._versions.commit(made, self._tidy)

    def check_rewind(self, lineage: str, epoch: int) -> None:
        """Raises StateError where what came behind this checkpoint cannot be told from what came before."""
        for file in self.newest().files.values():
            if file.lineage == lineage and file.after < epoch <= file.newest:
                raise StateError(
                    f"archive {self.name}: {file.path} was compacted of rows before and behind checkpoint {epoch}",
                    notes=["--reset at ingest starts anew, and takes the place of all that this pipeline has archived"],
                )

    def clear(self, staged: re.Pattern[str], keep: Collection[str]) -> None:
        """Take away staged files that are called so, and that nobody will commit any more. `keep`: paths that may be yet."""
        kept = {hidden_of(os.path.join(self.folder, path)) for path in keep}
        for inner in folders(self.folder):
            for name in os.listdir(inner):
                path = os.path.join(inner, name)
                if name.startswith(".") and staged.fullmatch(name[1:]) and path not in kept:
                    remove(path)


def _is_known(now: Version, marker: Mapping[str, int]) -> bool:
    return all(now.markers.get(lineage, -1) >= epoch for lineage, epoch in marker.items())


def _is_over(since: int) -> bool:
    """Whether nobody can be reading any more what was removed then."""
    return time.time() * 1_000 - since > GRACE


def hidden_of(path: str, suffix: str = _STAGED) -> str:
    """The name of a file that nobody looks for: DuckDB's *.parquet would find one that only begins with a point."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}{suffix}")


def folders(path: str) -> Iterator[str]:
    """The archive's folder, and those below it that have files. Links are not followed."""
    for inner, below, _ in os.walk(path):
        below[:] = [name for name in below if name != FOLDER]
        yield inner


def folder() -> str:
    return os.path.join(home(), "archives")


def names() -> list[str]:
    """All archives there are."""
    try:
        found = os.listdir(folder())
    except FileNotFoundError:
        return []
    return sorted(name for name in found if _NAME.fullmatch(name) and os.path.isdir(os.path.join(folder(), name, FOLDER)))


# What is in it.


@contextmanager
def spoken(name: str, path: str = "") -> Iterator[None]:
    """What Polars says of the disk or of a file, as ours. `path`: that it writes. Raises DiskError, StateError."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        said = str(error).splitlines()[0]
        if path and (code := re.search(r"\(os error (\d+)\)", said)):
            raise outside(OSError(int(code[1]), os.strerror(int(code[1]))), path) from None
        raise StateError(
            f"archive {name}: {said}", notes=[f"clickpipe archive check {name} says which file is damaged"]
        ) from None


def schema(types: Mapping[str, str]) -> dict[str, Any]:
    return {name: table_dtype(kind) for name, kind in types.items()}


def scan(snapshot: Snapshot, files: Sequence[File] | None = None) -> pl.LazyFrame:
    """Its rows; of files whose times do not meet the conditions nothing is read. `files`: these of them only.

    Raises StateError where one is gone or cut.
    """
    chosen = snapshot.files if files is None else files
    types = schema(snapshot.columns)
    if not chosen:
        return pl.LazyFrame(schema=types)
    return pl.scan_parquet(
        [snapshot.path_of(file) for file in chosen],
        schema=types,
        glob=False,
        hive_partitioning=False,
        missing_columns="insert",
        extra_columns="ignore",
        cast_options=pl.ScanCastOptions(integer_cast=["upcast", "allow-float"]),
        _table_statistics=_statistics(snapshot, chosen),
    )


def _statistics(snapshot: Snapshot, files: Sequence[File]) -> pl.DataFrame | None:
    """What is known of the times in each file, as Polars' scans of lakes have it; null: nothing."""
    name = snapshot.time
    if name is None or snapshot.columns.get(name) not in ("int", "time"):
        return None
    bounds = [bounds_of(file) if file.time == name else (None, None) for file in files]
    kind = table_dtype(snapshot.columns[name])
    return pl.DataFrame(
        {
            "len": pl.Series([file.rows for file in files], dtype=pl.UInt32),
            f"{name}_nc": pl.Series([None if least is None else 0 for least, _ in bounds], dtype=pl.UInt32),
            f"{name}_min": pl.Series([least for least, _ in bounds], dtype=pl.Int64).cast(kind),
            f"{name}_max": pl.Series([greatest for _, greatest in bounds], dtype=pl.Int64).cast(kind),
        }
    )


def bounds_of(file: File) -> tuple[int | None, int | None]:
    """Least and greatest, as the column has them."""
    return (file.numbers[0], file.numbers[1]) if file.numbers else (file.least, file.greatest)
