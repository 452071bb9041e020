"""Aggregation by fixed windows: kept by stretch, given out by window.

    records --> pieces per stretch and key --watermark--> pieces of all stretches of a window, merged --> a row

So a record costs the same however many windows hold it. After `lateness` a window can be corrected no more and its stretches
are let go. A row's `rev` is the number of its records that came when it had been given out.

Memory: one row per key and stretch of an open window.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import polars as pl

from clickpipe.batch import Batch
from clickpipe.columns import HIDDEN, WindowInfo
from clickpipe.core.groups import REV, Grouping, Groups
from clickpipe.core.operator import FOREVER, Late
from clickpipe.core.summary import Select, Summary, Table
from clickpipe.core.tally import tally, tally_piece
from clickpipe.core.windows import END, START, WINDOW, Windows
from clickpipe.errors import OursError

_FIRED = HIDDEN + "fired"  # of late records: up to which instant windows had been given out
_MOST_ROWS = 2_000_000  # pieces that are put together at once


class Fixed(Groups):
    def __init__(self, grouping: Grouping, saved: Mapping[str, pl.DataFrame]) -> None:
        assert grouping.window is not None
        self._windows, self._info, self._grouping = Windows(grouping.window), grouping.window, grouping
        self._by = [name for name in grouping.by if name not in WINDOW]
        self._emit, self._is_corrected = grouping.emit, grouping.window.lateness > 0
        self._is_ordered = grouping.is_ordered
        # All plain windows are equally long: the start tells the end, and one key less is grouped by.
        self._is_plain = grouping.window.kind == "tumble" and grouping.window.zone is None and not self._is_corrected
        self._stretch = ["window_start"] if self._is_plain else list(WINDOW)
        keys = [*self._stretch, *([_FIRED] if self._is_corrected else []), *self._by]
        calls = [*grouping.calls, *([tally(REV)] if self._is_corrected else [])]
        is_even = grouping.window.kind != "cumulate" and grouping.window.size % grouping.window.slide == 0
        self._implied = [name for name in keys if (name == "window_end" and is_even) or name == _FIRED]
        self._summary = Summary(keys, calls, saved)
        # Groups to which late records have come, and those that have changed, since they were given out.
        self._late = Table([*WINDOW, *self._by], [], saved.get("late"))
        self._changed = Table([*WINDOW, *self._by], [], saved.get("fresh"))
        self._fired = int(saved["fired"].item()) if "fired" in saved else None
        self._next: int | None = -FOREVER if self._summary.groups().width else None  # no window is given out before

    def widen(self, name: str) -> None:
        self._summary.widen(name)

    def add(self, batch: Batch, frame: pl.DataFrame, time: pl.Expr) -> Iterator[Late]:
        behind = self._behind(frame)
        if behind is not None:
            yield Late(batch.keep(behind), "behind")
            frame = frame.filter(~behind)
        if not frame.height:
            return
        # Where windows begin and end together the start decides the rest, but for records that come too late for some of theirs.
        has_late = "_mark" in frame.columns and frame["_mark"].null_count() < frame.height
        if self._is_corrected:
            frame = self._marked(frame)
        self._summary.add(frame, time, () if self._is_plain or has_late else self._implied)
        self._note(frame)

    def _note(self, rows: pl.DataFrame) -> None:
        """Which groups have changed, and when the next window ends."""
        if self._is_corrected:
            late = rows.filter(pl.col(_FIRED).is_not_null())
            if late.height:
                self._late.add(late, pl.lit(0))
        if not self._emit.is_once:
            self._changed.add(rows, pl.lit(0))
        first = rows["window_end"].min()
        assert isinstance(first, int)
        self._next = first if self._next is None else min(self._next, first)

    def take_pieces(self, time: int | None) -> Mapping[str, pl.DataFrame]:
        self._fired = self._fired if time is None else time
        self._late.take()
        return self._summary.take()

    def add_pieces(self, pieces: Mapping[str, pl.DataFrame], narrow: Collection[str]) -> None:
        self._summary.absorb(pieces, narrow)
        for rows in pieces.values():
            rows = with_ends(rows, self._info)
            if self._behind(rows) is not None:
                raise OursError("pieces came of windows that have been given out: a worker has said a watermark too soon")
            self._note(rows)

    def _behind(self, frame: pl.DataFrame) -> pl.Series | None:
        """Records whose windows have been let go. No stream of ours has any: a tool moved them past their watermark."""
        if self._fired is None or not frame.height:
            return None
        least = frame["window_end"].min()
        if isinstance(least, int) and least + self._info.lateness > self._fired:
            return None
        behind = self._windows.last_ends(frame["window_start"]) + self._info.lateness <= self._fired
        return behind if behind.any() else None

    def _marked(self, frame: pl.DataFrame) -> pl.DataFrame:
        """With what had been given out when a late record came."""
        if "_mark" not in frame.columns:
            return frame.with_columns(pl.lit(None, pl.Int64).alias(_FIRED))
        fired = self._windows.fired(frame["_mark"])
        return frame.with_columns(fired.zip_with(fired >= frame["window_end"], pl.Series([None], dtype=pl.Int64)).alias(_FIRED))

    # What is given out.

    def fire(self, time: int) -> Iterator[pl.DataFrame]:
        before, self._fired = self._fired, time
        late = self._late.take()
        if before is not None and late.height:
            yield from self._corrected(late, before)
        if self._next is not None and time >= self._next:
            yield from self._due(-FOREVER if before is None else before, time)
            self._let_go(time)
        if self._emit.is_due(before, time):
            yield from self.update()

    def _due(self, above: int, upto: int) -> Iterator[pl.DataFrame]:
        """All rows of the windows that have ended since."""
        if self._is_plain:
            closed = pl.col("window_start") <= upto - self._info.size
            yield self._told(self._sets(lambda rows: rows.filter(closed)), final=True)
            return
        for spread in self._spread(above, upto):
            yield self._told(self._values(spread), final=True)

    def _spread(self, above: int, upto: int) -> Iterator[pl.DataFrame]:
        """The windows that ended then, with their stretches; some at a time, where they are many."""
        if not self._windows.are_stretches:
            self._summary.merge()
        sizes = self._summary.groups().group_by(WINDOW).agg(pl.len().cast(pl.Int64).alias(HIDDEN + "rows"))
        spread = self._windows.spread(sizes.select(WINDOW), above, upto)
        if not spread.height:
            return
        counted = spread.join(sizes, on=WINDOW).group_by(START, END).agg(pl.col(HIDDEN + "rows").sum()).sort(END, START)
        lot = (pl.col(HIDDEN + "rows").cum_sum() // _MOST_ROWS).alias(HIDDEN + "lot")
        for part in counted.with_columns(lot).partition_by(HIDDEN + "lot", maintain_order=True):
            yield spread.join(part.select(START, END), on=[START, END], how="semi")

    def _values(self, spread: pl.DataFrame) -> pl.DataFrame:
        """The rows of these windows, put together from their stretches."""
        if self._windows.are_stretches and not self._is_corrected:
            return self._sets(lambda rows: rows.join(spread, on=WINDOW, how="semi", maintain_order="left"))

        def put_together(rows: pl.DataFrame) -> pl.DataFrame:
            if self._is_ordered:  # of records of one instant those came first that had missed less
                rows = rows.sort("window_end", *([_FIRED] if self._is_corrected else []), maintain_order=True)
            rows = rows.join(spread, on=WINDOW, maintain_order="left" if self._is_ordered else None)
            if tally_piece(REV) in rows.columns:
                had_fired = pl.col(_FIRED).fill_null(-FOREVER) >= pl.col(END)
                rows = rows.with_columns(pl.when(had_fired).then(tally_piece(REV)).otherwise(0).alias(tally_piece(REV)))
            return rows.with_columns(pl.col(START).alias("window_start"), pl.col(END).alias("window_end"))

        return self._sets(put_together, [*WINDOW, *self._by])

    def _sets(self, select: Select, keys: list[str] | None = None) -> pl.DataFrame:
        """The values of what is selected, by each set of columns."""
        window = self._stretch if keys is None else WINDOW
        return self._grouping.with_sets(lambda by: self._summary.values(select, keys if by is None else [*window, *by]))

    def _corrected(self, late: pl.DataFrame, upto: int) -> Iterator[pl.DataFrame]:
        """Rows that had been given out, and to which records have come since."""
        groups = self._windows_of(late, -FOREVER, upto)
        if not groups.height:
            return
        least = groups["window_end"].min()
        assert isinstance(least, int)
        for spread in self._spread(least - 1, upto):
            yield self._told(self._only(self._values(spread), groups), final=True)

    def update(self) -> Iterator[pl.DataFrame]:
        changed = self._changed.take()
        if not changed.height:
            return
        above = -FOREVER if self._fired is None else self._fired
        groups = self._windows_of(changed, above, FOREVER)
        if self._is_plain:
            rows = self._summary.values(lambda rows: self._only(rows, groups))
            yield self._told(rows, final=False)
            return
        for spread in self._spread(above, FOREVER):
            yield self._told(self._only(self._values(spread), groups), final=False)

    def _windows_of(self, changed: pl.DataFrame, above: int, upto: int) -> pl.DataFrame:
        """Changed groups by stretch -> by window."""
        spread = self._windows.spread(changed.select(WINDOW).unique(), above, upto)
        bounds = [pl.col(START).alias("window_start"), pl.col(END).alias("window_end")]
        return changed.join(spread, on=WINDOW).with_columns(bounds).select(*WINDOW, *self._by).unique()

    def _only(self, rows: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
        return rows.join(groups, on=[*self._stretch, *self._by], how="semi", nulls_equal=True) if rows.height else rows

    def _told(self, rows: pl.DataFrame, *, final: bool) -> pl.DataFrame:
        if self._is_plain and rows.height:
            rows.insert_column(1, (rows["window_start"] + self._info.size).alias("window_end"))
        return self._emit.told(rows, final=final)

    def _let_go(self, time: int) -> None:
        """Of stretches whose windows have all gone; and see when the next window ends."""
        if self._is_plain:
            kept = pl.col("window_start") > time - self._info.size
            self._summary.keep(lambda rows: rows.filter(kept))
            start = self._summary.groups()["window_start"].min()
            self._next = None if not isinstance(start, int) else start + self._info.size
            return
        stretches = self._summary.groups().select(WINDOW).unique()
        last = self._windows.last_ends(stretches["window_start"])
        gone = stretches.filter(last + self._info.lateness <= time)
        if gone.height:
            self._summary.keep(lambda rows: rows.join(gone, on=WINDOW, how="anti", maintain_order="left"))
        coming = stretches.filter(last > time)
        ends = self._windows.ends(coming["window_start"], coming["window_end"].clip(lower_bound=time + 1) - 1)
        first = ends.min()
        self._next = first if isinstance(first, int) else self._next_to_let_go(stretches, last, time)

    def _next_to_let_go(self, stretches: pl.DataFrame, last: pl.Series, time: int) -> int | None:
        """All that is left has been given out, and waits for corrections only."""
        first = (last + self._info.lateness).filter(last + self._info.lateness > time).min()
        return first if isinstance(first, int) else None

    def snapshot(self) -> Mapping[str, pl.DataFrame]:
        changes = {name: rows for name, some in (("late", self._late), ("fresh", self._changed)) if (rows := some.rows()).width}
        fired = {} if self._fired is None else {"fired": pl.DataFrame({"fired": [self._fired]})}
        return {**self._summary.snapshot(), **changes, **fired}


def with_ends(rows: pl.DataFrame, window: WindowInfo) -> pl.DataFrame:
    """Pieces with the end of their stretch, also where the start tells it."""
    return rows if "window_end" in rows.columns else rows.with_columns((pl.col("window_start") + window.size).alias("window_end"))
