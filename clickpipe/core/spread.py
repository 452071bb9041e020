"""A writer that is given one row for each window of a record, as readers expect who see no stretches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import HIDDEN, Columns, WindowInfo
from clickpipe.core.meter import Ledger
from clickpipe.core.operator import FOREVER, Staged, Writer
from clickpipe.core.render import taken_out
from clickpipe.core.windows import END, START, WINDOW, Windows
from clickpipe.errors import PlanError

_MOST_ROWS = 250_000  # at once
_ROW = HIDDEN + "row"


def check_windows(given: Columns) -> None:
    """Raises PlanError where it is not known yet in which windows a record stands."""
    kind = given.window.kind if given.window else ""
    if kind == "session":
        hint = "aggregate them, or mark the records with sessionize"
        raise PlanError("what a session is, is known when it has ended", hint=hint)
    if kind == "count":
        raise PlanError("what a count window is, is known when it is full", hint="aggregate the records")


def window_columns(given: Columns) -> tuple[str, ...]:
    """What a writer must see to spread records."""
    return WINDOW if given.window and given.window.kind in ("hop", "cumulate") else ()


def spread(writer: Writer, given: Columns) -> Writer:
    """The writer, in front of it what spreads records if several windows hold one."""
    return Spread(writer, given.window) if given.window and window_columns(given) else writer


class Spread(Writer):
    def __init__(self, writer: Writer, info: WindowInfo) -> None:
        self._writer, self._windows = writer, Windows(info)
        self._per_record = -(-info.size // info.slide)

    @property
    def bytes_out(self) -> int:  # type: ignore[override]  # it is counted elsewhere
        return self._writer.bytes_out

    def write(self, batch: Batch) -> None:
        batch = taken_out(batch, list(WINDOW))
        for rows in self._rows(batch.frame.select(WINDOW)):
            bounds = rows.select(pl.col(START).alias("window_start"), pl.col(END).alias("window_end"))
            some = batch.repeat(rows[_ROW])
            self._writer.write(replace(some, frame=some.frame.with_columns(bounds)))

    def _rows(self, stretches: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """A row per record and window: by record, then by time."""
        numbered = stretches.with_row_index(_ROW)
        for some in numbered.iter_slices(max(1, _MOST_ROWS // self._per_record)):
            windows = self._windows.spread(some.select(WINDOW).unique(), -FOREVER, FOREVER)
            yield some.join(windows, on=WINDOW).sort(_ROW, START, END)

    # Everything else is the writer's.

    def accept(self, batch: Batch) -> tuple[Batch, list[Dead]]:
        return self._writer.accept(batch)

    def advance(self, watermark: int | None) -> None:
        self._writer.advance(watermark)

    def close(self, accounts: list[Ledger]) -> None:
        self._writer.close(accounts)

    def prepare(self, epoch: int, *, ended: bool) -> Staged:
        return self._writer.prepare(epoch, ended=ended)

    def abandon(self) -> None:
        self._writer.abandon()
