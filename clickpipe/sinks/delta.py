"""A table of Delta Lake in a folder; needs clickpipe[delta].

Guarantee: exactly once with checkpoints; without, one run's rows are added at its end, all or none. Memory: 262,144 rows.
"""

from __future__ import annotations

import io
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import orjson
import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns
from clickpipe.core.guarantee import EXACTLY_ONCE, WHOLE, Guarantee
from clickpipe.core.meter import Ledger
from clickpipe.core.operator import Staged, Writer
from clickpipe.core.render import as_table
from clickpipe.core.sink import Commits, Destination, check_belongs
from clickpipe.core.time import instant_text
from clickpipe.core.timed import MARK, with_marks
from clickpipe.errors import PlanError, StateError
from clickpipe.state.directory import StateDirectory
from clickpipe.state.files import StagedFile
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.store.deltas import Commit, DeltaFile, DeltaTableFolder

_ROWS, _BYTES = 1 << 18, 64 << 20  # of a file, about
_TEXT = ("int", "float", "bool", "json", "sketch")  # what may stand in a column of text


class DeltaSink(Destination):
    shows_all = True

    def needs(self, given: Columns) -> tuple[str, ...]:
        return tuple(given.types)

    def open(self, given: Columns) -> Writer:
        return DeltaWriter(self._table(), given, "shell", secrets.token_hex(8), NO_PATIENCE)

    def open_staged(self, given: Columns, restored: int, saved: Mapping[str, Any] | None, directory: StateDirectory) -> Writer:
        lineage = saved["lineage"] if saved else secrets.token_hex(8)
        table, app = self._table(), _app(directory.name, lineage)
        check_belongs(table.path, table.epoch(app), restored, saved, directory.name)
        patience = directory.patience(f"table {self.address}")
        return StagedDeltaWriter(table, given, directory.name, lineage, patience, saved)

    @classmethod
    def commits(cls, directory: StateDirectory) -> Commits:
        return DeltaCommits(directory)

    def place(self) -> str:
        return os.path.realpath(self.address)

    def guarantee(self, *, has_checkpoints: bool) -> Guarantee:
        if has_checkpoints:
            return Guarantee(EXACTLY_ONCE, "files and the checkpoint's number are one commit of the table")
        return Guarantee(WHOLE, "the table changes at the end, at once; the same run again adds its rows again")

    def _table(self) -> DeltaTableFolder:
        if self.form.format is not None:
            raise PlanError("a table of Delta Lake is Parquet: not with --format", word="--format")
        return DeltaTableFolder(self.address)


class DeltaWriter(Writer):
    """One run's rows, which are added at its end."""

    def __init__(self, table: DeltaTableFolder, given: Columns, pipeline: str, lineage: str, patience: Patience) -> None:
        self._table, self._given, self._patience = table, given, patience
        self._pipeline, self._lineage = pipeline, lineage
        has_marks = given.time is not None and not (given.key or given.results_of)
        self._types = table.prepare({**given.types, **({MARK: "int"} if has_marks else {})})
        self._has_marks = has_marks
        self._frames: list[pl.DataFrame] = []
        self._files: list[DeltaFile] = []
        self._after = 0

    def accept(self, batch: Batch) -> tuple[Batch, list[Dead]]:
        """What has values that the table's columns can hold as they are, and the rest."""
        dead: list[Dead] = []
        for name, kind in batch.columns.types.items():
            fits = _fits(batch.frame[name], kind, self._types[name])
            if fits is not None and not fits.all():
                bad = batch.keep(~fits)
                reason = f'column "{name}" is {self._types[name]} in the table, and {kind} here'
                dead.append(bad.as_dead(pl.Series([reason] * bad.height, dtype=pl.String)))
                batch = batch.keep(fits)
        return batch, dead

    def write(self, batch: Batch) -> None:
        rows = as_table(batch, spell_times=False)
        if self._has_marks:
            rows = with_marks(rows, batch)
        self._frames.append(rows.select(_as(name, self._types[name]) for name in rows.columns))
        if (
            sum(frame.height for frame in self._frames) >= _ROWS
            or sum(frame.estimated_size() for frame in self._frames) >= _BYTES
        ):
            self._flush()

    def _flush(self) -> None:
        frames, self._frames = [frame for frame in self._frames if frame.height], []
        if not frames:
            return
        rows = pl.concat(frames)
        name = f"{_stem(self._pipeline, self._lineage)}{self._after:012d}-{len(self._files) + 1}.parquet"
        path = os.path.join(self._table.path, name)
        file = StagedFile(f"{path}.{os.getpid()}.part", self._patience)
        out = io.BytesIO()  # what a file of ours raises while Polars writes would come as something else
        rows.write_parquet(out, compression="zstd", row_group_size=1 << 16, statistics=True)
        file.write(out.getvalue())
        file.publish(path, "delta")
        self._files.append(DeltaFile(name, file.bytes, _stats(rows)))

    def _taken(self) -> list[DeltaFile]:
        self._flush()
        files, self._files = self._files, []
        return files

    def close(self, accounts: list[Ledger]) -> None:
        if files := self._taken():
            self._table.commit(Commit(files, _app(self._pipeline, self._lineage), 1))

    def abandon(self) -> None:
        for file in self._files:
            os.unlink(os.path.join(self._table.path, file.path))


