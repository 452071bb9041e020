"""Summarise records per window and key.

Shape: window_start and window_end after a window (and whose session, whose records it is), the --by columns, the named
aggregates. Where rows are given more than once: rev, which is higher in each correction; final, false while a window is
open; deleted, for a session that has become part of another.
Order: windows by their end; within one by key. A window's rows appear when the watermark has passed its end; without a window
all rows appear at the end of the input.
Memory: one row per open window and key (hopping: per slide and key); count(DISTINCT) one row per value too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import NUMBERS, Columns, TimeColumn, WindowInfo, check_new, dtype
from clickpipe.core.aggregate import Aggregate as Function
from clickpipe.core.calls import Named, parse_call
from clickpipe.core.catalog import Catalog
from clickpipe.core.compute import compute, finite
from clickpipe.core.counted import Counted
from clickpipe.core.fixed import Fixed
from clickpipe.core.groups import DELETED, FINAL, REV, Emit, Grouping, Groups, Whole
from clickpipe.core.operator import FOREVER, Late, Operator
from clickpipe.core.option import Names, argument, option
from clickpipe.core.sessions import Sessions
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.core.summary import Call
from clickpipe.core.time import to_milliseconds
from clickpipe.core.units import format_duration, parse_duration
from clickpipe.core.windows import FIXED, WINDOW
from clickpipe.errors import DataError, PlanError, Unsupported
from clickpipe.sql import Expression, compile, predicate

FUNCTIONS = Catalog("clickpipe.aggregates", "aggregate", "_")
_CLOSED_BY = "closed_by"
_GROUPS: Mapping[str, Callable[[Grouping, Tables], Groups]] = {
    "": Whole,
    **dict.fromkeys(FIXED, Fixed),
    "session": Sessions,
    "count": Counted,
}


@dataclass(frozen=True)
class Aggregate(OperatorStep):
    calls: tuple[str, ...] = argument("aggregates with names", metavar="NAME=EXPR", example="clicks='count(*)'")
    by: Names = option("group by these columns too", default=(), metavar="COL,…", example="page,country")
    emit: str = option(
        "when rows appear: final, when a window ends; update, also what has changed at each checkpoint (without checkpoints at "
        "each frame); early=D, also what has changed after each D of event time",
        default="final",
        metavar="final|update|early=D",
    )
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
        if given.is_revised:
            hint = "aggregate the records themselves, in a pipeline of its own"
            raise PlanError("these rows are given again when they change, and would be counted again", hint=hint)
        window, emit = self._window(given), self._emit(given)
        of = window.columns() if window else ()
        types = dict.fromkeys(WINDOW if window else (), "time") | {name: given.types[name] for name in (*of, *self.by)}
        key = tuple(types)
        if window and window.kind == "session":  # its end moves
            key = tuple(name for name in types if name != "window_end")
        if window and window.kind == "count":
            key = tuple(name for name in types if name not in WINDOW)
        for call in self._compiled(given):
            check_new(call.named.name, call.named.name)
            if call.named.name in types:
                raise PlanError(f'two columns are called "{call.named.name}"', word=call.named.name)
            types[call.named.name] = call.function.result()
        self._check_top(types)
        added = self._added(given, emit)
        for name in added:
            if name in types:
                raise PlanError(f'a column cannot be called "{name}" here: results that are given again have one', word=name)
        self._check_again(window, added)
        time = TimeColumn("window_start", "ms") if window else None
        is_revised = bool({REV, FINAL} & set(added))
        results_of = window or given.results_of
        return Columns({**types, **added}, time=time, key=key, is_revised=is_revised, idles=given.idles, results_of=results_of)

    def _added(self, given: Columns, emit: Emit) -> dict[str, str]:
        """What is said of a row besides."""
        window = self._window(given)
        is_corrected = window is not None and window.lateness > 0
        has_ghosts = window is not None and window.kind == "session" and (is_corrected or not emit.is_once)
        said = {REV: "int"} if is_corrected else {}
        said |= {} if emit.is_once else {FINAL: "bool"}
        said |= {DELETED: "bool"} if has_ghosts else {}
        return said | ({_CLOSED_BY: "str"} if window and given.idles else {})

    def _check_again(self, window: WindowInfo | None, added: Mapping[str, str]) -> None:
        """Raises for rows that cannot be given again yet."""
        if not {REV, FINAL} & set(added):
            return
        if self.top is not None:
            raise Unsupported("notimpl", "--top", "a row that falls out of the first N would have to be taken back", word="--top")
        if window and window.kind == "session" and set(self.by) - set(window.columns()):
            reason = "rows finer than a session would have to be taken back when it changes"
            raise Unsupported("notimpl", "corrected or early sessions by more columns", reason, word="--by")
        if FINAL in added and window and (window.kind == "count" or window.longest is not None):
            what = "count windows" if window.kind == "count" else "sessions with --max-duration"
            raise Unsupported("notimpl", f"--emit {self.emit}", f"{what} are given out once", word=self.emit)

    def _emit(self, given: Columns) -> Emit:
        kind, _, every = self.emit.partition("=")
        if self.emit in ("final", "update"):
            return Emit(kind)
        if kind != "early" or not every:
            raise PlanError(
                f'--emit "{self.emit}" is none of final, update, early=D', hint="as in: --emit early=10s", word=self.emit
            )
        try:
            length = parse_duration(every)
        except ValueError as error:
            raise PlanError(f"--emit early: {error}", word=self.emit) from None
        window = self._window(given)
        if window is None:
            raise PlanError(
                "--emit early= is for windows", hint="--emit update gives what has changed at each checkpoint", word=self.emit
            )
        if length <= 0:
            raise PlanError("--emit early= must be longer than 0s", word=self.emit)
        if length > window.size and window.kind in FIXED:
            reason = f"it is longer than the window of {format_duration(window.size)}: nothing would come early"
            raise PlanError(f"--emit {self.emit}: {reason}", word=self.emit)
        return Emit(kind, length)

    def needs(self, given: Columns) -> tuple[str, ...]:
        reads = [name for call in self._compiled(given) for name in call.reads()]
        timed = [given.time.name] if given.time and self._is_ordered() else []
        window = self._window(given)
        return tuple(dict.fromkeys([*(window.columns() if window else ()), *self.by, *reads, *timed]))

    def keys(self) -> tuple[str, ...]:
        return self.by

    def open(self, given: Columns, saved: Tables) -> Operator:
        return AggregateOperator(self, given, saved)

    def describe(self, given: Columns) -> str:
        window = self._window(given)
        per = [*(["window", *window.by] if window else []), *self.by]
        return f"{', '.join(self.calls)} per {', '.join(dict.fromkeys(per))}" if per else ", ".join(self.calls)

    def memory(self) -> str:
        return "one row per open window and key" if self.by else "one row per open window"

    def calls_for(self, given: Columns) -> list[Call]:
        return [compiled.call() for compiled in self._compiled(given)]

    def grouping(self, given: Columns) -> Grouping:
        return Grouping(
            tuple(dict.fromkeys(self.by)), self.calls_for(given), self._window(given), self._emit(given), self._is_ordered()
        )

    def _window(self, given: Columns) -> WindowInfo | None:
        return given.window if given.window is not None and set(given.window.columns()) <= set(given.types) else None

    def _is_ordered(self) -> bool:
        return any(parse_call(word).function in ("first", "last") for word in self.calls)

    def _check_top(self, types: dict[str, str]) -> None:
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
        self._widened = set(saved["widened"]["name"].to_list()) if "widened" in saved else set()
        grouping = step.grouping(given)
        self._calls = [call.wide() if call.name in self._widened else call for call in grouping.calls]
        self._integers = {call.name for call in self._calls if call.aggregate.kind == "int"}
        self._window = grouping.window
        self._needed = list(dict.fromkeys([*(self._window.columns() if self._window else ()), *step.by, *self._time_name()]))
        self._groups = _GROUPS[self._window.kind if self._window else ""](replace(grouping, calls=self._calls), saved)
        self._is_empty = not saved
        self._is_idle = False

    def on_batch(self, batch: Batch) -> Iterable[Batch | Late | Dead]:
        batch, inputs, dead = compute(batch, self._inputs())
        if dead:
            yield dead
        if batch.height:
            yield from self._add(batch, inputs)

    def _inputs(self) -> list[pl.Expr]:
        """The arguments, computed once; an expression that a value refuses makes a dead letter of its record."""
        return [call.masked().alias(f"\0{call.name}") for call in self._calls if call.aggregate.kind != "*"]

    def _add(self, batch: Batch, inputs: pl.DataFrame) -> Iterable[Late]:
        marked = ["_mark"] if self._window is not None and "_mark" in batch.frame.columns else []
        columns = [*self._needed, *marked]
        frame = batch.frame.select(columns).hstack(inputs) if columns else inputs
        if not frame.width:
            frame = pl.DataFrame(height=batch.height)
        for name in [name for name in self._integers if inputs.schema[f"\0{name}"].is_float()]:
            self._groups.widen(name)
            self._integers.remove(name)
            self._widened.add(name)
        self._is_empty = False
        return self._groups.add(batch, frame, self._time(batch))

    def _time_name(self) -> list[str]:
        return [self._given.time.name] if self._given.time and self._step._is_ordered() else []

    def _time(self, batch: Batch) -> pl.Expr:
        if not self._time_name() or self._given.time is None:
            return pl.lit(0, pl.Int64)
        name = self._given.time.name
        return to_milliseconds(pl.col(name), batch.columns.types[name], self._given.time.unit)

    def on_idle(self) -> None:
        self._is_idle = True

    def on_watermark(self, time: int) -> Iterable[Batch]:
        closed_by = "end" if time >= FOREVER else "idle" if self._is_idle else "watermark"
        self._is_idle = False
        if time >= FOREVER:
            self._count_nothing()
        yield from self._batches(self._groups.fire(time), closed_by)

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
        rows = finite(rows)
        for name, kind in types.items():
            if name not in rows.columns:
                rows = rows.with_columns(_left_out(name, kind, closed_by))
            elif kind == "int" and rows.schema[name] == pl.Int128:
                rows = rows.with_columns(_in_64_bits(rows, name))
            elif kind == "int" and rows.schema[name].is_float():
                types[name] = "float"
        keys = [*(("window_end", "window_start") if self._window else ()), *self._columns.key]
        rows = rows.sort(list(dict.fromkeys(keys))) if keys else rows
        return Batch(self._topped(rows.select(*types)), replace(self._columns, types=types))

    def _topped(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self._step.top is None:
            return rows
        order = self._step.order or self._calls[0].name
        ranked = rows.sort(pl.col(order), descending=True, nulls_last=True, maintain_order=True)
        if self._window is None:
            return ranked.head(self._step.top)
        window = [*WINDOW, *self._window.by]
        return (
            ranked.group_by(window, maintain_order=True)
            .head(self._step.top)
            .select(rows.columns)
            .sort("window_end", "window_start", *self._window.by, maintain_order=True)
        )

    def snapshot(self) -> Tables:
        widened = {"widened": pl.DataFrame({"name": sorted(self._widened)})} if self._widened else {}
        return {**self._groups.snapshot(), **widened}


def _left_out(name: str, kind: str, closed_by: str | None) -> pl.Expr:
    """A column that says nothing of these rows, or is the same for all."""
    value = {_CLOSED_BY: closed_by, DELETED: False, REV: 0}.get(name)
    return pl.lit(value, dtype(kind)).alias(name)


def _in_64_bits(rows: pl.DataFrame, name: str) -> pl.Series:
    values = rows[name].cast(pl.Int64, strict=False)
    if values.null_count() > rows[name].null_count():
        raise DataError(
            f"{name} leaves 64 bits: a sum of integers became too large", hint="sum doubles instead: sum(CAST(x AS DOUBLE))"
        )
    return values
