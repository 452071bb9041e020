"""Assign each record to its windows: tumble SIZE, hop SIZE --slide D, session GAP --by COL, cumulate SIZE --step D, count N.

Shape: adds window_start and window_end, epoch milliseconds. A window holds its start and not its end, and windows are aligned
to 1970-01-01T00:00:00Z, or to the calendar of --tz. A record stays one row: where several windows hold it, the row has the
stretch that they have in common; a session's row has the record's own stretch, from it to the gap behind it. aggregate, behind
it, gives a row per window. A late record whose windows have all gone goes to the late stream.
Memory: one batch; count: one number per key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import HIDDEN, MOST_WINDOWS, WINDOWS, Columns, TimeColumn, WindowInfo
from clickpipe.core.agreed import Agreed
from clickpipe.core.kept import Kept
from clickpipe.core.lint import Advice, Situation
from clickpipe.core.operator import FOREVER, Late, Operator
from clickpipe.core.option import Duration, Extent, Names, argument, option
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.core.summary import Table
from clickpipe.core.tally import tally
from clickpipe.core.timed import event_time, timed
from clickpipe.core.units import format_duration
from clickpipe.core.windows import FIXED, NUMBER, WINDOW, Windows
from clickpipe.core.zone import check_zone
from clickpipe.errors import PlanError, near

_BEFORE, _RANK = HIDDEN + "before", HIDDEN + "rank"
_ONLY = {  # options that belong to some kinds
    "slide": ("hop", "hop SIZE --slide D does"),
    "step": ("cumulate", "cumulate SIZE --step D does"),
    "by": ("session", "count", "session GAP --by COL does; aggregate --by COL groups by more than the window"),
    "max_duration": ("session", "session GAP --max-duration D is"),
    "offset": (*FIXED, "sessions and counts begin with a record"),
    "tz": (*FIXED, "sessions and counts begin with a record"),
    "allowed_lateness": (*FIXED, "session", "a count window takes every record, however late"),
}


@dataclass(frozen=True)
class Window(OperatorStep):
    kind: str = argument("tumble, hop, session, cumulate or count", metavar="KIND", example="tumble")
    size: Extent = argument("length of a window; session: the gap that ends it; count: records", metavar="SIZE", example="1m")
    slide: Duration | None = option(
        "hop: a new window starts this often", default=None, example="10s", aliases=("--advance", "--every")
    )
    step: Duration | None = option(
        "cumulate: a window ends this often, each with all since the start", default=None, example="1h"
    )
    by: Names = option("session, count: whose sessions, whose records", default=(), metavar="COL,…", example="user_id")
    max_duration: Duration | None = option("session: ends after this at the latest", default=None, example="4h")
    offset: Duration = option("shift all windows by this much", default=Duration(0), example="2h")
    tz: str | None = option("align windows to this zone's calendar", default=None, metavar="ZONE", example="Europe/Berlin")
    allowed_lateness: Duration = option(
        "how long a window that was given out is corrected by late records: its row comes again, with a higher rev",
        default=Duration(0),
        example="1h",
        aliases=("--grace",),
    )
    time: str | None = option("field that holds event time, where the stream does not say", default=None, metavar="FIELD")
    late: str | None = option(
        "file for late records, instead of late.ndjson in the state directory", default=None, metavar="FILE"
    )

    epilog = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts | clickpipe window tumble 1h |
    clickpipe aggregate n='count(*)' | clickpipe sink -
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts | clickpipe window hop 6h --slide 3h |
    clickpipe aggregate n='count(*)' | clickpipe sink -
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts --max-out-of-orderness 5s |
    clickpipe window session 30m --by user_id --max-duration 4h |
    clickpipe aggregate clicks='count(*)' pages='count(DISTINCT page)' | clickpipe limit 3 | clickpipe sink -
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts | clickpipe window tumble 1d --tz Europe/Berlin |
    clickpipe aggregate n='count(*)' | clickpipe sink -

With --tz a day has 23 or 25 hours when the clocks change. A boundary that the clock shows twice is one, unless the windows
are so short that they fit into the hour that comes twice.

A session ends when a record is the gap or more behind the last one; its window_end is its last record plus the gap. Records
of one session may come in any order that --max-out-of-orderness allows. A late record joins a session that is open still, or
may still be corrected: then two sessions can become one, and the row of the later one comes again with "deleted": true."""

    def columns(self, given: Columns) -> Columns:
        self._check()
        time = event_time(given, self.time)
        given.need(self.by, " for --by")
        if given.window is not None and given.window.kind != "tumble":
            raise PlanError(f"the records stand in {given.window.kind} windows already: aggregate them first")
        self._check_results(given, time)
        for name in (*WINDOW, *((NUMBER,) if self.kind == "count" else ())):
            if given.types.get(name, "time") != "time":
                hint = f'rename it before: select --add "{name} AS old" --drop {name}'
                raise PlanError(f'the records have a field "{name}" already', hint=hint)
            if name in self.by:
                raise PlanError(f'"{name}" is of the windows before, and these take their place', word=name)
        return replace(given, types=self._windowed(given.types), window=self.info(), time=time, key=())

    def needs(self, given: Columns) -> tuple[str, ...]:
        reads = tuple(dict.fromkeys((event_time(given, self.time).name, *self.by)))
        return reads if set(WINDOW).isdisjoint(given.types) else tuple(given.types)

    def keys(self, given: Columns) -> tuple[str, ...] | None:
        return self.whose() if self.kind == "count" else None

    def refuses(self, given: Columns) -> bool:
        return self.time is not None

    def open(self, given: Columns, saved: Tables) -> Operator:
        return CountOperator(self, given, saved) if self.kind == "count" else WindowOperator(self, given, saved)

    def describe(self, given: Columns) -> str:
        size = format_duration(self.size) if isinstance(self.size, Duration) else f"{self.size:,} records"
        every = f" every {format_duration(self.slide or self.step or 0)}" if self.slide or self.step else ""
        of = f" of {', '.join(self.whose())}" if self.by else ""
        zone = f" in {self.tz}" if self.tz else ""
        longest = f" for {format_duration(self.max_duration)} at most" if self.max_duration else ""
        return f"{self.kind} {size}{every}{of}{longest} by {event_time(given, self.time).name}{zone}"

    def memory(self) -> str:
        return "one number per key" if self.kind == "count" else "one batch"

    def keeps(self, given: Columns | None, window: WindowInfo | None) -> Kept | None:
        if self.kind != "count":
            return None
        by = ", ".join(self.whose())
        what = f"one number per {by}" if by else "one number"
        return Kept(what, "", f"every different {by}" if by else "", "window tumble SIZE keeps none")

    def assigns(self) -> WindowInfo:
        return self.info()

    def choosable(self, given: Columns) -> frozenset[str]:
        return frozenset() if self.kind == "count" else frozenset(given.types) - {*WINDOW}

    def judges_lateness(self) -> bool:
        return self.kind != "count"

    def tolerates(self) -> int:
        return int(self.allowed_lateness)

    def advice(self, where: Situation) -> Iterable[Advice]:
        timeout = where.input.idle_timeout
        if self.kind != "count" and 0 < timeout < self.size and self.allowed_lateness < self.size and not where.input.is_held:
            pause, size = format_duration(timeout), format_duration(self.size)
            what = f"windows are closed without input that pauses for {pause}, and what it gives then of their {size} is late"
            yield Advice("idle-timeout", what, f"ingest --idle-timeout {size} or more, or 0s to wait as long as it takes")

    def info(self) -> WindowInfo:
        slide = int(self.slide or self.step or self.size)
        more = (int(self.offset), self.tz, int(self.allowed_lateness), self.whose())
        return WindowInfo(self.kind, int(self.size), slide, *more, None if self.max_duration is None else int(self.max_duration))

    def whose(self) -> Names:
        """A key that is named twice is one key."""
        return tuple(dict.fromkeys(self.by))

    def _windowed(self, types: Mapping[str, str]) -> dict[str, str]:
        """The columns with those of the window behind them, in place of an earlier window's."""
        added = dict.fromkeys(WINDOW, "time") | ({NUMBER: "int"} if self.kind == "count" else {})
        return {name: kind for name, kind in types.items() if name not in added} | added

    def _check_results(self, given: Columns, time: TimeColumn) -> None:
        """Rows of an aggregate come when their window has ended: windows must not have closed by then."""
        of = given.results_of
        if of is None or self.kind == "count" or time.name != "window_start":
            return
        lengths = (int(self.size), int(self.slide or self.step or self.size), int(self.offset) - of.offset)
        is_inside = of.kind == "tumble" and of.zone == self.tz and not any(length % of.size for length in lengths)
        if self.kind not in FIXED or not is_inside:
            reason = "rows of an aggregate come when their window has ended, and would be late here"
            raise PlanError(reason, hint="go by that: --time window_end")

    # What cannot be.

    def _check(self) -> None:
        if self.kind not in WINDOWS:
            raise PlanError(
                f'no window "{self.kind}"',
                hint=near(self.kind, WINDOWS),
                notes=[f"there are: {', '.join(WINDOWS)}"],
                word=self.kind,
            )
        for name, (*kinds, instead) in _ONLY.items():
            if getattr(self, name) and self.kind not in kinds:
                flag = "--" + name.replace("_", "-")
                raise PlanError(f"{flag} is not for {self.kind} windows", hint=instead, word=flag)
        self._check_size()
        {"hop": self._check_slide, "cumulate": self._check_step, "session": self._check_session}.get(self.kind, lambda: None)()
        if self.tz is not None:
            check_zone(self.tz)

    def _check_size(self) -> None:
        word = str(self.size)
        if self.kind == "count":
            if isinstance(self.size, Duration):
                raise PlanError("count takes a number of records, not a duration", hint="as in: window count 1000")
            if self.size < 1:
                raise PlanError("a window must hold at least 1 record", word=word)
        elif not isinstance(self.size, Duration):
            raise PlanError(f'"{word}" is not a duration; durations look like 500ms, 5s, 1m, 1h30m, 1d', word=word)
        elif self.size <= 0:
            raise PlanError("a gap must be longer than 0s" if self.kind == "session" else "a window must be longer than 0s")

    def _check_slide(self) -> None:
        if self.slide is None:
            raise PlanError("hop needs --slide", hint=f"as in: window hop {format_duration(self._length())} --slide 10s")
        if self.slide <= 0:
            raise PlanError("--slide must be longer than 0s", word="--slide")
        if self.slide > self._length():
            raise PlanError(
                f"--slide {format_duration(self.slide)} is longer than the window of {format_duration(self._length())}: "
                "records in between would stand in no window",
                word="--slide",
            )
        if self._length() > self.slide * MOST_WINDOWS:
            raise PlanError(
                f"each record would stand in {-(-self._length() // self.slide):,} windows; {MOST_WINDOWS:,} are allowed"
            )
        if self.tz is not None and self._length() % self.slide:
            raise PlanError("with --tz a window must be some whole slides long", word="--slide")

    def _check_step(self) -> None:
        if self.step is None:
            raise PlanError("cumulate needs --step", hint=f"as in: window cumulate {format_duration(self._length())} --step 1m")
        if self.step <= 0:
            raise PlanError("--step must be longer than 0s", word="--step")
        if self._length() % self.step:
            raise PlanError(
                f"a window of {format_duration(self._length())} is not some whole steps of {format_duration(self.step)} long",
                word="--step",
            )
        if self._length() > self.step * MOST_WINDOWS:
            raise PlanError(f"each record could stand in {self._length() // self.step:,} windows; {MOST_WINDOWS:,} are allowed")

    def _check_session(self) -> None:
        if not self.by:
            raise PlanError(
                "session needs --by: whose sessions?",
                hint=f"as in: window session {format_duration(self._length())} --by user_id",
            )
        if self.max_duration is not None and self.max_duration < self._length():
            raise PlanError(
                f"--max-duration {format_duration(self.max_duration)} is below the gap of {format_duration(self._length())}",
                word="--max-duration",
            )

    def _length(self) -> Duration:
        assert isinstance(self.size, Duration)
        return self.size