class StagedDeltaWriter(DeltaWriter):
    """The rows between two checkpoints, in files that the table's log does not name yet."""

    def __init__(
        self,
        table: DeltaTableFolder,
        given: Columns,
        pipeline: str,
        lineage: str,
        patience: Patience,
        saved: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(table, given, pipeline, lineage, patience)
        self._before = (saved["epoch"] if saved["files"] else saved["before"]) if saved else None
        self._after = saved["epoch"] if saved else 0

    def prepare(self, epoch: int, *, ended: bool) -> Staged:
        files = self._taken()
        said = {"delta": self._table.path, "pipeline": self._pipeline, "lineage": self._lineage, "epoch": epoch}
        said |= {"before": self._before, "files": [asdict(file) for file in files]}
        self._before, self._after = epoch if files else self._before, epoch
        return Staged(said, lambda: None)  # each file is durable since it was made

    def close(self, accounts: list[Ledger]) -> None:
        """The files are with the checkpoints."""

    def abandon(self) -> None:
        """What was staged for a manifest that is complete may still be committed; of the rest no log says anything."""


class DeltaCommits(Commits):
    def commit(self, said: Mapping[str, Any]) -> None:
        if said["files"]:
            files = [DeltaFile(**file) for file in said["files"]]
            replaces = _written_by(said["pipeline"]) if said["before"] is None else ""
            commit = Commit(files, _app(said["pipeline"], said["lineage"]), said["epoch"], replaces)
            DeltaTableFolder(said["delta"]).commit(commit)

    def check_rewind(self, said: Mapping[str, Any]) -> None:
        known = DeltaTableFolder(said["delta"]).epoch(_app(said["pipeline"], said["lineage"]))
        if known is not None and known > said["epoch"]:
            raise StateError(
                f"{said['delta']} holds rows up to checkpoint {known}, and a table of Delta Lake is not taken back",
                notes=["--reset at ingest begins anew, and takes the place of all that this pipeline has written"],
            )


def _app(pipeline: str, lineage: str) -> str:
    return f"clickpipe/{pipeline}/{lineage}"


def _stem(pipeline: str, lineage: str) -> str:
    return f"part-{pipeline}-{lineage[:8]}-"


def _written_by(pipeline: str) -> str:
    """How its files are called, of whatever lineage."""
    return rf"part-{re.escape(pipeline)}-[0-9a-f]{{8}}-\d{{12}}-\d+\.parquet"


def _fits(values: pl.Series, kind: str, wanted: str) -> pl.Series | None:
    """Which values the column can hold; None: all."""
    if kind == wanted or (kind, wanted) == ("int", "float") or (wanted == "str" and kind in _TEXT):
        return None
    if (kind, wanted) == ("float", "int"):
        whole = values.cast(pl.Int64, strict=False)
        return values.is_null() | (whole.cast(pl.Float64) == values).fill_null(False)
    return values.is_null()


def _as(name: str, kind: str) -> pl.Expr:
    dtypes = {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "str": pl.String}
    if kind == "time":
        return pl.col(name).cast(pl.Datetime("ms", "UTC"), strict=False).cast(pl.Datetime("us", "UTC"))
    return pl.col(name).cast(dtypes[kind], strict=False)


def _stats(rows: pl.DataFrame) -> str:
    """Of numbers and times, by which readers pass over files."""
    least, greatest = {}, {}
    for name, dtype in rows.schema.items():
        if dtype == pl.Int64 or dtype.base_type() == pl.Datetime:
            values = rows[name] if dtype == pl.Int64 else rows[name].dt.epoch("ms")
            if values.count():
                least[name], greatest[name] = _bounds(values, is_time=dtype != pl.Int64)
    nulls = {name: rows[name].null_count() for name in rows.columns}
    said = {"numRecords": rows.height, "minValues": least, "maxValues": greatest, "nullCount": nulls}
    return orjson.dumps(said).decode()


def _bounds(values: pl.Series, *, is_time: bool) -> Iterator[object]:
    for value in (values.min(), values.max()):
        yield instant_text(value) if is_time and isinstance(value, int) else value
