"""An archive: history in Parquet, a folder per day, that any program can read.

Guarantee: exactly once with checkpoints; without, one run's rows are added at its end, all or none. Memory: 262,144 rows.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns, table_dtype
from clickpipe.core.guarantee import EXACTLY_ONCE, WHOLE, Guarantee
from clickpipe.core.meter import Ledger
from clickpipe.core.operator import Staged, Writer
from clickpipe.core.render import as_table
from clickpipe.core.sink import Commits, Destination, check_belongs
from clickpipe.core.time import instants
from clickpipe.core.timed import MARK, with_marks
from clickpipe.errors import PlanError, StateError
from clickpipe.state.directory import StateDirectory
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.store.archivefiles import Origin, Staging, staged_by
from clickpipe.store.archiveruns import Run
from clickpipe.store.archives import Archive
from clickpipe.store.compaction import replace_rows
from clickpipe.store.partitioning import Partitioning
from clickpipe.store.versions import File, Shape, Version, common_kind, said_of

_TEXT = ("int", "float", "bool", "json")  # what may stand in a column of text, as its text


class ArchiveSink(Destination):
    takes: ClassVar[frozenset[str]] = frozenset({"key", "partition_by"})

    def needs(self, given: Columns) -> tuple[str, ...]:
        return tuple(given.types)

    def open(self, given: Columns) -> Writer:
        return WholeArchiveWriter(self._archive(NO_PATIENCE), "shell", _Rows(self, given))

    def open_replacing(self, given: Columns, span: tuple[int, int] | None) -> Writer:
        return ReplacingArchiveWriter(self._archive(NO_PATIENCE), _Rows(self, given), span)

    def open_staged(self, given: Columns, restored: int, saved: Mapping[str, Any] | None, directory: StateDirectory) -> Writer:
        patience = directory.patience(f"archive {self.address}")
        archive = self._archive(patience)
        lineage = saved["lineage"] if saved else secrets.token_hex(8)
        known = archive.newest().markers.get(lineage)
        check_belongs(f"archive {self.address}", known, restored, saved, directory.name)
        # What the restored checkpoint has staged may be committed again at this moment.
        archive.clear(staged_by(directory.name), [file["path"] for file in saved["files"]] if saved else [])
        origin = Origin.of_pipeline(directory.name, lineage)
        return StagedArchiveWriter(archive, origin, _Rows(self, given), patience, saved)

    @classmethod
    def commits(cls, directory: StateDirectory) -> Commits:
        return ArchiveCommits(directory)

    def place(self) -> str:
        return self.address

    def guarantee(self, *, has_checkpoints: bool) -> Guarantee:
        if has_checkpoints:
            return Guarantee(EXACTLY_ONCE, "files and the checkpoint's number become a version of the archive at once")
        return Guarantee(WHOLE, "the archive changes at the end, at once; the same run again adds its rows again")

    def _archive(self, patience: Patience) -> Archive:
        if self.form.format is not None:
            raise PlanError("an archive is Parquet: not with --format", word="--format")
        archive = Archive(self.address, patience, is_new=True)
        archive.make()
        return archive


class _Rows:
    """Batches -> rows of an archive: which types they have there, and when they were."""

    def __init__(self, sink: ArchiveSink, given: Columns) -> None:
        self._given = given
        is_result = bool(given.key or given.results_of)
        self.time = "window_start" if is_result and given.types.get("window_start") == "time" else None
        if not is_result and given.time is not None:
            self.time = given.time.name
        self._has_marks = not is_result and given.time is not None
        archive = Archive(sink.address, is_new=True)
        self._before = archive.newest().shape.types
        self.partitioning = Partitioning(tuple(sink.form.partition_by) or ("day",))
        self.partitioning.check(given.types)
        self.types = {name: self._kind(name, kind) for name, kind in given.types.items()} | (
            {MARK: "int"} if self._has_marks else {}
        )
        self._unit = given.time.unit if self.time and not is_result and given.time else "ms"
        self._key = sink.form.key or given.key
        archive.announce(self.shape())

    def shape(self) -> Shape:
        """Of the archive, as far as it is of these rows."""
        time = {"column": self.time, "unit": self._unit} if self.time else None
        return Shape(dict(self.types), time, self._key, self._given.is_revised)

    def _kind(self, name: str, kind: str) -> str:
        """The type of a column in the archive from now on. Where it has another one, values that do not fit are refused."""
        before = self._before.get(name, kind)
        return common_kind(before, kind) or before

    def accept(self, batch: Batch) -> tuple[Batch, list[Dead]]:
        """What of it has values that fit, and the rest with the reason."""
        wrong = [name for name, kind in self.types.items() if name in self._given.types and self._misfits(name, kind)]
        dead: list[Dead] = []
        for name in wrong:
            values = batch.frame[name]
            fits = values.is_null()
            if not fits.all():
                bad = batch.keep(~fits)
                reason = f'column "{name}" is {self.types[name]} in the archive, and {self._given.types[name]} here'
                dead.append(bad.as_dead(pl.Series([reason] * bad.height, dtype=pl.String)))
                batch = batch.keep(fits)
        return batch, dead

    def _misfits(self, name: str, kind: str) -> bool:
        given = self._given.types[name]
        return given != kind and (given, kind) != ("int", "float") and not (kind == "str" and given in _TEXT)

    def table(self, batch: Batch) -> tuple[pl.DataFrame, pl.Series | None]:
        """The rows with the archive's types, and their times."""
        rows = as_table(batch, spell_times=False)
        for name, kind in batch.columns.types.items():
            if (kind, self.types[name]) == ("float", "int"):  # the first float of a column of integers has come
                self.types[name] = "float"
        if self._has_marks:
            rows = with_marks(rows, batch)
        times = self._times(batch)
        kinds = {name: table_dtype(kind) for name, kind in self.types.items()}
        return rows.cast({name: kinds[name] for name in rows.columns}, strict=False), times

    def _times(self, batch: Batch) -> pl.Series | None:
        if self.time is None:
            return None
        return instants(batch.frame[self.time], batch.columns.types[self.time], self._unit)


