"""What an aggregate keeps between batches, and which rows it gives out when.

    Whole       no window: at the end of the input          (here)
    Fixed       tumble, hop, cumulate: when they end        (core/fixed.py)
    Sessions    when a gap has come                         (core/sessions.py)
    Counted     when there are enough records               (core/counted.py)

Rows have the columns of the window, those grouped by, and the values; where results are given more than once
also `rev`, `final` and `deleted`, as far as they say something.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from clickpipe.batch import Batch
from clickpipe.columns import WindowInfo
from clickpipe.core.aggregate import Aggregate, Exprs
from clickpipe.core.operator import FOREVER, Late
from clickpipe.core.summary import Call, Summary

REV, FINAL, DELETED = "rev", "final", "deleted"  # columns of results that are given more than once


@dataclass(frozen=True)
class Emit:
    """When rows are given out: `final`, also at each `update`, or `early`, each `every` ms of event time."""

    kind: str = "final"
    every: int = 0

    @property
    def is_once(self) -> bool:
        return self.kind == "final"


@dataclass(frozen=True)
class Grouping:
    """What is said: by which columns, which aggregates, over which windows, and when rows are given out."""

    by: tuple[str, ...]
    calls: Sequence[Call]
    window: WindowInfo | None = None
    emit: Emit = Emit()
    is_ordered: bool = False  # some aggregate asks which of two records came first


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


class Tally(Aggregate):
    """Counts records; of kind bool: those for which the argument is true."""

    def result(self) -> str:
        return "int"

    def partial(self, value: pl.Expr, time: pl.Expr) -> Exprs:
        return {"n": (pl.len() if self.kind == "*" else value.sum()).cast(pl.Int64)}

    def merge(self, piece: Mapping[str, pl.Expr]) -> Exprs:
        return {"n": piece["n"].sum()}

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        return piece["n"]


def tally(name: str, kind: str = "*") -> Call:
    return Call(name, Tally(kind), pl.lit(value=True))


class Changes:
    """Which groups have changed since they were last given out. Memory: one row per changed group."""

    def __init__(self, keys: Sequence[str], saved: pl.DataFrame | None = None) -> None:
        self._keys = list(keys)
        self._parts: list[pl.DataFrame] = [] if saved is None else [saved]
        self._rows = self._seen = 0

    def add(self, frame: pl.DataFrame) -> None:
        self._parts.append(frame.select(self._keys).unique())
        self._rows += self._parts[-1].height
        if self._rows > 2 * self._seen + _WORTH_MERGING:
            self._parts = [self.rows()]
            self._rows = self._seen = self._parts[0].height

    def rows(self) -> pl.DataFrame:
        return pl.concat(self._parts, how="vertical_relaxed").unique() if self._parts else pl.DataFrame()

    def take(self) -> pl.DataFrame:
        rows, self._parts, self._rows, self._seen = self.rows(), [], 0, 0
        return rows

    def __bool__(self) -> bool:
        return bool(self._parts)


_WORTH_MERGING = 50_000  # rows


class Whole(Groups):
    """No window."""

    def __init__(self, grouping: Grouping, saved: Mapping[str, pl.DataFrame]) -> None:
        self._by, self._emit = list(grouping.by), grouping.emit
        self._summary = Summary(self._by, grouping.calls, saved)
        self._fresh = Changes(self._by, saved.get("fresh"))
        self._has_changed = "fresh" in saved

    def add(self, batch: Batch, frame: pl.DataFrame, time: pl.Expr) -> Iterator[Late]:
        self._summary.add(frame, time)
        if not self._emit.is_once:
            self._has_changed = True
            if self._by:
                self._fresh.add(frame)
        return iter(())

    def widen(self, name: str) -> None:
        self._summary.widen(name)

    def fire(self, time: int) -> Iterator[pl.DataFrame]:
        if time >= FOREVER:
            yield self._told(self._summary.values(lambda rows: rows), final=True)

    def update(self) -> Iterator[pl.DataFrame]:
        if not self._has_changed:
            return
        changed, self._has_changed = self._fresh.take(), False
        if not self._by:
            yield self._told(self._summary.values(lambda rows: rows), final=False)
        elif changed.height:
            rows = self._summary.values(lambda rows: rows.join(changed, on=self._by, how="semi", nulls_equal=True))
            yield self._told(rows, final=False)

    def _told(self, rows: pl.DataFrame, *, final: bool) -> pl.DataFrame:
        return rows if self._emit.is_once else rows.with_columns(pl.lit(final).alias(FINAL))

    def snapshot(self) -> Mapping[str, pl.DataFrame]:
        fresh = {"fresh": self._fresh.rows()} if self._has_changed and self._by else {}
        return {**self._summary.snapshot(), **fresh}
