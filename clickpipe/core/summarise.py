"""Summarising records per window and key: what `aggregate` and `sketch` have in common.

Shape: window_start and window_end after a window (and whose session, whose records it is), the --by columns, the named
values. Where rows are given more than once: rev, final, deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from clickpipe.columns import Columns, TimeColumn, WindowInfo, check_new
from clickpipe.core.calls import Named, parse_call
from clickpipe.core.capped import OTHER
from clickpipe.core.catalog import Catalog
from clickpipe.core.compiled import Compiled, compiled, function_of
from clickpipe.core.counted import Counted
from clickpipe.core.fixed import Fixed
from clickpipe.core.groups import CLOSED_BY, DELETED, FINAL, GROUPING, REV, Emit, Grouping, Groups, Whole
from clickpipe.core.kept import Kept
from clickpipe.core.lint import Advice, Situation
from clickpipe.core.merging import merges, with_pieces
from clickpipe.core.operator import Operator
from clickpipe.core.option import Names, argument, option
from clickpipe.core.sessions import Sessions
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.core.summarising import HIGH, LOW, Summarising
from clickpipe.core.units import format_duration, parse_duration
from clickpipe.core.windows import FIXED, WINDOW
from clickpipe.errors import PlanError, Unsupported

_GROUPS: Mapping[str, Callable[[Grouping, Tables], Groups]] = {
    "": Whole,
    **dict.fromkeys(FIXED, Fixed),
    "session": Sessions,
    "count": Counted,
}
TOTAL = "total"  # of --also and of a rollup's --by: no column, all records


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
    is_settled: bool = field(default=False)  # of two records nobody knows which came first

    harmless = frozenset({"is_settled"})
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
        calls = self.named_calls(given)
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
        named = [(call, self._names(call)) for call in calls]
        merging = merges(named, has_pieces=self.keeps_pieces(), why=self._unmergeable()) if window else {}
        more = (is_revised, given.idles, window or given.results_of, merging)
        return Columns({**types, **added}, frozenset(), time, None, key, *more)

    def _unmergeable(self) -> str:
        """Why rows do not merge into those of coarser windows; nothing: they may."""
        if self.first():
            return "--top has left out rows"
        # A group may have a row of its own in one window, and be among the others in the next.
        return "--overflow other has put other groups into one row in each window" if self.overflow == OTHER else ""

    def _sets_apart(self, types: Mapping[str, str], window: WindowInfo | None) -> dict[str, str]:
        """The columns that tell of a row which --by columns, or which groups, it is of."""
        self._check_sets(window)
        said = ({OTHER: "bool"} if self.overflow == OTHER else {}) | ({GROUPING: "str"} if self.also else {})
        for name in said:
            if name in types:
                raise PlanError(f'a column that is grouped by cannot be called "{name}" here', word=name)
        return said

    def _check_sets(self, window: WindowInfo | None) -> None:
        self._check_also()
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

    def _check_also(self) -> None:
        """Each set of columns has its rows once, so that adding up those of one does not count twice."""
        known = [frozenset(self.by)]
        for text in self.also:
            names = _set(text)
            for name in names:
                if name not in self.by:
                    raise PlanError(f'--also {text}: "{name}" is none of the --by columns', word=text)
            if text == TOTAL and TOTAL in self.by:
                hint = 'rename the column before: select --add "total AS amount" --drop total'
                raise PlanError("--also total: is it the column, or all records?", hint=hint, word=f"--also {text}")
            if frozenset(names) in known:
                raise PlanError(f"--also {text}: there are rows by these columns already", word=f"--also {text}")
            known.append(frozenset(names))

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
        calls = self.named_calls(given)
        reads = [name for call in calls for name in call.reads()]
        timed = [given.time.name] if given.time and any(call.function.ordered_by == "time" for call in calls) else []
        return tuple(dict.fromkeys([*self.kept_by(given), *reads, *timed]))

    def kept_by(self, given: Columns) -> tuple[str, ...]:
        """The columns by which something is kept between batches."""
        window = self._window(given)
        return tuple(dict.fromkeys([*(window.columns() if window else ()), *self.by]))

    def keys(self, given: Columns) -> tuple[str, ...]:
        if self.first() or self.max_groups is not None:
            return ()
        window = self._window(given)
        by = dict.fromkeys([*self.by, *(window.by if window else ())])
        return tuple(name for name in by if all(name in _set(text) for text in self.also))

    def groups_by(self, given: Columns) -> tuple[str, ...]:
        return self._per(self._window(given))

    def choosable(self, given: Columns) -> frozenset[str]:
        """Groups do not know of each other, but where some are left out or counted."""
        is_apart = not (self.first() or self.also or self.max_groups is not None)
        return frozenset(self._per(self._window(given)) if is_apart else ())

    def open(self, given: Columns, saved: Tables) -> Operator:
        return Summarising(self, given, saved)

    def describe(self, given: Columns) -> str:
        window = self._window(given)
        per = [*(["window", *window.by] if window else []), *self.by]
        return f"{', '.join(self.calls)} per {', '.join(dict.fromkeys(per))}" if per else ", ".join(self.calls)

    def refuses(self, given: Columns) -> bool:
        return any(call.refuses() for call in self.named_calls(given))

    def memory(self) -> str:
        return "one row per open window and key" if self.by else "one row per open window"

    def keeps(self, given: Columns | None, window: WindowInfo | None) -> Kept:
        per = [*self._per(window), *([_opened(window)] if window else [])]
        most = "" if self.max_groups is None else f", {self.max_groups:,} at most"
        what = ", and ".join(dict.fromkeys([f"one row per {_listed(per)}{most}" if per else "one row", *self._beside()]))
        if window is not None and window.kind != "count":
            more = f", and {format_duration(window.lateness)} more" if window.lateness else ""
            return Kept(what, f"let go when the watermark passes its end{more}", is_timed=True)
        if window is not None:
            return Kept(what, "let go when it is full", _every(self._per(window)), "window tumble SIZE lets go by time")
        grows = self._per(None) if self.max_groups is None else ()
        return Kept(what, "", _every([*grows, *self._different()]), self._bounded(is_by=bool(grows)))

    def _per(self, window: WindowInfo | None) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.by, *(window.by if window else ())]))

    def _beside(self) -> list[str]:
        """What each row has with it."""
        calls = [(named, function_of(named, self.functions)) for named in map(parse_call, self.calls)]
        return [f"{function.keeps.format(x=named.argument)} in each" for named, function in calls if function.keeps]

    def _different(self) -> list[str]:
        """Arguments of which every different value is kept."""
        named = [one for one in map(parse_call, self.calls) if function_of(one, self.functions).grows]
        return list(dict.fromkeys(one.argument for one in named))

    def _bounded(self, *, is_by: bool) -> str:
        """How it does not grow without a window."""
        found = ["a window step before it lets go by time"]
        found += ["--max-groups N bounds it"] if is_by else []
        return "; ".join([*found, *(["approx_distinct(x) takes a fixed size"] if self._different() else [])])

    def advice(self, where: Situation) -> Iterable[Advice]:
        if where.window is None and not where.input.ends and self.emit == "final":
            what = "without a window its rows come at the end of the input, here when somebody stops the run and not before"
            yield Advice("no-result", what, "window tumble 1m before it, or --emit update")

    def grouping(self, given: Columns) -> Grouping:
        calls = [call.call().settled() if self.is_settled else call.call() for call in self.named_calls(given)]
        is_ordered = any(call.aggregate.ordered_by for call in calls)
        other = (OTHER,) if self.overflow == OTHER else ()
        by = tuple(dict.fromkeys((*self.by, *other)))
        also = tuple((*names, *other) if (names := _set(text)) else () for text in self.also)
        return Grouping(by, calls, self._window(given), self._emit(given), is_ordered, also)

    def _window(self, given: Columns) -> WindowInfo | None:
        return given.window if given.window is not None and set(given.window.columns()) <= set(given.types) else None

    def _names(self, call: Compiled) -> list[str]:
        """Of the value, and of its bounds."""
        name = call.named.name
        return [name, name + LOW, name + HIGH] if self.has_bounds() and call.function.bounds(pl.col(name)) else [name]

    def named_calls(self, given: Columns) -> list[Compiled]:
        """The calls over these columns. Raises PlanError."""
        if not self.calls:
            example = type(self).__dataclass_fields__["calls"].metadata["example"]
            raise PlanError("nothing to compute", hint=f"as in: {example}")
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
            kept = function_of(named, self.functions).kept if self.keeps_pieces() else {}
            yield from with_pieces(named, kept)


def _opened(window: WindowInfo) -> str:
    """What of its windows stays open."""
    if window.kind in ("session", "count"):
        return f"open {window.kind} window" if window.kind == "session" else "window that is not full"
    whole = f"window of {format_duration(window.size)}"
    return f"open {whole}" if window.kind == "tumble" else f"{format_duration(window.slide)} of an open {whole}"


def _listed(names: Sequence[str]) -> str:
    """`page, country and open window`"""
    return " and ".join([*([", ".join(names[:-1])] if names[:-1] else []), names[-1]])


def _every(names: Sequence[str]) -> str:
    return f"every different {_listed(list(dict.fromkeys(names)))}" if names else ""


def _set(text: str) -> tuple[str, ...]:
    """`page,country` -> its columns; `total` -> none."""
    return () if text == TOTAL else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