class WindowOperator(Operator):
    """Of fixed windows and sessions."""

    def __init__(self, step: Window, given: Columns, saved: Tables) -> None:
        self._step, self._info = step, step.info()
        self._columns, self._time = step.columns(given), event_time(given, step.time)
        self._windows = Windows(self._info) if step.kind in FIXED else None
        self._partly_late = 0
        # Where the watermark is, and where records alone had brought it when the clock moved it on.
        self._reached, self._by_records = saved["reached"].row(0) if "reached" in saved else (-FOREVER, None)
        self._is_idle = False

    def on_batch(self, batch: Batch) -> Iterable[Batch | Late | Dead]:
        batch, instant, dead = timed(batch, self._time)
        if dead:
            yield dead
        columns = replace(self._columns, types=self._step._windowed(batch.columns.types))
        batch = _without_windows(batch)
        if self._windows is None:
            yield batch.add(
                pl.DataFrame([instant.alias("window_start"), (instant + self._info.size).alias("window_end")]), columns
            )
            return
        start = self._windows.starts(instant)
        end = self._windows.ends(start, instant)
        if "_mark" in batch.frame.columns:
            mark = batch.frame["_mark"]
            last = self._windows.last_ends(start).alias("window_end")
            gone = (last + self._info.lateness <= mark).fill_null(value=False)
            if gone.any():
                yield from self._late(batch.keep(gone).add(pl.DataFrame([start, last]).filter(gone), columns))
                batch, instant, mark = batch.keep(~gone), instant.filter(~gone), mark.filter(~gone)
                start, end = start.filter(~gone), end.filter(~gone)
            end = self._open_end(start, end, instant, mark)
        yield batch.add(pl.DataFrame([start, end]), columns)

    def _open_end(self, start: pl.Series, end: pl.Series, instant: pl.Series, mark: pl.Series) -> pl.Series:
        """A record that comes too late for some of its windows stands in the others only."""
        assert self._windows is not None
        reached = mark - self._info.lateness
        late = (reached >= end).fill_null(value=False)
        if not late.any():
            return end
        self._partly_late += int(late.sum())
        return end.zip_with(~late, self._windows.ends(start, reached.fill_null(instant)))

    def _late(self, late: Batch) -> Iterable[Late]:
        """With the newest of their windows. For one that records had not closed, only the clock is to blame."""
        if self._by_records is None:
            yield Late(late)
            return
        idle = late.frame["window_end"] + self._info.lateness > self._by_records
        yield from (Late(late.keep(rows), reason) for rows, reason in ((~idle, "late"), (idle, "idle")) if rows.any())

    def take_partly_late(self) -> int:
        taken, self._partly_late = self._partly_late, 0
        return taken

    def on_idle(self) -> None:
        self._is_idle = True

    def on_watermark(self, time: int) -> Iterable[Batch]:
        """What the watermark was before the clock moved it is known until records have moved it further."""
        if self._is_idle:
            self._by_records = self._reached if self._by_records is None else self._by_records
        elif self._by_records is not None and time > self._reached:
            self._by_records = None
        self._reached, self._is_idle = time, False
        return ()

    def snapshot(self) -> Tables:
        if self._by_records is None:
            return {}
        return {"reached": pl.DataFrame({"reached": [self._reached], "by_records": [self._by_records]})}


