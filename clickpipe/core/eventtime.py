"""Event time at the source: when a record was, and whether it is late or too far ahead of its time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns, TimeColumn
from clickpipe.core.time import SplitClock, instants
from clickpipe.errors import PlanError

_LIVE_SKEW = 3_600_000


@dataclass(frozen=True)
class EventTime:
    """How a field is read as event time; without a field there is none. Unit: milliseconds."""

    field: str | None = None
    unit: str = "auto"
    zone: str = "UTC"
    out_of_orderness: int = 0
    future_skew: int | None = None

    def clock(self, *, is_live: bool, greatest: int | None = None) -> SplitClock:
        """Of one split."""
        skew = _LIVE_SKEW if self.future_skew is None and is_live else self.future_skew
        return SplitClock(self.out_of_orderness, skew, greatest)

    def found_in(self, columns: Columns) -> Columns:
        """The input's columns, with the one that holds event time. Raises PlanError where there is none."""
        if self.field is None:
            return columns
        if self.field not in columns.types:
            if not columns.types:  # nothing was read that says otherwise
                return replace(columns.add({self.field: "int"}), time=TimeColumn(self.field, self.unit))
            raise columns.unknown(self.field, " for --time", "the input has")
        if columns.types[self.field] not in ("int", "float", "str"):
            raise PlanError(f'column "{self.field}" is {columns.types[self.field]}, which is no time', word=self.field)
        return replace(columns, time=TimeColumn(self.field, self.unit))

    def instants(self, batch: Batch) -> pl.Series:
        """Null where the field is no instant."""
        assert self.field is not None
        return instants(batch.frame[self.field], batch.columns.types[self.field], self.unit, self.zone)

    def judged(self, batch: Batch, clock: SplitClock, arrival: int | None, after: Columns) -> tuple[Batch, list[Dead]]:
        """Records with their time, late ones marked, and those whose time cannot be believed. `after`: as `streamed`."""
        if self.field is None:
            return batch, []
        batch, times, dead = self._timed(batch)
        judged = clock.judge(times, arrival)
        added: list[Any] = [times] if after.time != batch.columns.time else []
        added += [] if judged.mark is None else [judged.mark]
        columns = batch.columns.add({"_time": "int"}) if after.types.get("_time") else batch.columns
        frame = batch.frame.with_columns(*added) if added else batch.frame
        batch = replace(batch, frame=frame, columns=replace(columns, time=after.time, idles=after.idles))
        if judged.future is not None:
            ahead = batch.keep(judged.future)
            reason = f'"{self.field}" is too far in the future'
            dead.append(ahead.as_dead(pl.Series([reason] * ahead.height, dtype=pl.String)))
            batch = batch.keep(~judged.future)
        return batch, dead

    def _timed(self, batch: Batch) -> tuple[Batch, pl.Series, list[Dead]]:
        """The records whose field is an instant, when they were, and the others."""
        assert self.field is not None
        batch, misfits = batch.need([self.field], set())
        times = self.instants(batch).alias("_time")
        dead = [misfits] if misfits else []
        if times.null_count():
            dead.append(batch.keep(times.is_null()).as_dead(pl.Series(self._reasons(batch, times), dtype=pl.String)))
            batch, times = batch.keep(times.is_not_null()), times.drop_nulls()
        return batch, times, dead

    def _reasons(self, batch: Batch, times: pl.Series) -> list[str]:
        assert self.field is not None
        values = batch.frame[self.field].filter(times.is_null()).to_list()
        return [f'no "{self.field}"' if value is None else f'"{self.field}" is no instant: {value!r}'[:200] for value in values]


def streamed(raw: Columns) -> Columns:
    """What the next step sees: event time as an integer."""
    if raw.time is None or raw.types[raw.time.name] == "int":
        return raw
    return replace(raw.add({"_time": "int"}), time=TimeColumn("_time", "ms"))
