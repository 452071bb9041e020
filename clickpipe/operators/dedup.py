"""Drop repeats: records whose key has passed already, less than --within away in event time.

Shape: as given. Order: as they come; of equal ones the first to come passes. Guarantee: exact.
A record that is late by --within or more goes to the late stream: what it repeats may be forgotten.
Memory: the keys and times of what has passed, until the watermark is twice --within past them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from clickpipe.batch import Batch
from clickpipe.columns import HIDDEN, Columns, WindowInfo
from clickpipe.core.kept import Kept
from clickpipe.core.lint import Advice, Situation
from clickpipe.core.operator import Operator
from clickpipe.core.option import Duration, Names, option
from clickpipe.core.seen import UNTIL, Hashed, Seen
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.core.timed import TimedOperator, time_column
from clickpipe.core.units import format_duration
from clickpipe.errors import PlanError

_TIME, _ROW = HIDDEN + "time", HIDDEN + "row"


@dataclass(frozen=True)
class Dedup(OperatorStep):
    by: Names = option("records equal in these columns repeat each other", metavar="COL,…", example="event_id")
    within: Duration = option("repeats are less than this away from what passed, before or after it", example="10m")
    time: str | None = option("field that holds event time, where the stream does not say", default=None, metavar="FIELD")

    outcome = "duplicate"
    epilog = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts | clickpipe dedup --by event_id --within 10m |
    clickpipe aggregate n='count(*)' | clickpipe sink -
  printf '{"id":1,"ts":1772355600}\\n{"id":1,"ts":1772355601}\\n' | clickpipe dedup --by id --within 1m --time ts"""

    def columns(self, given: Columns) -> Columns:
        if not self.by:
            raise PlanError("records equal in what? name columns", hint="as in: dedup --by event_id --within 10m")
        if self.within <= 0:
            raise PlanError("--within must be longer than 0s", word="--within")
        given.need(self.by, " to tell repeats by")
        if given.is_revised:
            raise PlanError("these rows come again when they change, and their changes would be dropped as repeats")
        time_column(given, self.time)
        return given

    def needs(self, given: Columns) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.by, time_column(given, self.time).name]))

    def keys(self, given: Columns) -> tuple[str, ...]:
        return self.by

    def open(self, given: Columns, saved: Tables) -> Operator:
        return DedupOperator(self, given, saved)

    def describe(self, given: Columns) -> str:
        return f"drop repeats of {', '.join(self.by)} within {format_duration(self.within)}"

    def keeps(self, given: Columns | None, window: WindowInfo | None) -> Kept:
        past = format_duration(2 * self.within)
        return Kept(f"one row per {', '.join(self.by)}", f"let go when the watermark is {past} past it", is_timed=True)

    def judges_lateness(self) -> bool:
        return True

    def tolerates(self) -> int:
        return int(self.within)

    def advice(self, where: Situation) -> Iterable[Advice]:
        if self.within < where.input.out_of_orderness:
            within, behind = format_duration(self.within), format_duration(where.input.out_of_orderness)
            what = f"a repeat may come {behind} behind, and one whose time is {within} or more from the first passes"
            yield Advice("dedup-within", what, f"--within {behind}, unless repeats bear the time of the first")

    def memory(self) -> str:
        return f"one row per {', '.join(self.by)} of {format_duration(2 * self.within)}"


class DedupOperator(TimedOperator):
    def __init__(self, step: Dedup, given: Columns, saved: Tables) -> None:
        super().__init__(time_column(given, step.time), saved, late_by=int(step.within))
        self._by, self._within = list(dict.fromkeys(step.by)), int(step.within)
        self._seen = Seen(self._by, saved.get("seen"))

    def on_time(self, batch: Batch, times: pl.Series) -> Iterable[Batch]:
        if batch.height:
            yield batch.keep(self._passing(batch.frame.select(self._by), times))

    def on_watermark(self, time: int) -> Iterable[Batch]:
        self._seen.forget(time)
        return super().on_watermark(time)

    def snapshot(self) -> Tables:
        seen = {"seen": rows} if (rows := self._seen.rows()).width else {}
        return {**super().snapshot(), **seen}

    def _passing(self, keys: pl.DataFrame, times: pl.Series) -> pl.Series:
        """Which records pass; from here on they are seen."""
        rows = keys.with_columns(times.alias(_TIME), pl.int_range(pl.len(), dtype=pl.UInt32).alias(_ROW))
        hashed = self._seen.hashed(rows)
        passing = self._fresh(rows, hashed)
        if not hashed.is_distinct():
            passing = self._first(passing)
        # No record that is late by less than D comes within D of one that the watermark is 2 * D past.
        seen = passing.select(*self._by, _TIME, (pl.col(_TIME) + 2 * self._within).alias(UNTIL))
        if passing.height == rows.height:
            self._seen.add(seen, hashed)
            return pl.repeat(True, rows.height, dtype=pl.Boolean, eager=True)
        self._seen.add(seen)
        return pl.repeat(False, rows.height, dtype=pl.Boolean, eager=True).scatter(passing[_ROW], True)

    def _fresh(self, rows: pl.DataFrame, hashed: Hashed) -> pl.DataFrame:
        """Without the records that repeat one of an earlier batch."""
        asked, found = self._seen.find(hashed)
        if not len(asked):
            return rows
        both = pl.concat(
            [found.select(*self._by, _TIME, pl.lit(None, pl.UInt32).alias(_ROW)), rows[asked]], how="vertical_relaxed"
        )
        passed = pl.when(pl.col(_ROW).is_null()).then(_TIME)
        near = (pl.col(_TIME) - passed.forward_fill().over(self._by) < self._within) | (
            passed.backward_fill().over(self._by) - pl.col(_TIME) < self._within
        )
        repeats = both.sort(_TIME).filter(near.fill_null(False) & pl.col(_ROW).is_not_null())
        return rows.join(repeats, on=_ROW, how="anti", maintain_order="left")

    def _first(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Without the records that repeat one of this batch."""
        is_first = rows.select(pl.struct(self._by).is_first_distinct()).to_series()
        if is_first.all():
            return rows
        first, others = rows.filter(is_first), rows.filter(~is_first)
        known = first.select(*self._by, pl.col(_TIME).alias(UNTIL))
        far = others.join(known, on=self._by, how="left", nulls_equal=True, maintain_order="left").filter(
            (pl.col(_TIME) - pl.col(UNTIL)).abs() >= self._within
        )
        passing = first[_ROW].append(pl.Series(self._one_by_one(far), dtype=pl.UInt32))
        return rows.filter(pl.col(_ROW).is_in(passing.implode()))

    def _one_by_one(self, rows: pl.DataFrame) -> list[int]:
        """Of keys that come twice in a batch and far apart, the records that pass. There are few of them, as batches are short.

        Those that pass are --within or more apart, so a stretch of that length holds one at most.
        """
        passed: dict[tuple[object, ...], int] = {}
        kept = []
        for *key, time, row in rows.select(*self._by, _TIME, _ROW).iter_rows():
            stretch = time // self._within
            around = (passed.get((*key, stretch + step)) for step in (-1, 0, 1))
            if all(other is None or abs(time - other) >= self._within for other in around):
                passed[*key, stretch] = time
                kept.append(row)
        return kept