def _without_windows(batch: Batch) -> Batch:
    """From finer windows to coarser ones."""
    if set(WINDOW).isdisjoint(batch.columns.types):
        return batch
    return batch.replaced(batch.frame.drop(*WINDOW), batch.columns)


class CountOperator(Operator):
    """Numbers the records of each key, in the order in which they come."""

    def __init__(self, step: Window, given: Columns, saved: Tables) -> None:
        self._step, self._by, self._size = step, list(step.whose()), int(step.size)
        self._columns, self._time = step.columns(given), event_time(given, step.time)
        self._agreed = Agreed(self._by, saved)
        self._open(saved)

    def _open(self, saved: Tables) -> None:
        self._counts = Table(self._by, [tally(_BEFORE)], saved.get("counts"))

    def on_batch(self, batch: Batch) -> Iterable[Batch | Dead]:
        batch, instant, dead = timed(batch, self._time)
        if dead:
            yield dead
        columns = replace(self._columns, types=self._step._windowed(batch.columns.types))
        batch = _without_windows(batch)
        number = self._numbers(batch) // self._size
        added = [instant.alias("window_start"), (instant + 1).alias("window_end"), number.alias(NUMBER)]
        yield batch.add(pl.DataFrame(added), columns)

    def _numbers(self, batch: Batch) -> pl.Series:
        """How many records of its key came before each."""
        keys = batch.frame.select(self._by) if self._by else pl.DataFrame(height=batch.height)
        if self._agreed.learns(keys):
            self._open(self._agreed.tables(self.snapshot()))
        keys = self._agreed.wide(keys)
        rank = pl.int_range(pl.len(), dtype=pl.Int64)
        ranked = keys.select(*self._by, (rank.over(self._by) if self._by else rank).alias(_RANK))
        before = self._before(keys)
        self._counts.add(keys, pl.lit(0))
        if isinstance(before, int):
            return ranked[_RANK] + before
        joined = ranked.join(before, on=self._by, how="left", nulls_equal=True, maintain_order="left")
        return joined[_RANK] + joined[_BEFORE].fill_null(0)

    def _before(self, keys: pl.DataFrame) -> pl.DataFrame | int:
        rows = self._counts.rows()
        if not rows.width:
            return 0
        if not self._by:
            return int(self._counts.values(rows, [])[_BEFORE].item())
        mine = rows.join(keys.unique(), on=self._by, how="semi", nulls_equal=True)
        return self._counts.values(mine, self._by)

    def snapshot(self) -> Tables:
        rows = self._counts.rows()
        return {"counts": rows} if rows.width else {}
