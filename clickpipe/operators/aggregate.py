"""Summarise records per window and key.

Shape: window_start and window_end after a window, the --by columns, the named aggregates.
Order: windows by their end; within one by key. A window's rows appear once, when the watermark
has passed its end; without a window all rows appear at the end of the input.
Memory: one row per open window and key; count(DISTINCT) one row per value too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import NUMBERS, Columns, TimeColumn, check_new
from clickpipe.core.aggregate import Aggregate as Function
from clickpipe.core.calls import Named, parse_call
from clickpipe.core.catalog import Catalog
from clickpipe.core.compute import compute, finite
from clickpipe.core.operator import FOREVER, Late, Operator
from clickpipe.core.option import Names, argument, option
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.core.summary import Call, Summary
from clickpipe.core.time import to_milliseconds
from clickpipe.core.windows import WINDOW
from clickpipe.errors import DataError, PlanError, Unsupported
from clickpipe.sql import Expression, compile, predicate

FUNCTIONS = Catalog("clickpipe.aggregates", "aggregate", "_")


@dataclass(frozen=True)
class Aggregate(OperatorStep):
    calls: tuple[str, ...] = argument("aggregates with names", metavar="NAME=EXPR", example="clicks='count(*)'")
    by: Names = option("group by these columns too", default=(), metavar="COL,…", example="page,country")
    emit: str = option("when a window's rows appear", default="final", choices=("final",))
    top: int | None = option("only the first N rows of each window, by --order", default=None, metavar="N", example="10")
    order: str | None = option(
        "column that --top orders by, greatest first; the first aggregate by default", default=None, metavar="NAME"
    )

    outcome = "aggregated"
    epilog = """\
