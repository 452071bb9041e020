"""When a step's records were: by the stream's event time, or by a field that --time names.

A record that is late carries its mark, the watermark of its split just before it. One without a mark that is behind the
stream's watermark is rarer: an old file that appeared late, or a tool that moved records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns, TimeColumn
from clickpipe.core.operator import Late, Operator
from clickpipe.core.step import Tables
from clickpipe.core.time import instants
from clickpipe.errors import PlanError

MARK = "_mark"  # the watermark when a late record came: whoever computes again must judge it by that


def time_column(given: Columns, named: str | None) -> TimeColumn:
    """For a step that changes no records: not by the windows of others. Raises PlanError as `event_time` does."""
    if given.window is not None and given.window.kind != "tumble":
        raise PlanError(f"the records stand in {given.window.kind} windows already: put it before the window")
    column = event_time(given, named)
    if named is None and column.name == "window_start":  # by which every row comes behind the watermark
        raise PlanError("rows of an aggregate come when their window has ended", hint="go by that: --time window_end")
    return column


def event_time(given: Columns, named: str | None) -> TimeColumn:
    """The field that holds it. Raises PlanError where there is none, or it can be no time."""
    if named is None and given.time is None:
        raise PlanError(
            "no event time: the stream does not say which field it is",
            hint="name it: --time ts, here or at ingest",
            notes=["a tool such as jq may have taken out the lines that begin with a TAB, which say it"],
        )
    column = TimeColumn(named, "auto") if named is not None or given.time is None else given.time  # type: ignore[arg-type]  # one is there
    given.need([column.name], " for --time")
    if given.types[column.name] not in ("int", "float", "str", "time"):
        raise PlanError(f'column "{column.name}" is {given.types[column.name]}, which is no time', word=column.name)
    return column


def timed(batch: Batch, column: TimeColumn) -> tuple[Batch, pl.Series, Dead | None]:
    """The records whose field is an instant, when they were (epoch milliseconds), and the others."""
    times = instants(batch.frame[column.name], batch.columns.types[column.name], column.unit)
    if not times.null_count():
        return batch, times, None
    bad = batch.keep(times.is_null())
    dead = bad.as_dead(pl.Series([_reason(column.name, value) for value in bad.frame[column.name]], dtype=pl.String))
    return batch.keep(times.is_not_null()), times.drop_nulls(), dead


def _reason(name: str, value: object) -> str:
    return f'no "{name}"' if value is None else f'"{name}" is no instant: {value!r}'[:200]


def split_late(batch: Batch, times: pl.Series, watermark: int | None, by: int) -> Iterator[Late | tuple[Batch, pl.Series]]:
    """Records that are late by at least `by`, and then the others with their times. Unit: milliseconds."""
    if MARK in batch.frame.columns:
        late = (batch.frame[MARK] - times >= by).fill_null(False)
        if late.any():
            yield Late(batch.keep(late))
            batch, times = batch.keep(~late), times.filter(~late)
    if watermark is not None and len(times) and watermark - times.min() >= by:  # type: ignore[operator]  # an Int64 series
        behind = watermark - times >= by
        if MARK in batch.frame.columns:
            behind &= batch.frame[MARK].is_null()
        yield Late(batch.keep(behind), "behind")
        batch, times = batch.keep(~behind), times.filter(~behind)
    yield batch, times


class TimedOperator(Operator):
    """Goes by event time. `late_by`: a record that is late by this or more leaves the stream. Unit: milliseconds."""

    def __init__(self, column: TimeColumn, saved: Tables, late_by: int = 1) -> None:
        self.time_column, self._late_by = column, late_by
        self._watermark = int(saved["watermark"].item()) if "watermark" in saved else None

    def on_batch(self, batch: Batch) -> Iterable[Batch | Late | Dead]:
        batch, times, dead = timed(batch, self.time_column)
        if dead:
            yield dead
        for out in split_late(batch, times, self._watermark, self._late_by):
            yield from (out,) if isinstance(out, Late) else self.on_time(*out)

    def on_time(self, batch: Batch, times: pl.Series) -> Iterable[Batch]:
        """Records that stay in the stream."""
        raise NotImplementedError

    def on_watermark(self, time: int) -> Iterable[Batch]:
        self._watermark = time
        return ()

    def snapshot(self) -> Tables:
        return {} if self._watermark is None else {"watermark": pl.DataFrame({"watermark": [self._watermark]})}


def with_marks(rows: pl.DataFrame, batch: Batch) -> pl.DataFrame:
    """The batch's rows and its marks, none where it has no such column."""
    marks = batch.frame[MARK] if MARK in batch.frame.columns else pl.Series([None] * batch.height, dtype=pl.Int64)
    return rows.with_columns(marks.alias(MARK))


def without_marks(batch: Batch) -> Batch:
    """Of records none of which is late: the column that says so is not needed any more."""
    if MARK not in batch.frame.columns:
        return batch
    return replace(batch, frame=batch.frame.drop(MARK), in_text=batch.in_text - {MARK})
