"""Rows -> the staged files of an archive: Parquet, durable under a name that nobody looks for.

Memory: the rows that have come since the last file. Parquet is made in a thread of its own, while more rows come.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import polars as pl

from clickpipe.columns import table_dtype
from clickpipe.state.files import StagedFile
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.store.archives import Archive, hidden_of
from clickpipe.store.partitioning import Partitioning
from clickpipe.store.versions import File

ROWS = 1 << 18  # of a file, about, and
BYTES = 64 << 20  # of its rows in memory, about
GROUP = 1 << 15  # rows that are read together: so much of a day is passed over, or not
_AHEAD = 1  # files that wait for the thread


@dataclass(frozen=True)
class Origin:
    """Whose rows they are. `stem`: how the names of the files begin, after which come the checkpoint and a number."""

    writer: str
    lineage: str
    stem: str

    @staticmethod
    def of_pipeline(name: str, lineage: str) -> Origin:
        return Origin(name, lineage, f"{_spelled(name)}-{lineage[:8]}-")

    def staged(self) -> re.Pattern[str]:
        """How its staged files are called, less the point."""
        return _staged(re.escape(self.stem))


def staged_by(pipeline: str) -> re.Pattern[str]:
    """How its staged files are called, less the point, of whatever lineage."""
    return _staged(rf"{re.escape(_spelled(pipeline))}-[0-9a-f]{{8}}-")


def _staged(stem: str) -> re.Pattern[str]:
    return re.compile(rf"{stem}\d{{12}}-\d+\.parquet\.staged(\.\d+\.part)?")


def _spelled(name: str) -> str:
    """Readers of hive folders leave out what begins with an underscore."""
    return f"%5F{name[1:]}" if name.startswith("_") else name


class Staging:
    """The files of one lineage. `types`: of the rows' columns in the archive; an integer may become a float as rows come.
    `time`: the column that holds when they were."""

    def __init__(
        self,
        archive: Archive,
        origin: Origin,
        partitioning: Partitioning,
        types: Mapping[str, str],
        time: str | None,
        patience: Patience = NO_PATIENCE,
    ) -> None:
        self._archive, self._origin, self._partitioning, self._patience = archive, origin, partitioning, patience
        self._types, self._time = types, time
        self._rows: list[tuple[pl.DataFrame, pl.Series | None]] = []
        self._height = self._bytes = self._number = 0
        self._epoch = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="archive")
        self._making: list[Future[list[File]]] = []

    def begin(self, epoch: int) -> None:
        """The files to come are named by this checkpoint, behind which their rows have come."""
        self._epoch, self._number = epoch, 0

    def add(self, rows: pl.DataFrame, times: pl.Series | None) -> None:
        """`times`: of each row, in epoch milliseconds; None: they have none. Raises DiskError, DataError."""
        self._rows.append((rows, times))
        self._height += rows.height
        self._bytes += int(rows.estimated_size())
        if self._height >= ROWS or self._bytes >= BYTES:
            self._flush()

    def taken(self) -> list[File]:
        """All that has come is durable: in which files. Raises DiskError, DataError."""
        self._flush()
        making, self._making = self._making, []
        return [file for one in making for file in one.result()]

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _flush(self) -> None:
        if not self._height:
            return
        frames, times = [frame for frame, _ in self._rows], [one for _, one in self._rows]
        rows = pl.concat(frames, how="diagonal_relaxed") if len(frames) > 1 else frames[0]
        self._rows, self._height, self._bytes = [], 0, 0
        self._number += 1
        known = [one for one in times if one is not None]
        instants = pl.concat(known) if known and len(known) == len(times) else None
        place = f"{self._origin.stem}{self._epoch:012d}-{self._number}"
        if len(self._making) >= _AHEAD:
            self._making[-_AHEAD].result()  # a disk that is too slow is waited for
        self._making.append(self._pool.submit(self._made, rows, instants, place, self._epoch))

    def _made(self, rows: pl.DataFrame, times: pl.Series | None, name: str, epoch: int) -> list[File]:
        return [
            self._staged(os.path.join(inner, f"{name}.parquet") if inner else f"{name}.parquet", part, least, greatest, epoch)
            for inner, part, least, greatest in self._partitioning.parts(rows, times)
        ]

    def _staged(self, path: str, rows: pl.DataFrame, least: int | None, greatest: int | None, epoch: int) -> File:
        out = io.BytesIO()
        types = {name: self._types[name] for name in rows.columns}
        written = rows.cast({name: table_dtype(kind) for name, kind in types.items()})
        written.write_parquet(out, compression="zstd", row_group_size=GROUP, statistics=True)
        folder = self._archive.place(os.path.dirname(path))
        staged = hidden_of(os.path.join(folder, os.path.basename(path)))
        file = StagedFile(f"{staged}.{os.getpid()}.part", self._patience)
        file.write(out.getvalue())
        file.publish(staged, "archive")
        whose = (self._origin.writer, self._origin.lineage, types, epoch, epoch)
        time, numbers = (None, None) if least is None else (self._time, self._numbers(rows, least, greatest))
        return File(path, rows.height, file.bytes, file.hash, least, greatest, *whose, time, numbers)

    def _numbers(self, rows: pl.DataFrame, least: int, greatest: int | None) -> tuple[int, int] | None:
        """The bounds as the column has them, where these are others."""
        if self._time is None or self._types[self._time] != "int":
            return None
        bounds = rows[self._time].min(), rows[self._time].max()
        if not (isinstance(bounds[0], int) and isinstance(bounds[1], int)) or bounds == (least, greatest):
            return None
        return bounds[0], bounds[1]
