"""Archives: history for years, in Parquet that any program can read.

    $CLICKPIPE_HOME/archives/clicks/
        day=2026-03-01/clicks-9f86d081-000000000042-0.parquet     committed: by pipeline, lineage, checkpoint
        day=2026-03-01/.clicks-9f86d081-000000000043-0.parquet    durable, and not yet committed
        day=2026-03-01/.clicks-….parquet.removed                  of an older version, for those who still read it
        _versions/                                                which files count (versions.py)
        lock                                                      held while a version is made

Our readers take the files of one version; others take *.parquet, and see committed rows only too.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import polars as pl

from clickpipe.errors import PlanError, StateError, near
from clickpipe.faults import kill_point
from clickpipe.state.files import make_folder, remove, rename, sync_way
from clickpipe.state.home import home
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.state.trust import check_folder, check_no_links
from clickpipe.store.versions import FOLDER, Change, File, Shape, Transaction, Version, Versions, widened

GRACE = 600_000  # milliseconds that a removed file stays for those who may still read it
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_REMOVED = ".removed"


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

    def within(self, span: tuple[int | None, int | None]) -> list[File]:
        """Files that may have rows of this time, the second bound exclusive."""
        first, end = span
        return [
            file
            for file in self.files
            if file.least is None
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
        if not os.path.isdir(path) or os.path.islink(path):
            check_folder(path)
            make_folder(path, self._patience)
            sync_way(path)
        return path

    def show(self, files: Sequence[File]) -> None:
        """Staged files get the names under which they are seen. Repeating it is harmless. Raises StateError where one is gone."""
        for file in files:
            path = os.path.join(self.folder, file.path)
            if os.path.exists(staged := hidden_of(path)):
                rename(staged, path)
            elif not os.path.exists(path) and not os.path.exists(hidden_of(path, _REMOVED)):
                raise StateError(f"{path} was to be committed, and is gone", notes=_WAYS_OUT)
            kill_point("after-archive-rename")

    def commit(
        self,
        files: Sequence[File],
        shape: Shape,
        marker: Mapping[str, int],
        take_away: Callable[[Version], Sequence[str]] = lambda _: (),
    ) -> None:
        """These files belong to it from here on, and those that `take_away` names no longer, at once. Repeating it is harmless.

        `marker`: the lineage that they are of, and its epoch; where the archive is as far, nothing is done.
        """
        if marker and _is_known(self.newest(), marker):
            return
        self.show(files)
        kill_point("before-version")

        def made(now: Version) -> Transaction | None:
            if marker and _is_known(now, marker):
                return None
            away = [path for path in take_away(now) if path in now.files]
            forget = list(_gone(self.folder, now))
            return Transaction(widened(now.shape, shape), files, away, forget, marker)

        self.tidy(self._versions.commit(made))

    def tidy(self, now: Version) -> None:
        """What is removed is out of other readers' sight, and after some time gone."""
        for path, since in now.removed.items():
            seen = os.path.join(self.folder, path)
            with suppress(FileNotFoundError):
                if os.path.exists(seen):
                    rename(seen, hidden_of(seen, _REMOVED))
                if time.time() * 1_000 - since > GRACE:
                    remove(hidden_of(seen, _REMOVED))

    def rewind(self, lineage: str, epoch: int) -> None:
        """What came behind this checkpoint is taken away: it will be given again. Raises StateError where it was compacted."""
        self.check_rewind(lineage, epoch)

        def made(now: Version) -> Transaction | None:
            later = [path for path, file in now.files.items() if file.lineage == lineage and file.after >= epoch]
            return Transaction(now.shape, (), later, (), {lineage: epoch})

        self.tidy(self._versions.commit(made))

    def check_rewind(self, lineage: str, epoch: int) -> None:
        """Raises StateError where what came behind this checkpoint cannot be told from what came before."""
        for file in self.newest().files.values():
            if file.lineage == lineage and file.after < epoch <= file.newest:
                raise StateError(
                    f"archive {self.name}: {file.path} was compacted of rows before and behind checkpoint {epoch}",
                    notes=["--reset at ingest starts anew, and takes the place of all that this pipeline has archived"],
                )

    def clear(self, writer: str, lineage: str | None, keep: Sequence[str]) -> None:
        """Take away what a pipeline that died has staged. `lineage` None: of any; `keep`: paths that may be committed now."""
        kept = {hidden_of(os.path.join(self.folder, path)) for path in keep}
        whose = lineage[:8] if lineage else "[0-9a-f]{8}"
        staged = re.compile(rf"\.{re.escape(writer)}-{whose}-\d{{12}}-\d+\.parquet(\.\d+\.part)?")
        for inner in folders(self.folder):
            for name in os.listdir(inner):
                path = os.path.join(inner, name)
                if staged.fullmatch(name) and path not in kept:
                    remove(path)


def _is_known(now: Version, marker: Mapping[str, int]) -> bool:
    return all(now.markers.get(lineage, -1) >= epoch for lineage, epoch in marker.items())


def _gone(folder_: str, now: Version) -> Iterator[str]:
    """Removed files of which nothing is left."""
    for path in now.removed:
        seen = os.path.join(folder_, path)
        if not os.path.exists(seen) and not os.path.exists(hidden_of(seen, _REMOVED)):
            yield path


def hidden_of(path: str, suffix: str = "") -> str:
    """The name of a file that nobody looks for."""
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


def dtype(kind: str) -> Any:
    """The type of a column in Parquet."""
    plain = {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "time": pl.Datetime("ms", "UTC")}
    return plain.get(kind, pl.String)


def schema(types: Mapping[str, str]) -> dict[str, Any]:
    return {name: dtype(kind) for name, kind in types.items()}


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
    """What is known of the times in each file, as Polars' scans of lakes have it."""
    name = snapshot.time
    if name is None or any(file.least is None for file in files):
        return None
    kind, per = snapshot.columns[name], {"s": 1_000, "ms": 1, "auto": 1}.get(snapshot.unit)
    if kind == "time":
        per = 1
    if kind not in ("int", "time") or per is None or (per != 1 and kind == "int"):
        return None
    return pl.DataFrame(
        {
            "len": pl.Series([file.rows for file in files], dtype=pl.UInt32),
            f"{name}_nc": pl.Series([0] * len(files), dtype=pl.UInt32),
            f"{name}_min": pl.Series([file.least for file in files], dtype=pl.Int64).cast(dtype(kind)),
            f"{name}_max": pl.Series([file.greatest for file in files], dtype=pl.Int64).cast(dtype(kind)),
        }
    )
