"""Number the sessions of each key, and the records in them.

Shape: adds session_id (text), session_position (from 1) and session_start (a time). Order: by event time; of one time as
they came. A session ends when its key's next record is --gap or more later, or --max-duration or more after its start.
A session_id is made of the key's values and the start in milliseconds, u7:1772323200968, and so is the same in every run.
A record is held back until the watermark has passed it; one that is late goes to the late stream.
Memory: the records of --max-out-of-orderness, and one row per key whose session may go on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import polars as pl

from clickpipe.batch import Batch
from clickpipe.columns import HIDDEN, Columns, WindowInfo
from clickpipe.core.held import HeldOperator
from clickpipe.core.kept import Kept
from clickpipe.core.operator import Operator
from clickpipe.core.option import Duration, Names, option
from clickpipe.core.seen import UNTIL, Seen
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.core.time import instants
from clickpipe.core.timed import time_column
from clickpipe.core.units import format_duration
from clickpipe.errors import PlanError

ADDED = {"session_id": "str", "session_position": "int", "session_start": "time"}
_TIME, _ROW, _KEY, _START, _POSITION = (HIDDEN + name for name in ("time", "row", "key", "start", "position"))
_LARGEST_WHOLE = 2.0**53  # beyond it a float is not one integer


@dataclass(frozen=True)
class Sessionize(OperatorStep):
    by: Names = option("each value of these columns has sessions of its own", metavar="COL,…", example="user_id")
    gap: Duration = option("a session ends when nothing comes for this long", example="30m")
    max_duration: Duration | None = option("a session is shorter than this", default=None, example="24h")
    time: str | None = option("field that holds event time, where the stream does not say", default=None, metavar="FIELD")

    outcome = "held"
    epilog = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts --max-out-of-orderness 5s |
    clickpipe sessionize --by user_id --gap 30m | clickpipe limit 3 | clickpipe sink -
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts --max-out-of-orderness 5s |
    clickpipe sessionize --by user_id --gap 30m --max-duration 4h |
    clickpipe aggregate --by session_id clicks='count(*)' --top 3 | clickpipe sink -"""

    def columns(self, given: Columns) -> Columns:
        if not self.by:
            raise PlanError("whose sessions? name columns", hint="as in: sessionize --by user_id --gap 30m")
        if self.gap <= 0:
            raise PlanError("--gap must be longer than 0s", word="--gap")
        if self.max_duration is not None and self.max_duration < self.gap:
            shorter = f"--max-duration {format_duration(self.max_duration)} is shorter than --gap {format_duration(self.gap)}"
            raise PlanError(shorter, word="--max-duration")
        given.need(self.by, " to tell sessions by")
        time_column(given, self.time)
        for name in ADDED:
            if name in given.types:
                hint = f'rename it before: select --add "{name} AS old" --drop {name}'
                raise PlanError(f'the records have a field "{name}" already', hint=hint)
        return given.add(ADDED)

    def needs(self, given: Columns) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.by, time_column(given, self.time).name]))

    def keys(self, given: Columns) -> tuple[str, ...]:
        return self.by

    def open(self, given: Columns, saved: Tables) -> Operator:
        return SessionizeOperator(self, given, saved)

    def describe(self, given: Columns) -> str:
        most = f", shorter than {format_duration(self.max_duration)}" if self.max_duration else ""
        return f"sessions of {', '.join(self.by)} with a gap of {format_duration(self.gap)}{most}"

    def keeps(self, given: Columns | None, window: WindowInfo | None) -> Kept:
        by = ", ".join(self.by)
        past = f"let go when the watermark has passed them; of a {by} when it is {format_duration(self.gap)} past its last"
        return Kept(f"the latest records, and one row per {by}", past, is_timed=True)

    def judges_lateness(self) -> bool:
        return True

    def memory(self) -> str:
        return (
            f"the records that the watermark has not passed, and one row per {', '.join(self.by)} of {format_duration(self.gap)}"
        )


