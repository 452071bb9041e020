"""Assign each record to its window, or windows: tumble SIZE, hop SIZE --slide D.

Shape: adds window_start and window_end, epoch milliseconds. A window holds its start and not its
end, and windows are aligned to 1970-01-01T00:00:00Z. A hopping record stands in several rows, one
per window. A late record whose windows have all gone goes to the late stream.
Memory: one batch; hopping: times size / slide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import polars as pl

from clickpipe.batch import NEWEST, Batch
from clickpipe.columns import Columns, TimeColumn, WindowInfo
from clickpipe.core.operator import Late, Operator
from clickpipe.core.option import Duration, argument, option
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.core.time import instants
from clickpipe.core.units import format_duration
from clickpipe.core.windows import WINDOW, newest_start, starts
from clickpipe.errors import PlanError, Unsupported

_MOST_WINDOWS = 1_000
_MOST_ROWS = 250_000  # of one batch of hopping windows
_LATER = {
    "session": "session windows are not in this version",
    "cumulate": "cumulating windows are not in this version",
    "count": "count windows are not in this version",
}


@dataclass(frozen=True)
class Window(OperatorStep):
    kind: str = argument("tumble or hop", metavar="KIND", example="tumble")
    size: Duration = argument("length of a window", metavar="SIZE", example="1m")
    slide: Duration | None = option(
        "hop: a new window starts this often", default=None, example="10s", aliases=("--advance", "--every")
    )
    offset: Duration = option("shift all windows by this much", default=Duration(0), example="2h")
    time: str | None = option("field that holds event time, where the stream does not say", default=None, metavar="FIELD")
    late: str | None = option(
        "file for late records, instead of late.ndjson in the state directory", default=None, metavar="FILE"
    )

    later = {
        "--allowed-lateness": "correcting fired windows is not in this version",
        "--grace": "correcting fired windows is not in this version",
        "--tz": "windows by a calendar are not in this version",
        "--by": "session windows are not in this version",
        "--max-duration": "session windows are not in this version",
    }
    epilog = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts | clickpipe window tumble 1h |
    clickpipe aggregate n='count(*)' | clickpipe sink -
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts | clickpipe window hop 6h --slide 3h |
    clickpipe aggregate n='count(*)' | clickpipe sink -"""

    def columns(self, given: Columns) -> Columns:
        self._check()
        name = self._time(given).name
        given.need([name], " for --time")
        if given.types[name] not in ("int", "float", "str", "time"):
            raise PlanError(f'column "{name}" is {given.types[name]}, which is no time', word=name)
        if given.is_hopping():
            raise PlanError("the records stand in several windows already: aggregate them first")
        for name in WINDOW:
            if given.types.get(name, "time") != "time":
                hint = f'rename it before: select --add "{name} AS old" --drop {name}'
                raise PlanError(f'the records have a field "{name}" already', hint=hint)
        window = WindowInfo(self.kind, self.size, self._slide())
        return replace(given, types=windowed(given.types), window=window, time=self._time(given), key=())

    def needs(self, given: Columns) -> tuple[str, ...]:
        return (self._time(given).name,) if set(WINDOW).isdisjoint(given.types) else tuple(given.types)

    def open(self, given: Columns, saved: Tables) -> Operator:
        return WindowOperator(self, given)

    def describe(self, given: Columns) -> str:
        slide = f" every {format_duration(self._slide())}" if self.slide else ""
        return f"{self.kind} {format_duration(self.size)}{slide} by {self._time(given).name}"

    def memory(self) -> str:
        copies = -(-self.size // self._slide())
        return f"{copies} times one batch" if copies > 1 else "one batch"

    def _slide(self) -> int:
        return self.slide or self.size

    def _time(self, given: Columns) -> TimeColumn:
        if self.time is not None:
            return TimeColumn(self.time, "auto")
        if given.time is None:
            raise PlanError(
                "no event time: the stream does not say which field it is",
                hint="name it: --time ts, here or at ingest",
                notes=["a tool such as jq may have taken out the lines that begin with a TAB, which say it"],
            )
        return given.time

    def _check(self) -> None:
        if self.kind in _LATER:
            raise Unsupported("notimpl", f"window {self.kind}", _LATER[self.kind], word=self.kind)
        if self.kind not in ("tumble", "hop"):
            raise PlanError(f'no window "{self.kind}"', notes=["there are: tumble, hop"], word=self.kind)
        if self.size <= 0:
            raise PlanError("a window must be longer than 0s")
        if self.kind == "tumble" and self.slide is not None:
            raise PlanError("tumbling windows do not slide", hint="hop SIZE --slide D does", word="--slide")
        if self.kind == "hop":
            self._check_slide()

    def _check_slide(self) -> None:
        if self.slide is None:
            raise PlanError("hop needs --slide", hint=f"as in: window hop {format_duration(self.size)} --slide 10s")
        if self.slide <= 0:
            raise PlanError("--slide must be longer than 0s", word="--slide")
        if self.slide > self.size:
            raise PlanError(
                f"--slide {format_duration(self.slide)} is longer than the window of {format_duration(self.size)}: "
                "records in between would stand in no window",
                word="--slide",
            )
        if self.size > self.slide * _MOST_WINDOWS:
            raise PlanError(f"each record would stand in {-(-self.size // self.slide):,} windows; {_MOST_WINDOWS:,} are allowed")


def windowed(types: Mapping[str, str]) -> dict[str, str]:
    """The columns with those of the window behind them, in place of an earlier window's."""
    return {name: kind for name, kind in types.items() if name not in WINDOW} | dict.fromkeys(WINDOW, "time")


class WindowOperator(Operator):
    def __init__(self, step: Window, given: Columns) -> None:
        self._size, self._slide, self._offset = int(step.size), step._slide(), int(step.offset)
        self._columns = step.columns(given)
        self._time = step._time(given)
        self._partly_late = 0

    def on_batch(self, batch: Batch) -> Iterable[Batch | Late]:
        columns = replace(self._columns, types=windowed(batch.columns.types))
        kind = batch.columns.types[self._time.name]
        instant = instants(batch.frame[self._time.name], kind, self._time.unit)
        if not set(WINDOW).isdisjoint(batch.columns.types):  # from finer windows to coarser ones
            batch = batch.replaced(batch.frame.drop(*WINDOW), batch.columns)
        newest = newest_start(instant, self._slide, self._offset).alias("window_start")
        gone = self._gone(batch, newest)
        if gone is not None:
            late = batch.keep(gone)
            yield Late(late.add(self._bounds(newest.filter(gone)), columns))
            batch, newest, instant = batch.keep(~gone), newest.filter(~gone), instant.filter(~gone)
        if self._slide == self._size:
            yield batch.add(self._bounds(newest), columns)
        else:
            yield from self._hopped(batch, newest, instant, columns)

    def take_partly_late(self) -> int:
        taken, self._partly_late = self._partly_late, 0
        return taken

    def _gone(self, batch: Batch, newest: pl.Series) -> pl.Series | None:
        """Which records have no open window left. Only marked ones can be late."""
        if "_mark" not in batch.frame.columns:
            return None
        gone = (newest + self._size <= batch.frame["_mark"]).fill_null(False)
        return gone if gone.any() else None

    def _bounds(self, start: pl.Series) -> pl.DataFrame:
        return pl.DataFrame([start.alias("window_start"), (start + self._size).alias("window_end")])

    def _hopped(self, batch: Batch, newest: pl.Series, instant: pl.Series, columns: Columns) -> Iterator[Batch]:
        """A row per record and window; some records at a time where they stand in many windows."""
        marked = "_mark" in batch.frame.columns
        base = batch.frame.select(
            pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"),
            pl.lit(instant).alias("time"),
            (pl.col("_mark") if marked else pl.lit(None, pl.Int64)).alias("mark"),
        ).with_columns(newest.alias("newest"))
        for some in base.iter_slices(max(1, _MOST_ROWS * self._slide // self._size)):
            opened = self._opened(some)
            is_newest = (opened["window_start"] == opened["newest"]).alias(NEWEST)
            yield batch.repeat(opened["row"]).add(self._bounds(opened["window_start"]).with_columns(is_newest), columns)

    def _opened(self, base: pl.DataFrame) -> pl.DataFrame:
        """The windows of these records that are still open, by record and start."""
        copies = pl.concat(
            base.select("row", "time", "mark", "newest", start.alias("window_start"))
            for start in starts(pl.col("newest"), self._size, self._slide)
        )
        holding = copies.filter(pl.col("window_start") + self._size > pl.col("time"))
        opened = holding.filter(pl.col("mark").is_null() | (pl.col("window_start") + self._size > pl.col("mark")))
        if opened.height < holding.height:
            lost = holding.join(opened, on=["row", "window_start"], how="anti")
            self._partly_late += lost["row"].n_unique()
        return opened.sort("row", "window_start")
