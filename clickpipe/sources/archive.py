"""An archive: its rows as they stand there, the oldest files first; of rows that were corrected the latest.

A record that was late when it came is late again, by the watermark of that moment, and no other is. The watermark waits for the
oldest row that is still to come. Guarantee: replayable; it is read as of the moment when reading began.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import HIDDEN, Columns, TimeColumn
from clickpipe.core.operator import Feed, Pull
from clickpipe.core.source import Directly, Source, Split
from clickpipe.core.time import instants, to_milliseconds
from clickpipe.core.timed import MARK
from clickpipe.errors import PlanError, Unsupported
from clickpipe.store.archives import Archive, Snapshot, scan, spoken
from clickpipe.store.latest import DELETED, latest

_ROWS = 1 << 18  # of a batch


class ArchiveSource(Source):
    def splits(self) -> list[Split]:
        raise PlanError(f"archive:{self.address} must be the only source", word=self.address)

    def feed(self, asked: Directly) -> Feed:
        return ArchiveFeed(Archive(self.address).snapshot(), asked)


class ArchiveFeed(Feed):
    """Raises PlanError where `asked.time` is no column with times; without it, it is the column that the archive goes by."""

    has_text = False

    def __init__(self, snapshot: Snapshot, asked: Directly) -> None:
        self._snapshot, self._within, self.pipeline = snapshot, asked.within, asked.pipeline
        self.floats, self.inherited = set(), []
        self._files = snapshot.within(asked.within) if asked.within else list(snapshot.files)
        self._read_rows = 0
        self._is_latest = snapshot.is_revised and bool(snapshot.key)
        types = {name: kind for name, kind in snapshot.columns.items() if name != MARK}
        if self._is_latest:
            types.pop(DELETED, None)
        self.columns = Columns(types, frozenset(types), self._time_in(types, asked.time))
        if asked.is_exact and (self.columns.time is None or not self._is_by_its_time()):
            why = f"archive:{snapshot.name} does not go by {asked.time or 'a time'}"
            raise Unsupported("notimpl", "--until TIME", why, hint="| filter", word="--until")
        self._wants: list[str] = list(types)

    def _time_in(self, types: dict[str, str], asked: str | None) -> TimeColumn | None:
        name = asked or self._snapshot.time
        if name is None:
            return None
        if name not in types:
            raise Columns(types, frozenset(types)).unknown(name, " for --time", "the archive has")
        if types[name] not in ("int", "time"):
            raise PlanError(f"--time {name}: it is {types[name]} in the archive, and times are int or time there", word=name)
        is_its_own = name == self._snapshot.time and types[name] == "int"
        return TimeColumn(name, self._snapshot.unit if is_its_own else "ms" if types[name] == "time" else "auto")

    def want(self, names: list[str] | None, text: bool) -> None:
        if names is not None and not text and self._is_by_its_time():  # else whole records may be dead letters
            time = self.columns.time.name if self.columns.time else None
            self._wants = [name for name in self.columns.types if name in names or name == time]

    def parsed(self) -> list[str]:
        return list(self._wants)

    def _is_by_its_time(self) -> bool:
        """Whether it is known of each record that it has a time."""
        return self.columns.time is None or self.columns.time.name == self._snapshot.time

    def extent(self) -> tuple[int, int] | None:
        whole = sum(file.rows for file in self._files)
        return min(self._read_rows, whole), whole  # some rows may be of another time, or were corrected since

    def pulls(self) -> Iterator[Pull]:
        for rows, watermark in self._tables():
            for some in self._read(rows):
                self._read_rows += some.height
                batch, dead = self._timed(self._batch(some))
                yield Pull([batch], None, dead, some.height)
            if watermark is not None:
                yield Pull(watermark=watermark)

    def _read(self, rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
        batches = rows.collect_batches(chunk_size=_ROWS, maintain_order=True)
        while True:
            with spoken(self._snapshot.name):
                some = next(batches, None)
            if some is None:
                return
            yield some

    def _tables(self) -> Iterator[tuple[pl.LazyFrame, int | None]]:
        """Rows, and the watermark behind them."""
        if self._is_latest:
            rows = latest(scan(self._snapshot, self._files), self._snapshot.key, self._snapshot.columns)
            yield self._chosen(rows), None
            return
        for file, oldest in zip(self._files, self._oldest_to_come(), strict=True):
            yield self._chosen(scan(self._snapshot, [file])), oldest

    def _oldest_to_come(self) -> list[int | None]:
        """Of each file the oldest time in the files behind it, where all of them say it."""
        oldest: list[int | None] = []
        least: int | None = None
        is_known = self.columns.time is not None and self._is_by_its_time()
        for file in reversed(self._files):
            oldest.append(least)
            is_known &= file.least is not None and file.time == self._snapshot.time
            least = min(one for one in (file.least, least) if one is not None) if is_known else None
        return oldest[::-1]

    def _chosen(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """The columns that are wanted, of the rows of that time."""
        marks = [MARK] if MARK in self._snapshot.columns and not self._is_latest else []
        if self._within and self._snapshot.time:
            first, end = self._within
            column, kind = pl.col(self._snapshot.time), self._snapshot.columns[self._snapshot.time]
            at = column.dt.epoch("ms") if kind == "time" else to_milliseconds(column, kind, self._snapshot.unit)
            rows = rows.filter(*([at >= first] if first is not None else []), *([at < end] if end is not None else []))
        return (
            rows.select(*self._wants, *marks)
            if self._wants or marks
            else rows.select(pl.repeat(1, pl.len()).alias(HIDDEN + "one"))
        )

    def _timed(self, batch: Batch) -> tuple[Batch, list[Dead]]:
        """The records that have a time, and the others."""
        time = self.columns.time
        if time is None or self._is_by_its_time():
            return batch, []
        has_none = instants(batch.frame[time.name], self.columns.types[time.name], time.unit).is_null()
        if not has_none.any():
            return batch, []
        dead = batch.keep(has_none)
        return batch.keep(~has_none), [dead.as_dead(pl.Series([f'no "{time.name}"'] * dead.height, dtype=pl.String))]

    def _batch(self, rows: pl.DataFrame) -> Batch:
        times = [name for name in rows.columns if self._snapshot.columns.get(name) == "time"]
        rows = rows.with_columns(pl.col(name).dt.epoch("ms") for name in times)
        if MARK in rows.columns and not rows[MARK].count():
            rows = rows.drop(MARK)
        return Batch(rows, self.columns, source=f"archive:{self._snapshot.name}")
