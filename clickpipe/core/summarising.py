"""The operator of aggregate, sketch and rollup: records -> arguments -> groups -> rows as they are given out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns, dtype
from clickpipe.core.agreed import Agreed, with_one_zero
from clickpipe.core.capped import Cap, Capped
from clickpipe.core.compute import as_json, compute, finite
from clickpipe.core.functions import least
from clickpipe.core.groups import CLOSED_BY, DELETED, GROUPING, REV, SET
from clickpipe.core.operator import FOREVER, Late, Operator
from clickpipe.core.step import Tables
from clickpipe.core.time import to_milliseconds
from clickpipe.core.windows import WINDOW
from clickpipe.errors import DataError

if TYPE_CHECKING:
    from clickpipe.core.summarise import Summarise

LOW, HIGH = "_lo", "_hi"  # behind the name of an estimate


class Summarising(Operator):
    def __init__(self, step: Summarise, given: Columns, saved: Tables) -> None:
        self._step, self._given = step, given
        self._columns = step.columns(given)
        self._widened = set(saved["widened"]["name"].to_list()) if "widened" in saved else set()
        self._grouping = step.grouping(given)
        self._calls = [call.wide() if call.name in self._widened else call for call in self._grouping.calls]
        self.most_rows = least(call.most_rows for call in self._calls)
        self._integers = {call.name for call in self._calls if call.aggregate.kind == "int"}
        self._widening = {call.name for call in self._calls if call.aggregate.widens}
        self._is_timed = any(call.aggregate.ordered_by == "time" for call in self._calls)
        self._window = self._grouping.window
        keys = step.kept_by(given)
        self._needed = list(dict.fromkeys([*keys, *self._time_name()]))
        self._agreed = Agreed(keys, saved)
        self._open(saved)
        self._is_empty = not saved
        self._is_idle = False

    def _open(self, saved: Tables) -> None:
        self._capped = None
        if self._step.max_groups is not None:
            window, lateness = (tuple(WINDOW), self._window.lateness) if self._window else ((), 0)
            cap = Cap(self._step.max_groups, self._step.overflow, tuple(dict.fromkeys(self._step.by)), window, lateness)
            self._capped = Capped(cap, saved)
        self._groups = self._step.groups(replace(self._grouping, calls=self._calls), saved)

    def on_batch(self, batch: Batch) -> Iterable[Batch | Late | Dead]:
        batch, inputs, dead = compute(batch, self._inputs())
        if dead:
            yield dead
        if batch.height:
            yield from self._add(batch, inputs)

    def _inputs(self) -> list[pl.Expr]:
        """The arguments, computed once; an expression that a value refuses makes a dead letter of its record."""
        return [expr for call in self._calls for expr in call.inputs()]

    def _add(self, batch: Batch, inputs: pl.DataFrame) -> Iterable[Late]:
        frame = self._frame(batch, inputs)
        for name in [name for name in self._integers if inputs.schema[f"\0{name}"].is_float()]:
            self._widen(name)
        if self._capped:
            frame = self._capped.admit(frame)
        self._is_empty = False
        return self._groups.add(batch, frame, self._time(batch))

    def _frame(self, batch: Batch, inputs: pl.DataFrame) -> pl.DataFrame:
        """What is needed of the records; -0.0 is 0.0."""
        marked = ["_mark"] if self._window is not None and "_mark" in batch.frame.columns else []
        columns = [*self._needed, *marked]
        frame = batch.frame.select(columns).hstack(inputs) if columns else inputs
        if not frame.width:
            return pl.DataFrame(height=batch.height)
        if self._agreed.learns(frame):
            self._open(self._agreed.tables(self.snapshot()))
        return with_one_zero(self._agreed.wide(frame))

    def _widen(self, name: str) -> None:
        """The argument of this call has turned out to hold floats."""
        self._groups.widen(name)
        self._calls = [call.wide() if call.name == name else call for call in self._calls]
        self._integers.discard(name)
        self._widened.add(name)

    def _time_name(self) -> list[str]:
        return [self._given.time.name] if self._given.time and self._is_timed else []

    def _time(self, batch: Batch) -> pl.Expr:
        if not self._time_name() or self._given.time is None:
            return pl.lit(0, pl.Int64)
        name = self._given.time.name
        types = {**self._given.types, **batch.columns.types}
        return to_milliseconds(pl.col(name), types[name], self._given.time.unit)

    def on_idle(self) -> None:
        self._is_idle = True

    def on_watermark(self, time: int) -> Iterable[Batch]:
        closed_by = "end" if time >= FOREVER else "idle" if self._is_idle else "watermark"
        self._is_idle = False
        if time >= FOREVER:
            self._count_nothing()
        yield from self._batches(self._groups.fire(time), closed_by)
        if self._capped:
            self._capped.let_go(time)

    def on_update(self) -> Iterable[Batch]:
        if self._step.emit == "update":
            yield from self._batches(self._groups.update(), None)

    def _count_nothing(self) -> None:
        """No records and no key: there is one row all the same, as in SQL."""
        if self._is_empty and self._window is None and not self._step.by:
            empty = pl.DataFrame(schema=self._given.schema(self._step.needs(self._given)))
            list(self._add(Batch(empty, self._given), empty.select(self._inputs())))

    def _batches(self, found: Iterable[pl.DataFrame], closed_by: str | None) -> Iterable[Batch]:
        return (self._batch(rows, closed_by) for rows in found if rows.height)

    def _batch(self, rows: pl.DataFrame, closed_by: str | None) -> Batch:
        types = dict(self._columns.types)
        rows = finite(self._as_given(rows))
        for name, kind in types.items():
            if name not in rows.columns:
                rows = rows.with_columns(_left_out(name, kind, closed_by))
            elif kind == "int" and rows.schema[name] == pl.Int128:
                rows = rows.with_columns(_in_64_bits(rows[name], widens=name in self._widening))
            if kind == "int" and rows.schema[name].is_float():
                types[name] = "float"
        keys = [
            *(("window_end", "window_start") if self._window else ()),
            *([SET] if SET in rows.columns else []),
            *self._columns.key,
        ]
        rows = rows.sort(list(dict.fromkeys(keys))) if keys else rows
        return Batch(self._topped(rows.select(*types)), replace(self._columns, types=types))

    def _as_given(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Values per second, with bounds, and as JSON, where they are to be."""
        seconds = (pl.col("window_end") - pl.col("window_start")) / 1000
        rows = rows.with_columns(pl.col(call.name) / seconds for call in self._calls if call.aggregate.per_second)
        for call in self._calls:
            if self._step.has_bounds() and (bounds := call.aggregate.bounds(pl.col(call.name))):
                rows = rows.with_columns(end.alias(call.name + side) for end, side in zip(bounds, (LOW, HIGH), strict=True))
        return rows.with_columns(as_json(name) for name, type_ in rows.schema.items() if type_.is_nested())

    def _topped(self, rows: pl.DataFrame) -> pl.DataFrame:
        first = self._step.first()
        if first is None:
            return rows
        ranked = rows.sort(pl.col(first.name), descending=first.is_greatest, nulls_last=True, maintain_order=True)
        window = [
            *(("window_end", "window_start", *self._window.by) if self._window else ()),
            *([GROUPING] if self._step.also else []),
        ]
        if not window:
            return ranked.head(first.count)
        found = ranked.group_by(window, maintain_order=True).head(first.count).select(rows.columns)
        places = rows.select(window).unique(maintain_order=True).with_row_index(SET)
        return found.join(places, on=window, nulls_equal=True, maintain_order="left").sort(SET, maintain_order=True).drop(SET)

    def snapshot(self) -> Tables:
        widened = {"widened": pl.DataFrame({"name": sorted(self._widened)})} if self._widened else {}
        known = self._capped.snapshot() if self._capped else {}
        return {**self._groups.snapshot(), **widened, **known}


def _left_out(name: str, kind: str, closed_by: str | None) -> pl.Expr:
    """A column that says nothing of these rows, or is the same for all."""
    value = {CLOSED_BY: closed_by, DELETED: False, REV: 0}.get(name)
    return pl.lit(value, dtype(kind)).alias(name)


def _in_64_bits(wide: pl.Series, *, widens: bool) -> pl.Series:
    values = wide.cast(pl.Int64, strict=False)
    if values.null_count() == wide.null_count():
        return values
    if widens:
        return wide.cast(pl.Float64)
    raise DataError(
        f"{wide.name} leaves 64 bits: a sum of integers became too large", hint="sum doubles instead: sum(CAST(x AS DOUBLE))"
    )