class ArchiveWriter(Writer):
    def __init__(self, archive: Archive, origin: Origin, rows: _Rows, patience: Patience) -> None:
        self._archive, self._origin, self._rows = archive, origin, rows
        self._staging = Staging(archive, origin, rows.partitioning, rows.types, rows.time, patience)

    def accept(self, batch: Batch) -> tuple[Batch, list[Dead]]:
        return self._rows.accept(batch)

    def write(self, batch: Batch) -> None:
        self._staging.add(*self._rows.table(batch))


class WholeArchiveWriter(ArchiveWriter):
    """One run's rows, which are added at its end."""

    def __init__(self, archive: Archive, kind: str, rows: _Rows) -> None:
        self._run = Run(archive, kind)
        super().__init__(archive, self._run.origin, rows, NO_PATIENCE)

    def close(self, accounts: list[Ledger]) -> None:
        files = self._staging.taken()
        self._staging.close()
        self._commit(files)
        self._run.end()

    def _commit(self, files: list[File]) -> None:
        if files:
            self._archive.commit(files, self._rows.shape(), {})

    def abandon(self) -> None:
        self._staging.close()
        self._run.abandon()


class ReplacingArchiveWriter(WholeArchiveWriter):
    """The rows of some windows, in place of those that the archive has of them."""

    def __init__(self, archive: Archive, rows: _Rows, span: tuple[int, int] | None) -> None:
        super().__init__(archive, "backfill", rows)
        self._span = span

    def _commit(self, files: list[File]) -> None:
        replace_rows(self._archive, files, self._rows.shape(), self._span, self._run)


class StagedArchiveWriter(ArchiveWriter):
    """The rows between two checkpoints, in files of their own."""

    def __init__(
        self, archive: Archive, origin: Origin, rows: _Rows, patience: Patience, saved: Mapping[str, Any] | None
    ) -> None:
        super().__init__(archive, origin, rows, patience)
        self._before = (saved["epoch"] if saved["files"] else saved["before"]) if saved else None
        self._last = saved["epoch"] if saved else 0
        self._staging.begin(self._last)

    def prepare(self, epoch: int, *, ended: bool) -> Staged:
        files = self._staging.taken()
        self._staging.begin(epoch)
        said = {"archive": self._archive.name, "writer": self._origin.writer, "lineage": self._origin.lineage, "epoch": epoch}
        said |= {"before": self._before, "files": [asdict(file) for file in files], "shape": said_of(self._rows.shape())}
        self._before = epoch if files else self._before
        return Staged(said, lambda: None)  # each file is durable since it was made

    def close(self, accounts: list[Ledger]) -> None:
        self._staging.close()

    def abandon(self) -> None:
        self._staging.close()  # what was staged for a manifest that is complete may still be committed


class ArchiveCommits(Commits):
    _archive: Archive | None = None

    def commit(self, said: Mapping[str, Any]) -> None:
        if not said["files"]:
            return
        patience = self._directory.patience(f"archive {said['archive']}")
        self._archive = self._archive or Archive(said["archive"], patience, is_new=True)
        files = [File(**file) for file in said["files"]]
        marker = {said["lineage"]: said["epoch"]}
        self._archive.commit(files, Shape(**said["shape"]), marker, lambda now: _earlier(now, said))

    def check_rewind(self, said: Mapping[str, Any]) -> None:
        archive = Archive(said["archive"], is_new=True)
        if said["before"] is not None and said["lineage"] not in archive.newest().markers:
            raise StateError(f"archive {said['archive']} is not the one that checkpoint {said['epoch']} wrote to")
        archive.check_rewind(said["lineage"], said["epoch"])

    def rewind(self, said: Mapping[str, Any]) -> str:
        Archive(said["archive"], is_new=True).rewind(said["lineage"], said["epoch"])
        return f"archive {said['archive']} has lost what came later: it will be given again"


def _earlier(now: Version, said: Mapping[str, Any]) -> list[str]:
    """What the same pipeline had written before it began anew."""
    if said["before"] is not None:
        return []
    return [path for path, file in now.files.items() if file.writer == said["writer"] and file.lineage != said["lineage"]]