Functions: count(*) count(x) count(DISTINCT x) sum avg min max var stddev first last; each takes FILTER (WHERE …).

Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst |
    clickpipe aggregate --by event n='count(*)' ms='avg(latency_ms)' | clickpipe sink -
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts | clickpipe window tumble 1d |
    clickpipe aggregate users='count(DISTINCT user_id)' paid="count(*) FILTER (WHERE event = 'purchase')" |
    clickpipe sink -"""

    def passes(self) -> bool:
        return False

    def columns(self, given: Columns) -> Columns:
        given.need(self.by, " to group by")
        types = dict.fromkeys(WINDOW if self._has_window(given) else (), "time") | {name: given.types[name] for name in self.by}
        key = tuple(types)
        for call in self._compiled(given):
            check_new(call.named.name, call.named.name)
            if call.named.name in types:
                raise PlanError(f'two columns are called "{call.named.name}"', word=call.named.name)
            types[call.named.name] = call.function.result()
        self._check_top(types)
        time = TimeColumn("window_start", "ms") if self._has_window(given) else None
        return Columns(types, time=time, key=key)

    def needs(self, given: Columns) -> tuple[str, ...]:
        reads = [name for call in self._compiled(given) for name in call.reads()]
        timed = [given.time.name] if given.time and self._is_ordered() else []
        window = ["window_start"] if self._has_window(given) else []
        return tuple(dict.fromkeys([*window, *self.by, *reads, *timed]))

    def keys(self) -> tuple[str, ...]:
        return self.by

    def open(self, given: Columns, saved: Tables) -> Operator:
        return AggregateOperator(self, given, saved)

    def describe(self, given: Columns) -> str:
        per = [*(["window"] if self._has_window(given) else []), *self.by]
        return f"{', '.join(self.calls)} per {', '.join(per)}" if per else ", ".join(self.calls)

    def memory(self) -> str:
        return "one row per open window and key" if self.by else "one row per open window"

    def calls_for(self, given: Columns) -> list[Call]:
        return [compiled.call() for compiled in self._compiled(given)]

    def _has_window(self, given: Columns) -> bool:
        return given.window is not None and set(WINDOW) <= set(given.types)

    def _is_ordered(self) -> bool:
        return any(parse_call(word).function in ("first", "last") for word in self.calls)

    def _check_top(self, types: dict[str, str]) -> None:
        if self.emit != "final":
            raise Unsupported("notimpl", f"--emit {self.emit}", "early results are not in this version")
        if self.top is not None and self.top < 1:
            raise PlanError("--top must be at least 1", word="--top")
        if self.order is not None and self.top is None:
            raise PlanError("--order says what --top counts by: give --top N too", word="--order")
        if self.order is not None and self.order not in types:
            raise Columns(types).unknown(self.order, " to order by")

    def _compiled(self, given: Columns) -> list[_Compiled]:
        if not self.calls:
            raise PlanError("nothing to compute", hint="as in: aggregate --by page clicks='count(*)'")
        compiled = [_compile(parse_call(word), given) for word in self.calls]
        names = [call.named.name for call in compiled]
        for name in names:
            if names.count(name) > 1:
                raise PlanError(f'two columns are called "{name}"', word=name)
        return compiled


@dataclass(frozen=True)
class _Compiled:
    named: Named
    function: Function
    value: Expression | None
    where: Expression | None

    def reads(self) -> tuple[str, ...]:
        return (*(self.value.reads if self.value else ()), *(self.where.reads if self.where else ()))

    def call(self) -> Call:
        # A star that is filtered counts a constant; one that is not counts rows.
        value = self.value.expr if self.value else pl.lit(True)
        return Call(self.named.name, self.function, value, self.where.expr if self.where else None)


def _compile(named: Named, given: Columns) -> _Compiled:
    function = FUNCTIONS.find(named.function, Function)
    where = predicate(named.where, given) if named.where else None
    if named.argument == "*":
        if not function.takes_star:
            raise PlanError(f"{named.function}(*) has no meaning; name a column", word=named.text)
        return _Compiled(named, function("bool" if where else "*"), None, where)
    value = compile(named.argument, given)
    if function.takes_numbers_only and value.kind not in NUMBERS:
        raise PlanError(_no_number(named, value), word=named.text)
    return _Compiled(named, function(value.kind), value, where)


def _no_number(named: Named, value: Expression) -> str:
    spoken = {"str": "text", "json": "nested JSON", "bool": "true or false", "time": "a time"}[value.kind]
    return f"{named.function}() needs numbers, and {named.argument} is {spoken}"


class AggregateOperator(Operator):
    def __init__(self, step: Aggregate, given: Columns, saved: Tables) -> None:
        self._step, self._given = step, given
        self._columns = step.columns(given)
        # All windows are equally long: the start tells the end, and one key less is grouped by.
        self._size = given.window.size if given.window is not None and step._has_window(given) else None
        self._widened = set(saved["widened"]["name"].to_list()) if "widened" in saved else set()
        self._calls = [call.wide() if call.name in self._widened else call for call in step.calls_for(given)]
        self._integers = {call.name for call in self._calls if call.aggregate.kind == "int"}
        self._keys = list(dict.fromkeys([*([] if self._size is None else ["window_start"]), *step.by]))
        self._keys = [key for key in self._keys if self._size is None or key != "window_end"]
        self._summary = Summary(self._keys, self._calls, saved)
        self._fired = int(saved["fired"].item()) if "fired" in saved else None
        self._earliest_end: int | None = None if not saved else -FOREVER
        self._is_empty = not saved

    def on_batch(self, batch: Batch) -> Iterable[Batch | Late | Dead]:
        if self._size is not None and self._is_behind(batch, self._size):
            # No stream of ours is: a tool moved records past their watermark.
            behind = batch.frame["window_start"] + self._size <= self._fired
            yield Late(batch.keep(behind), "behind")
            batch = batch.keep(~behind)
        if not batch.height:
            return
        batch, inputs, dead = compute(batch, self._inputs())
        if dead:
            yield dead
        self._add(batch, inputs)

    def _is_behind(self, batch: Batch, size: int) -> bool:
        if self._fired is None or not batch.height:
            return False
        start = batch.frame["window_start"].min()
        return isinstance(start, int) and start + size <= self._fired

    def _inputs(self) -> list[pl.Expr]:
        """The arguments, computed once; an expression that a value refuses makes a dead letter of its record."""
        return [call.masked().alias(f"\0{call.name}") for call in self._calls if call.aggregate.kind != "*"]

    def _add(self, batch: Batch, inputs: pl.DataFrame) -> None:
        columns = list(dict.fromkeys([*self._keys, *self._time_name()]))
        frame = batch.frame.select(columns).hstack(inputs) if columns else inputs
        if not frame.width:
            frame = pl.DataFrame(height=batch.height)
        for name in [name for name in self._integers if inputs.schema[f"\0{name}"].is_float()]:
            self._summary.widen(name)
            self._integers.remove(name)
            self._widened.add(name)
        self._summary.add(frame, self._time(batch))
        self._is_empty = False
        if self._size is not None:
            start = batch.frame["window_start"].min()
            if isinstance(start, int) and (self._earliest_end is None or start + self._size < self._earliest_end):
                self._earliest_end = start + self._size

    def _time_name(self) -> list[str]:
        return [self._given.time.name] if self._given.time and self._step._is_ordered() else []

    def _time(self, batch: Batch) -> pl.Expr:
        if not self._time_name() or self._given.time is None:
            return pl.lit(0, pl.Int64)
        name = self._given.time.name
        return to_milliseconds(pl.col(name), batch.columns.types[name], self._given.time.unit)

    def on_watermark(self, time: int) -> Iterable[Batch]:
        if self._size is not None:
            self._fired = time
            if self._earliest_end is None or time < self._earliest_end:
                return
            closed = pl.col("window_start") <= time - self._size
        elif time < FOREVER:
            return
        else:
            closed = pl.lit(True)
            self._count_nothing()
        rows = self._summary.close(closed)
        if self._size is not None:
            earliest = self._summary.earliest("window_start")
            self._earliest_end = None if earliest is None else earliest + self._size
            if rows.height:
                rows.insert_column(1, (rows["window_start"] + self._size).alias("window_end"))
        if rows.height:
            yield self._batch(rows)

    def _count_nothing(self) -> None:
        """No records and no key: there is one row all the same, as in SQL."""
        if self._is_empty and not self._keys:
            empty = pl.DataFrame(schema=self._given.schema(self._step.needs(self._given)))
            self._add(Batch(empty, self._given), empty.select(self._inputs()))

    def _batch(self, rows: pl.DataFrame) -> Batch:
        types = dict(self._columns.types)
        rows = finite(rows)
        for name, kind in types.items():
            if kind == "int" and rows.schema[name] == pl.Int128:
                rows = rows.with_columns(_in_64_bits(rows, name))
            elif kind == "int" and rows.schema[name].is_float():
                types[name] = "float"
        rows = self._topped(rows.sort(self._keys) if self._keys else rows)
        return Batch(rows, replace(self._columns, types=types))

    def _topped(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self._step.top is None:
            return rows
        order = self._step.order or self._calls[0].name
        ranked = rows.sort(pl.col(order), descending=True, nulls_last=True, maintain_order=True)
        if self._size is None:
            return ranked.head(self._step.top)
        return (
            ranked.group_by("window_start", maintain_order=True)
            .head(self._step.top)
            .select(rows.columns)
            .sort("window_start", maintain_order=True)
        )

    def snapshot(self) -> Tables:
        fired = {} if self._fired is None else {"fired": pl.DataFrame({"fired": [self._fired]})}
        widened = {"widened": pl.DataFrame({"name": sorted(self._widened)})} if self._widened else {}
        return {**self._summary.snapshot(), **fired, **widened}


def _in_64_bits(rows: pl.DataFrame, name: str) -> pl.Series:
    values = rows[name].cast(pl.Int64, strict=False)
    if values.null_count() > rows[name].null_count():
        raise DataError(
            f"{name} leaves 64 bits: a sum of integers became too large", hint="sum doubles instead: sum(CAST(x AS DOUBLE))"
        )
    return values