class SessionizeOperator(HeldOperator):
    def __init__(self, step: Sessionize, given: Columns, saved: Tables) -> None:
        super().__init__(time_column(given, step.time), saved)
        self._by, self._gap, self._most = list(dict.fromkeys(step.by)), int(step.gap), step.max_duration
        self._sessions = Seen(self._by, saved.get("sessions"), latest=True)

    def on_watermark(self, time: int) -> Iterable[Batch]:
        for batch in super().on_watermark(time):
            columns = replace(batch.columns, types={**batch.columns.types, **ADDED})
            yield batch.add(self._numbered(batch), columns)
        self._sessions.forget(time)

    def snapshot(self) -> Tables:
        sessions = {"sessions": rows} if (rows := self._sessions.rows()).width else {}
        return {**super().snapshot(), **sessions}

    def _numbered(self, batch: Batch) -> pl.DataFrame:
        """The added columns, of records in order; from here on their sessions are those that go on."""
        name, unit = self.time_column.name, self.time_column.unit
        times = instants(batch.frame[name], batch.columns.types[name], unit)
        rows = batch.frame.select(*self._by, times.alias(_TIME), pl.int_range(pl.len(), dtype=pl.Int64).alias(_ROW))
        rows = self._by_key(rows)
        rows = self._placed(rows, self._begun(rows))
        last = rows.filter((pl.col(_KEY) != pl.col(_KEY).shift(-1)).fill_null(True))
        self._sessions.add(last.select(*self._by, _TIME, _START, _POSITION, (pl.col(_TIME) + self._gap).alias(UNTIL)))
        added = rows.filter(pl.col(_ROW).is_not_null()).sort(_ROW)
        return added.select(
            session_id(self._by, added).alias("session_id"),
            pl.col(_POSITION).alias("session_position"),
            pl.col(_START).alias("session_start"),
        )

    def _by_key(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of a key one after the other, in order of time; before the first, where its latest session stands."""
        _, found = self._sessions.find(self._sessions.hashed(rows))
        if found.height:
            known = found.unique(subset=self._by, keep="last", maintain_order=True).drop(UNTIL)
            rows = pl.concat([known, rows], how="diagonal_relaxed")
        else:
            nothing = pl.lit(None, pl.Int64)
            rows = rows.with_columns(nothing.alias(_START), nothing.alias(_POSITION))
        key = pl.col(_KEY).first().over(self._by)
        return rows.with_row_index(_KEY).with_columns(key).sort(_KEY, maintain_order=True)

    def _begun(self, rows: pl.DataFrame) -> pl.Series:
        """Which rows begin a session, or say where one stands that had begun before."""
        is_first = pl.col(_KEY) != pl.col(_KEY).shift()
        begun = rows.select((is_first | (pl.col(_TIME) - pl.col(_TIME).shift() >= self._gap)).fill_null(True)).to_series()
        if self._most is None:
            return begun
        too_long = rows.select(pl.col(_TIME) - _carried(pl.lit(begun), pl.coalesce(_START, _TIME)) >= self._most).to_series()
        return self._cut(rows, begun, too_long) if too_long.any() else begun

    def _cut(self, rows: pl.DataFrame, begun: pl.Series, too_long: pl.Series) -> pl.Series:
        """Sessions that grow too long in this batch, cut up. Where one is cut decides where the next cut is: record by record."""
        assert self._most is not None
        session = begun.cast(pl.UInt32).cum_sum()
        doubtful = session.is_in(session.filter(too_long).unique().implode()).arg_true()
        starts, times = rows.select(pl.coalesce(_START, _TIME)).to_series(), rows[_TIME]
        cuts, start = [], 0
        for row, begins, begin, time in zip(
            doubtful.to_list(), begun[doubtful].to_list(), starts[doubtful].to_list(), times[doubtful].to_list(), strict=True
        ):
            if begins:
                start = begin
            elif time - start >= self._most:
                start = time
                cuts.append(row)
        return begun.scatter(cuts, True)

    def _placed(self, rows: pl.DataFrame, begun: pl.Series) -> pl.DataFrame:
        """With each row's session start and its position."""
        row, begins = pl.int_range(pl.len(), dtype=pl.Int64), pl.lit(begun)
        first = _carried(begins, row - pl.coalesce(_POSITION, pl.lit(1)))
        return rows.with_columns(_carried(begins, pl.coalesce(_START, _TIME)).alias(_START), (row - first).alias(_POSITION))


def _carried(begins: pl.Expr, value: pl.Expr) -> pl.Expr:
    """The value where a session begins, in all its rows."""
    return pl.when(begins).then(value).forward_fill()


def session_id(by: list[str], rows: pl.DataFrame) -> pl.Expr:
    """`u7:1772323200968`: the key's values and the start, readable and never the same for two sessions.

    A colon or backslash in a value has a backslash before it; a null is \\N.
    """
    return pl.concat_str([*(_part(name, rows.schema[name]) for name in by), pl.col(_START).cast(pl.String)], separator=":")


def _part(name: str, kind: pl.DataType) -> pl.Expr:
    value = pl.col(name)
    text = value.cast(pl.String)
    if kind.is_float():  # the column may have held integers before: they must not get another name now
        is_whole = (value == value.floor()) & (value.abs() < _LARGEST_WHOLE)
        text = pl.when(is_whole).then(value.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(text)
    return text.str.replace_all("\\", "\\\\", literal=True).str.replace_all(":", "\\:", literal=True).fill_null("\\N")
