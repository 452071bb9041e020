"""What an aggregate keeps between batches, and which rows it gives out when.

    Whole       no window: at the end of the input          (here)
    Fixed       tumble, hop, cumulate: when they end        (core/fixed.py)
    Sessions    when a gap has come                         (core/sessions.py)
    Counted     when there are enough records               (core/counted.py)

Rows have the columns of the window, those grouped by, and the values; where results are given more than once
also `rev`, `final` and `deleted`, as far as they say something.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from clickpipe.batch import Batch
from clickpipe.columns import HIDDEN, WindowInfo
from clickpipe.core.capped import OTHER
from clickpipe.core.operator import FOREVER, Late
from clickpipe.core.summary import Call, Summary, Table

REV, FINAL, DELETED = "rev", "final", "deleted"  # columns of results that are given more than once
CLOSED_BY = "closed_by"  # column: whether records, the clock or the end have closed a window
GROUPING = "grouping"  # column: by which columns a row is grouped, where there are several sets of them
SET = HIDDEN + "set"  # which of the sets it is


@dataclass(frozen=True)
class Emit:
    """When rows are given out: `final`, also at each `update`, or `early`, each `every` ms of event time."""

    kind: str = "final"
    every: int = 0

    @property
    def is_once(self) -> bool:
        return self.kind == "final"

    def is_due(self, before: int | None, now: int) -> bool:
        """Whether the watermark has moved over a multiple of `every`."""
        return self.kind == "early" and before is not None and now < FOREVER and now // self.every > before // self.every

    def told(self, rows: pl.DataFrame, *, final: bool) -> pl.DataFrame:
        """Where rows are given more than once, with what they are now."""
        return rows if self.is_once else rows.with_columns(pl.lit(final).alias(FINAL))


@dataclass(frozen=True)
class Grouping:
    """What is said: by which columns, which aggregates, over which windows, and when rows are given out."""

    by: tuple[str, ...]
    calls: Sequence[Call]
    window: WindowInfo | None = None
    emit: Emit = Emit()
    is_ordered: bool = False  # some aggregate asks which of two records came first
    also: tuple[tuple[str, ...], ...] = ()  # by which of the columns too

    def with_sets(self, values: Callable[[tuple[str, ...] | None], pl.DataFrame]) -> pl.DataFrame:
        """The rows by all columns, and those by each other set of them. `values`: the rows by some columns; None: by all."""
        if not self.also:
            return values(None)
        found = []
        for place, by in enumerate((None, *self.also)):
            named = [name for name in (self.by if by is None else by) if name != OTHER]
            found.append(values(by).with_columns(pl.lit(",".join(named) or "total").alias(GROUPING), pl.lit(place).alias(SET)))
        return pl.concat(found, how="diagonal_relaxed")


class Groups:
    def add(self, batch: Batch, frame: pl.DataFrame, time: pl.Expr) -> Iterator[Late]:
        """Records, and those among them that come too late. `frame`: what is needed of them, and the aggregates' arguments."""
        raise NotImplementedError

    def widen(self, name: str) -> None:
        """The argument of this aggregate has turned out to hold floats."""
        raise NotImplementedError

    def fire(self, time: int) -> Iterator[pl.DataFrame]:
        """The rows that are due when the watermark has come to `time`."""
        raise NotImplementedError

    def update(self) -> Iterator[pl.DataFrame]:
        """What has changed since it was given out, and is not final."""
        return iter(())

    def snapshot(self) -> Mapping[str, pl.DataFrame]:
        raise NotImplementedError

    # In two phases (core/two_phase.py).

    def take_pieces(self, time: int | None) -> Mapping[str, pl.DataFrame]:
        """The pieces of what has come since the last call, by their tables. `time`: where the watermark has come to."""
        raise NotImplementedError

    def add_pieces(self, pieces: Mapping[str, pl.DataFrame], narrow: Collection[str]) -> None:
        """What others have taken. `narrow`: aggregates that were of integers there, and are of floats here."""
        raise NotImplementedError


class Whole(Groups):
    """No window."""

    def __init__(self, grouping: Grouping, saved: Mapping[str, pl.DataFrame]) -> None:
        self._by, self._emit, self._grouping = list(grouping.by), grouping.emit, grouping
        self._summary = Summary(self._by, grouping.calls, saved)
        self._changed = Table(self._by, [], saved.get("fresh"))
        self._has_changed = "fresh" in saved

    def add(self, batch: Batch, frame: pl.DataFrame, time: pl.Expr) -> Iterator[Late]:
        self._summary.add(frame, time)
        self._note(frame)
        return iter(())

    def _note(self, rows: pl.DataFrame) -> None:
        if not self._emit.is_once:
            self._has_changed = True
            if self._by:
                self._changed.add(rows, pl.lit(0))

    def take_pieces(self, time: int | None) -> Mapping[str, pl.DataFrame]:
        return self._summary.take()

    def add_pieces(self, pieces: Mapping[str, pl.DataFrame], narrow: Collection[str]) -> None:
        self._summary.absorb(pieces, narrow)
        for rows in pieces.values():
            self._note(rows)

    def widen(self, name: str) -> None:
        self._summary.widen(name)

    def fire(self, time: int) -> Iterator[pl.DataFrame]:
        if time >= FOREVER:
            rows = self._grouping.with_sets(lambda by: self._summary.values(lambda rows: rows, by))
            yield self._emit.told(rows, final=True)

    def update(self) -> Iterator[pl.DataFrame]:
        if not self._has_changed:
            return
        changed, self._has_changed = self._changed.take(), False
        if not self._by:
            yield self._emit.told(self._summary.values(lambda rows: rows), final=False)
        elif changed.height:
            rows = self._summary.values(
                lambda rows: rows.join(changed, on=self._by, how="semi", nulls_equal=True, maintain_order="left")
            )
            yield self._emit.told(rows, final=False)

    def snapshot(self) -> Mapping[str, pl.DataFrame]:
        fresh = {"fresh": self._changed.rows()} if self._has_changed and self._by else {}
        return {**self._summary.snapshot(), **fresh}
