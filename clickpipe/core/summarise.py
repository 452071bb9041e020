"""Summarising records per window and key: what `aggregate` and `sketch` have in common.

Shape: window_start and window_end after a window (and whose session, whose records it is), the --by columns, the named
values. Where rows are given more than once: rev, final, deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns, TimeColumn, WindowInfo, check_new, dtype
from clickpipe.core.aggregate import Aggregate
from clickpipe.core.calls import Named, parse_call
from clickpipe.core.capped import OTHER, Cap, Capped
from clickpipe.core.catalog import Catalog
from clickpipe.core.compiled import Compiled, compiled
from clickpipe.core.compute import as_json, compute, finite
from clickpipe.core.counted import Counted
from clickpipe.core.fixed import Fixed
from clickpipe.core.groups import DELETED, FINAL, GROUPING, REV, SET, Emit, Grouping, Groups, Whole
from clickpipe.core.merging import merges, with_pieces
from clickpipe.core.operator import FOREVER, Late, Operator
from clickpipe.core.option import Names, argument, option
from clickpipe.core.sessions import Sessions
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.core.summary import Call
from clickpipe.core.time import to_milliseconds
from clickpipe.core.units import format_duration, parse_duration
from clickpipe.core.windows import FIXED, WINDOW
from clickpipe.errors import DataError, PlanError, Unsupported

LOW, HIGH = "_lo", "_hi"  # behind the name of an estimate
CLOSED_BY = "closed_by"
_GROUPS: Mapping[str, Callable[[Grouping, Tables], Groups]] = {
    "": Whole,
    **dict.fromkeys(FIXED, Fixed),
    "session": Sessions,
    "count": Counted,
}


@dataclass(frozen=True)
class First:
    """The first `count` rows of each window, by the column `name`."""

    count: int
    name: str
    is_greatest: bool


@dataclass(frozen=True)
class Summarise(OperatorStep):
    """A step with named calls of functions."""

    functions: ClassVar[Catalog]

    calls: tuple[str, ...] = argument("aggregates with names", metavar="NAME=EXPR", example="clicks='count(*)'")
    by: Names = option("group by these columns too", default=(), metavar="COL,…", example="page,country")
    emit: str = option(
        "when rows appear: final, when a window ends; update, also what has changed at each checkpoint (without checkpoints at "
        "each frame); early=D, also what has changed after each D of event time",
        default="final",
        metavar="final|update|early=D",
    )
    also: tuple[str, ...] = option(
        "also rows for these of the columns alone, or for all records: total", default=(), metavar="SET", example="page"
    )
    max_groups: int | None = option(
        "no more than so many groups in each window (hopping and cumulating ones: in each slide)", default=None, example="100000"
    )
    overflow: str = option(
        "what to do with more groups: stop, or put them into one row, with null for the --by columns and other true",
        default="stop",
        choices=("stop", "other"),
    )
    outcome = "aggregated"

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
        types |= self._sets_apart(types, window)
        key = tuple(types)
        if window and window.kind == "session":  # its end moves
            key = tuple(name for name in types if name != "window_end")
        if window and window.kind == "count":
            key = tuple(name for name in types if name not in WINDOW)
        calls = self._compiled(given)
        for call in calls:
            check_new(call.named.name, call.named.name)
            for name in self._names(call):
                if name in types:
                    raise PlanError(f'two columns are called "{name}"', word=call.named.name)
            types |= dict.fromkeys(self._names(call), call.function.result())
        self.check(types)
        added = self._added(given, emit)
        for name in added:
            if name in types:
                raise PlanError(f'a column cannot be called "{name}" here: results that are given again have one', word=name)
        self._check_again(window, added)
        time = TimeColumn("window_start", "ms") if window else None
        is_revised = bool({REV, FINAL} & set(added))
        why = "--top has left out rows" if self.first() else ""
        named = [(call, self._names(call)) for call in calls]
        merging = merges(named, has_pieces=self.keeps_pieces(), why=why) if window else {}
        more = (is_revised, given.idles, window or given.results_of, merging)
        return Columns({**types, **added}, frozenset(), time, None, key, *more)

    def _sets_apart(self, types: Mapping[str, str], window: WindowInfo | None) -> dict[str, str]:
        """The columns that tell of a row which --by columns, or which groups, it is of."""
        self._check_sets(window)
        said = ({OTHER: "bool"} if self.overflow == OTHER else {}) | ({GROUPING: "str"} if self.also else {})
        for name in said:
            if name in types:
                raise PlanError(f'a column that is grouped by cannot be called "{name}" here', word=name)
        return said

    def _check_sets(self, window: WindowInfo | None) -> None:
        for text in self.also:
            for name in _set(text):
                if name not in self.by:
                    raise PlanError(f'--also {text}: "{name}" is none of the --by columns', word=text)
        if self.max_groups is not None and self.max_groups < 1:
            raise PlanError("--max-groups must be at least 1", word="--max-groups")
        if self.overflow == OTHER and self.max_groups is None:
            raise PlanError("--overflow says what to do with more than --max-groups: give that too", word="--overflow")
        if self.max_groups is not None and not self.by:
            raise PlanError("--max-groups is for groups: --by says which", word="--max-groups")
        is_fixed = window is None or window.kind in FIXED
        for flag, said in (("--also", self.also), ("--max-groups", self.max_groups)):
            if said and not is_fixed:
                assert window is not None
                raise Unsupported("notimpl", f"{flag} behind window {window.kind}", "only fixed windows have it yet", word=flag)

    def _added(self, given: Columns, emit: Emit) -> dict[str, str]:
        """What is said of a row besides."""
        window = self._window(given)
        is_corrected = window is not None and window.lateness > 0
        has_ghosts = window is not None and window.kind == "session" and (is_corrected or not emit.is_once)
        said = {REV: "int"} if is_corrected else {}
        said |= {} if emit.is_once else {FINAL: "bool"}
        said |= {DELETED: "bool"} if has_ghosts else {}
        return said | ({CLOSED_BY: "str"} if window and given.idles else {})

    def _check_again(self, window: WindowInfo | None, added: Mapping[str, str]) -> None:
        """Raises for rows that cannot be given again yet."""
        if not {REV, FINAL} & set(added):
            return
        if self.also:
            raise Unsupported(
                "notimpl", "--also", "which of its rows have changed would have to be known for each set", word="--also"
            )
        if self.first() is not None:
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

    def first(self) -> First | None:
        """Whether only some rows of each window are given out."""
        return None

    def has_bounds(self) -> bool:
        """Whether each estimate comes with its bounds."""
        return False

    def keeps_pieces(self) -> bool:
        """Whether values that do not merge come with others that do."""
        return False

    def groups(self, grouping: Grouping, saved: Tables) -> Groups:
        """What is kept between batches."""
        return _GROUPS[grouping.window.kind if grouping.window else ""](grouping, saved)

    def check(self, types: Mapping[str, str]) -> None:
        """Raises PlanError for what cannot be said of a result with these columns."""

    def needs(self, given: Columns) -> tuple[str, ...]:
        calls = self._compiled(given)
        reads = [name for call in calls for name in call.reads()]
        timed = [given.time.name] if given.time and any(call.function.ordered_by == "time" for call in calls) else []
        window = self._window(given)
        return tuple(dict.fromkeys([*(window.columns() if window else ()), *self.by, *reads, *timed]))

    def keys(self) -> tuple[str, ...]:
        return self.by

    def open(self, given: Columns, saved: Tables) -> Operator:
        return Summarising(self, given, saved)

    def describe(self, given: Columns) -> str:
        window = self._window(given)
        per = [*(["window", *window.by] if window else []), *self.by]
        return f"{', '.join(self.calls)} per {', '.join(dict.fromkeys(per))}" if per else ", ".join(self.calls)

    def memory(self) -> str:
        return "one row per open window and key" if self.by else "one row per open window"

    def calls_for(self, given: Columns) -> list[Call]:
        return [call.call() for call in self._compiled(given)]

    def grouping(self, given: Columns) -> Grouping:
        calls = self.calls_for(given)
        is_ordered = any(call.aggregate.ordered_by for call in calls)
        other = (OTHER,) if self.overflow == OTHER else ()
        by = tuple(dict.fromkeys((*self.by, *other)))
        also = tuple((*names, *other) if (names := _set(text)) else () for text in dict.fromkeys(self.also))
        return Grouping(by, calls, self._window(given), self._emit(given), is_ordered, also)

    def _window(self, given: Columns) -> WindowInfo | None:
        return given.window if given.window is not None and set(given.window.columns()) <= set(given.types) else None

    def _names(self, call: Compiled) -> list[str]:
        """Of the value, and of its bounds."""
        name = call.named.name
        return [name, name + LOW, name + HIGH] if self.has_bounds() and call.function.bounds(pl.col(name)) else [name]

    def _compiled(self, given: Columns) -> list[Compiled]:
        if not self.calls:
            raise PlanError("nothing to compute", hint="as in: aggregate --by page clicks='count(*)'")
        found = [compiled(named, given, self.functions) for named in self._named()]
        for call in found:
            if call.function.per_second and self._window(given) is None:
                hint = "put a window step before, or count and divide"
                raise PlanError(f"{call.named.function}() is per second of a window", hint=hint, word=call.named.text)
        names = [call.named.name for call in found]
        for name in names:
            if names.count(name) > 1:
                raise PlanError(f'two columns are called "{name}"', word=name)
        return found

    def _named(self) -> Iterable[Named]:
        """The calls, and those whose values are their pieces."""
        for named in map(parse_call, self.calls):
            kept = self.functions.find(named.function, Aggregate).kept if self.keeps_pieces() else {}
            yield from with_pieces(named, kept)


class Summarising(Operator):
    def __init__(self, step: Summarise, given: Columns, saved: Tables) -> None:
        self._step, self._given = step, given
        self._columns = step.columns(given)
        self._widened = set(saved["widened"]["name"].to_list()) if "widened" in saved else set()
        grouping = step.grouping(given)
        self._calls = [call.wide() if call.name in self._widened else call for call in grouping.calls]
        self._integers = {call.name for call in self._calls if call.aggregate.kind == "int"}
        self._is_timed = any(call.aggregate.ordered_by == "time" for call in self._calls)
        self._window = grouping.window
        self._needed = list(dict.fromkeys([*(self._window.columns() if self._window else ()), *step.by, *self._time_name()]))
        self._capped = None
        if step.max_groups is not None:
            window = tuple(name for name in WINDOW if self._window)
            self._capped = Capped(Cap(step.max_groups, step.overflow, tuple(dict.fromkeys(step.by)), window), saved)
        self._groups = step.groups(replace(grouping, calls=self._calls), saved)
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
        return [expr for call in self._calls for expr in call.inputs()]

    def _add(self, batch: Batch, inputs: pl.DataFrame) -> Iterable[Late]:
        marked = ["_mark"] if self._window is not None and "_mark" in batch.frame.columns else []
        columns = [*self._needed, *marked]
        frame = batch.frame.select(columns).hstack(inputs) if columns else inputs
        if not frame.width:
            frame = pl.DataFrame(height=batch.height)
        for name in [name for name in self._integers if inputs.schema[f"\0{name}"].is_float()]:
            self._groups.widen(name)
            self._calls = [call.wide() if call.name == name else call for call in self._calls]
            self._integers.remove(name)
            self._widened.add(name)
        if self._capped:
            frame = self._capped.admit(frame)
        self._is_empty = False
        return self._groups.add(batch, frame, self._time(batch))

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
                rows = rows.with_columns(_in_64_bits(rows, name))
            elif kind == "int" and rows.schema[name].is_float():
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


def _set(text: str) -> tuple[str, ...]:
    """`page,country` -> its columns; `total` -> none."""
    return () if text == "total" else tuple(name.strip() for name in text.split(","))


def _left_out(name: str, kind: str, closed_by: str | None) -> pl.Expr:
    """A column that says nothing of these rows, or is the same for all."""
    value = {CLOSED_BY: closed_by, DELETED: False, REV: 0}.get(name)
    return pl.lit(value, dtype(kind)).alias(name)


def _in_64_bits(rows: pl.DataFrame, name: str) -> pl.Series:
    values = rows[name].cast(pl.Int64, strict=False)
    if values.null_count() > rows[name].null_count():
        raise DataError(
            f"{name} leaves 64 bits: a sum of integers became too large", hint="sum doubles instead: sum(CAST(x AS DOUBLE))"
        )
    return values
