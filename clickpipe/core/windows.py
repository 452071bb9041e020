"""Fixed windows: start inclusive, end exclusive, aligned to the epoch in UTC or to a zone's calendar.

A record stands in one row, however many windows hold it: its row has the stretch that all of them have in common.

    hop 10m --slide 4m, a record at 12:09       cumulate 1d --step 6h, a record at 07:00
    12:00 |--------------------| 12:10          00:00 |-------| 06:00    (does not hold it)
         12:04 |--------------------| 12:14     00:00 |---------------| 12:00
               12:08 |--------------------|     00:00 |-----------------------| 18:00
                     |-| 12:08 to 12:10         00:00 |---------------| 12:00

Every window that begins at or before that stretch and ends at or after it holds the record, and no other. What a record
comes too late for is left out the same way: the stretch then reaches to the first window end that is still open.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from clickpipe.columns import HIDDEN, WindowInfo
from clickpipe.core.zone import ZoneGrid

WINDOW = ("window_start", "window_end")
NUMBER = "window_number"  # of a count window: how manieth of its key
FIXED = ("tumble", "hop", "cumulate")
_MOST_HELD = 10_000
START, END = HIDDEN + "start", HIDDEN + "end"  # of a window, beside the stretch that it reaches over


class Grid:
    """Adjoining stretches of `size`, shifted by `offset`. Floor division, before 1970 too. Unit: milliseconds."""

    def __init__(self, size: int, offset: int) -> None:
        self._size, self._shift = size, offset % size

    def before(self, times: pl.Series) -> pl.Series:
        """The last boundary at or before each instant."""
        if not self._shift:
            return times // self._size * self._size
        return (times - self._shift) // self._size * self._size + self._shift

    def after(self, times: pl.Series) -> pl.Series:
        """The first boundary after each instant."""
        return self.before(times) + self._size


def grid(size: int, offset: int, zone: str | None) -> Grid | ZoneGrid:
    return Grid(size, offset) if zone is None else ZoneGrid(size, offset, zone)


class Windows:
    """The fixed windows of a stream."""

    def __init__(self, info: WindowInfo) -> None:
        self.info = info
        self._starts = grid(info.size if info.kind == "cumulate" else info.slide, info.offset, info.zone)
        self._ends = grid(info.slide, info.offset + (info.size if info.kind == "hop" else 0), info.zone)
        self._held: dict[int, list[tuple[int, int]]] = {}

    @property
    def are_stretches(self) -> bool:
        """Whether each stretch is a window of its own."""
        return self.info.kind == "tumble"

    def starts(self, times: pl.Series) -> pl.Series:
        """Where each record's stretch begins: the start of the newest window that holds it."""
        return self._starts.before(times).alias("window_start")

    def ends(self, start: pl.Series, times: pl.Series) -> pl.Series:
        """Where the stretch ends that begins there: at the first end of a window after an instant."""
        if self.info.kind == "tumble":
            return self._starts.after(start).alias("window_end")
        end = self._ends.after(times)
        if self.info.kind == "cumulate":
            last = self._starts.after(start)
            end = end.zip_with(end < last, last)
        return end.alias("window_end")

    def fired(self, marks: pl.Series) -> pl.Series:
        """The last of the instants at which windows end that a watermark has reached."""
        return (self._starts if self.info.kind == "tumble" else self._ends).before(marks)

    def last_ends(self, start: pl.Series) -> pl.Series:
        """Where the last of the windows ends that hold a stretch that begins there."""
        if self.info.kind != "hop":
            return self._starts.after(start)
        if self.info.zone is None:
            return start + self.info.size
        return _by_value(start, lambda one: max(end for _, end in self._holding(one)))

    def spread(self, stretches: pl.DataFrame, above: int, upto: int) -> pl.DataFrame:
        """The windows with above < end <= upto that hold each of these stretches.

        Shape: window_start and window_end of a stretch, START and END of a window; a row for each pair.
        """
        if self.info.kind == "tumble":
            found = stretches.with_columns(pl.col("window_start").alias(START), pl.col("window_end").alias(END))
        elif self.info.zone is not None:
            rows = [(*one, *window) for one in stretches.iter_rows() for window in self._over(*one)]
            found = pl.DataFrame(rows, schema=dict.fromkeys((*WINDOW, START, END), pl.Int64), orient="row")
        elif self.info.kind == "hop":
            found = self._hopping(stretches, above, upto)
        else:
            found = self._cumulating(stretches, above, upto)
        return found.filter(pl.col(END) > above, pl.col(END) <= upto)

    def _hopping(self, stretches: pl.DataFrame, above: int, upto: int) -> pl.DataFrame:
        size, slide = self.info.size, self.info.slide
        newest = pl.col("window_start")
        # Back from the newest start, as far as a window reaches over the stretch and is asked for.
        skipped = (-((upto - newest - size) // slide)).clip(0)
        most = pl.min_horizontal(newest + size - pl.col("window_end"), newest + size - above - 1) // slide
        steps = pl.int_ranges(skipped, most + 1)
        spread = stretches.with_columns(step=steps).filter(pl.col("step").list.len() > 0).explode("step")
        start = newest - pl.col("step") * slide
        return spread.select(*WINDOW, start.alias(START), (start + size).alias(END))

    def _cumulating(self, stretches: pl.DataFrame, above: int, upto: int) -> pl.DataFrame:
        step = self.info.slide
        last = pl.min_horizontal(pl.col("window_start") + self.info.size, pl.lit(upto))
        steps = pl.int_ranges(0, (last - pl.col("window_end")) // step + 1)
        spread = stretches.with_columns(step=steps).filter(pl.col("step").list.len() > 0).explode("step")
        end = pl.col("window_end") + pl.col("step") * step
        return spread.select(*WINDOW, pl.col("window_start").alias(START), end.alias(END))

    def _over(self, start: int, end: int) -> list[tuple[int, int]]:
        """By a calendar: the windows over a stretch."""
        return [window for window in self._holding(start) if window[1] >= end]

    def _holding(self, start: int) -> list[tuple[int, int]]:
        if start not in self._held:
            self._held = self._held if len(self._held) < _MOST_HELD else {}
            self._held[start] = self._held_by(start)
        return self._held[start]

    def _held_by(self, start: int) -> list[tuple[int, int]]:
        info = self.info
        assert info.zone is not None
        if info.kind == "hop":
            return ZoneGrid(info.slide, info.offset, info.zone).holding(start, info.size)
        last = self.last_ends(pl.Series([start]))[0]
        ends = [start]
        while ends[-1] < last:
            ends.append(self._ends.after(pl.Series([ends[-1]]))[0])
        return [(start, end) for end in ends[1:]]


def _by_value(values: pl.Series, look_up: Callable[[int], int]) -> pl.Series:
    """What is to be computed once for each of a few different values."""
    different = values.drop_nulls().unique()
    found = pl.Series([look_up(value) for value in different.to_list()], dtype=pl.Int64)
    return values.replace_strict(different, found, default=None, return_dtype=pl.Int64)
