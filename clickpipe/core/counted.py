"""Aggregation by count windows: every N records of a key, in the order of their arrival.

A window is given out when its last record has come, or one of the next window, or the end.
Memory: one row per key and open window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from clickpipe.batch import Batch
from clickpipe.columns import HIDDEN
from clickpipe.core.extreme import Greatest, Least
from clickpipe.core.groups import Grouping, Groups
from clickpipe.core.operator import FOREVER, Late
from clickpipe.core.summary import Call, Summary
from clickpipe.core.tally import tally, tally_piece
from clickpipe.core.windows import NUMBER, WINDOW

_COUNT = HIDDEN + "count"


class Counted(Groups):
    def __init__(self, grouping: Grouping, saved: Mapping[str, pl.DataFrame]) -> None:
        assert grouping.window is not None
        self._size, self._of = grouping.window.size, list(grouping.window.by)
        self._by = [*self._of, NUMBER, *(name for name in grouping.by if name not in (*self._of, NUMBER, *WINDOW))]
        bounds = [Call("window_start", Least("int"), pl.lit(0)), Call("window_end", Greatest("int"), pl.lit(0))]
        self._order = [*WINDOW, *self._by, *(call.name for call in grouping.calls)]
        self._summary = Summary(self._by, [*grouping.calls, *bounds, tally(_COUNT)], saved)
        self._has_changed = bool(saved)

    def widen(self, name: str) -> None:
        self._summary.widen(name)

    def add(self, batch: Batch, frame: pl.DataFrame, time: pl.Expr) -> Iterator[Late]:
        frame = frame.with_columns(pl.col(name).alias(HIDDEN + name) for name in WINDOW)
        self._summary.add(frame, time)
        self._has_changed = True
        return iter(())

    def fire(self, time: int) -> Iterator[pl.DataFrame]:
        if not self._has_changed and time < FOREVER:
            return
        self._has_changed = False
        groups = self._summary.groups()
        if not groups.width:
            return
        ended = self._ended(groups) if time < FOREVER else groups.select(*self._of, NUMBER).unique()
        if not ended.height:
            return
        on = [*self._of, NUMBER]
        yield self._summary.values(
            lambda rows: rows.join(ended, on=on, how="semi", nulls_equal=True, maintain_order="left")
        ).select(self._order)
        self._summary.keep(lambda rows: rows.join(ended, on=on, how="anti", nulls_equal=True, maintain_order="left"))

    def _ended(self, groups: pl.DataFrame) -> pl.DataFrame:
        """Windows that are full, or after which others have begun."""
        sizes = groups.group_by(*self._of, NUMBER).agg(pl.col(tally_piece(_COUNT)).sum().alias(_COUNT))
        newest = pl.col(NUMBER).max().over(self._of) if self._of else pl.col(NUMBER).max()
        return sizes.filter((pl.col(_COUNT) >= self._size) | (pl.col(NUMBER) < newest)).drop(_COUNT)

    def snapshot(self) -> Mapping[str, pl.DataFrame]:
        return self._summary.snapshot()
