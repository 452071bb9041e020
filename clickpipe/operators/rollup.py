"""Merge rows of fine windows into coarser ones: minutes into hours, hours into days.

Shape: window_start and window_end of the coarse window, the columns that the rows are by, or those of --by, and the same values,
merged: count, sum, min, max, first, last, bool_and, bool_or, approx_frequency and sketches; avg behind aggregate --keep-pieces.
A column that does not merge is an error. Rows that come again when they change correct the coarse row: it comes again with a
higher rev, the sum of those of its fine rows. Rows that are not final yet count for nothing.
Order: windows by their end; within one by key. A row appears when the watermark has passed its end.
Error: none, but for sums of floats, which are rounded once in each fine window.
Memory: one row per open window and key; of rows that may be corrected, each as long as it may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns, Merging, TimeColumn, WindowInfo
from clickpipe.core.aggregate import Aggregate
from clickpipe.core.catalog import Catalog
from clickpipe.core.compiled import AGGREGATES
from clickpipe.core.compute import compute
from clickpipe.core.groups import CLOSED_BY, DELETED, FINAL, GROUPING, REV, Grouping, Groups
from clickpipe.core.kept import Kept
from clickpipe.core.operator import Late, Operator
from clickpipe.core.option import Duration, Names, argument, option
from clickpipe.core.rolled import CHILD, CHILD_END, Rolled
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.core.summarise import TOTAL, Summarise
from clickpipe.core.summarising import Summarising
from clickpipe.core.timed import timed
from clickpipe.core.units import format_duration
from clickpipe.core.windows import WINDOW, Windows
from clickpipe.errors import PlanError

_TIME = TimeColumn("window_start", "ms")
_OF_FILE = (
    "select --add 'window_start AS start' --drop window_start,window_end | window tumble 1d --time start | aggregate n='sum(n)'"
)


@dataclass(frozen=True)
class Rollup(OperatorStep):
    size: Duration = argument("length of the coarse windows, some whole fine ones", metavar="SIZE", example="1h")
    by: Names = option(
        "only these of the columns that the rows are by; total: none of them", default=(), metavar="COL,…", example="page"
    )
    offset: Duration | None = option(
        "shift the coarse windows by this much, and not as the fine ones are", default=None, example="2h"
    )

    outcome = "aggregated"
    epilog = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts | clickpipe window tumble 1m |
    clickpipe aggregate --by page n='count(*)' slowest='max(latency_ms)' |
    clickpipe rollup 1d | clickpipe limit 3 | clickpipe sink -
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts | clickpipe window tumble 1m |
    clickpipe aggregate --by page,country ms='avg(latency_ms)' --keep-pieces |
    clickpipe rollup 1h --by country | clickpipe rollup 1d | clickpipe sink -
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts | clickpipe window tumble 1h |
    clickpipe sketch users='distinct(user_id)' | clickpipe rollup 1d |
    clickpipe select window_start 'estimate(users) AS users' | clickpipe sink -

Windows follow the calendar that the fine ones follow (window --tz)."""

    def passes(self) -> bool:
        return False

    def columns(self, given: Columns) -> Columns:
        window = self._window(given)
        merged = self._merge(given).columns(_within(given, window))
        values = self._values(given)
        types = {name: kind for name, kind in merged.types.items() if name in merged.key}
        types |= {name: merged.types.get(name, given.types[name]) for name in values}
        return replace(merged, types={**types, **merged.types}, merges=values)

    def needs(self, given: Columns) -> tuple[str, ...]:
        said = [name for name in (REV, FINAL) if name in given.types]
        values = [name for name, merging in self._values(given).items() if merging.by]
        return tuple(dict.fromkeys([*WINDOW, *self._key(given), *self._by(given), *values, *said]))

    def keys(self, given: Columns) -> tuple[str, ...]:
        return self._by(given)

    def open(self, given: Columns, saved: Tables) -> Operator:
        merge = self._merge(given)
        made = {name: merging for name, merging in self._values(given).items() if not merging.by}
        return RollupOperator(merge, _within(given, self._window(given)), saved, self.columns(given), made)

    def describe(self, given: Columns) -> str:
        assert given.results_of is not None
        fine, coarse = (format_duration(size) for size in (given.results_of.size, self.size))
        return f"merge rows of {fine} into {coarse} per {', '.join(['window', *self._by(given)])}"

    def keeps(self, given: Columns | None, window: WindowInfo | None) -> Kept:
        by = [*(self._by(given) if given else ()), f"open window of {format_duration(self.size)}"]
        return Kept(f"one row per {', '.join(by)}", "let go when the watermark passes its end", is_timed=True)

    def memory(self) -> str:
        return "one row per open window and key"

    def _merge(self, given: Columns) -> _Merge:
        calls = tuple(f"{name}={merging.by}({name})" for name, merging in self._values(given).items() if merging.by)
        return _Merge(calls, self._by(given), whole=self._key(given))

    def _key(self, given: Columns) -> Names:
        """By which columns the rows are."""
        return tuple(name for name in given.key if name not in WINDOW)

    def _by(self, given: Columns) -> Names:
        """By which columns the coarse rows are. Raises PlanError."""
        key = self._key(given)
        if not given.key and not self.by:
            hint = "name those that are left: --by COL,… or --by total"
            raise PlanError("a step before has dropped columns that the rows are by", hint=hint)
        by = () if self.by == (TOTAL,) and TOTAL not in key else tuple(dict.fromkeys(self.by)) if self.by else key
        given.need(by, " for --by")
        for name in by:
            if name in (*WINDOW, REV, FINAL, CLOSED_BY) or name in given.merges or (given.key and name not in key):
                hint = f"the rows are by {', '.join(key) or 'their window alone'}"
                raise PlanError(f'--by "{name}" is none of the columns that the rows are by', hint=hint, word=name)
        if GROUPING in key and set(by) != set(key):
            reason = "these rows are by several sets of columns (--also), and would be counted once for each"
            raise PlanError(reason, hint="leave --by out here, or --also there", word="--by")
        return by

    def _window(self, given: Columns) -> WindowInfo:
        """The coarse windows. Raises PlanError where the rows are not of windows that those hold whole."""
        of = given.results_of
        if given.window is not None:
            raise PlanError("these are records that stand in windows: aggregate them first")
        if of is None or given.time != _TIME or not set(WINDOW) <= set(given.types):
            notes = [
                "a tool such as jq may have taken out the lines that begin with a TAB, which say it",
                f"of rows in a file: {_OF_FILE}, and u='merge(u)' of sketches",
            ]
            hint = "as in: window tumble 1m | aggregate n='count(*)' | rollup 1h"
            raise PlanError("nothing says that these are rows of an aggregate over windows", hint=hint, notes=notes)
        if of.kind != "tumble":
            reason = "they overlap" if of.kind in ("hop", "cumulate") else "they do not stand in fixed windows"
            raise PlanError(f"rows of {of.kind} windows cannot be merged into fixed ones: {reason}")
        offset = of.offset if self.offset is None else int(self.offset)
        if self.size <= 0 or int(self.size) % of.size or (offset - of.offset) % of.size:
            fine = format_duration(of.size) + (f" with --offset {format_duration(of.offset)}" if of.offset else "")
            raise PlanError(f"windows of {format_duration(self.size)} do not hold those of {fine} whole")
        return replace(of, size=int(self.size), slide=int(self.size), offset=offset)

    def _values(self, given: Columns) -> dict[str, Merging]:
        """The columns that are merged. Raises PlanError for one that cannot be."""
        beside = (*WINDOW, *given.key, *self._by(given), REV, FINAL, DELETED, CLOSED_BY)
        values = [name for name in given.types if name not in beside]
        if not values:
            raise PlanError("there is no value to merge")
        is_by_fewer = set(self._by(given)) != set(self._key(given))
        for name in values:
            self._check(name, given, is_by_fewer=is_by_fewer)
        return {name: given.merges[name] for name in values}

    def _check(self, name: str, given: Columns, *, is_by_fewer: bool) -> None:
        merging = given.merges.get(name)
        drop = f"drop it before: select --drop {name}"
        if merging is None:
            raise _unmergeable(name, "it is no value that an aggregate gave", drop)
        if merging.why:
            raise _unmergeable(name, merging.why, "leave that out there")
        if merging.pieces:
            for piece in merging.pieces.values():
                if piece not in given.merges:
                    raise _unmergeable(name, f'it is made of "{piece}", which is not there', drop)
            return
        if not merging.by:
            raise _unmergeable(
                name, f"{_spoken(merging)} of a window is not known from those of finer ones", _instead(name, merging)
            )
        if is_by_fewer and AGGREGATES.find(merging.by, Aggregate).ordered_by:
            reason = f"which of several rows of one window has the {merging.of} value is not known"
            raise _unmergeable(name, reason, drop)


def _unmergeable(name: str, reason: str, hint: str) -> PlanError:
    return PlanError(f'column "{name}" does not merge: {reason}', hint=hint)


def _spoken(merging: Merging) -> str:
    return {"count_distinct": "count(DISTINCT …)", "quantile_disc": "quantile(…)"}.get(merging.of, f"{merging.of}(…)")


def _instead(name: str, merging: Merging) -> str:
    """What to do about a column that does not merge."""
    drop = f"drop it before: select --drop {name}"
    if not AGGREGATES.has(merging.of):
        return drop
    function = AGGREGATES.find(merging.of, Aggregate)
    if function.kept:
        return "keep what it is made of: aggregate --keep-pieces"
    if function.sketched:
        return f"keep a sketch, which does: sketch {name}='{function.sketched}(…)'; or {drop}"
    return drop


def _within(given: Columns, window: WindowInfo) -> Columns:
    """The same rows as records in the coarse windows, in the order of the fine ones."""
    types = {**given.types, CHILD: "time"}
    return Columns(types, time=TimeColumn(CHILD, "ms"), window=window, idles=given.idles)


@dataclass(frozen=True)
class _Merge(Summarise):
    """What is done to the rows: a summary, over the coarse windows. `whole`: by which columns they are."""

    functions: ClassVar[Catalog] = AGGREGATES

    whole: Names = field(default=())

    def kept_by(self, given: Columns) -> Names:
        return tuple(dict.fromkeys([*super().kept_by(given), *self.whole]))

    def groups(self, grouping: Grouping, saved: Tables) -> Groups:
        is_corrected = grouping.window is not None and grouping.window.lateness > 0
        return Rolled(grouping, saved, self.whole) if is_corrected else super().groups(grouping, saved)


class RollupOperator(Summarising):
    def __init__(self, merge: _Merge, within: Columns, saved: Tables, columns: Columns, made: Mapping[str, Merging]) -> None:
        """`made`: the values that are made of others, when these are merged."""
        super().__init__(merge, within, saved)
        assert within.window is not None
        self._windows, self._result, self._made = Windows(within.window), columns, made

    def on_batch(self, batch: Batch) -> Iterable[Batch | Late | Dead]:
        if FINAL in batch.columns.types:
            batch = batch.keep(batch.frame[FINAL].fill_null(value=True))
        batch, start, dead = timed(batch, _TIME)
        if dead:
            yield dead
        batch, inputs, dead = compute(batch, self._inputs())
        if dead:
            yield dead
            start = batch.frame["window_start"]
        for late in self._add(self._moved(batch, start), inputs) if batch.height else ():
            yield replace(late, batch=replace(late.batch, frame=late.batch.frame.drop(CHILD, CHILD_END)))

    def _moved(self, batch: Batch, start: pl.Series) -> Batch:
        """The rows in their coarse windows."""
        coarse = self._windows.starts(start)
        bounds = [coarse, self._windows.ends(coarse, start), start.alias(CHILD), batch.frame["window_end"].alias(CHILD_END)]
        return replace(batch, frame=batch.frame.with_columns(bounds))

    def _batch(self, rows: pl.DataFrame, closed_by: str | None) -> Batch:
        batch = super()._batch(rows, closed_by)
        made = {name: _again(merging) for name, merging in self._made.items()}
        types = {**self._result.types, **batch.columns.types}
        frame = batch.frame.with_columns(**made).select(self._result.names())
        return Batch(frame, replace(self._result, types={name: types[name] for name in self._result.types}))


def _again(merging: Merging) -> pl.Expr:
    function = AGGREGATES.find(merging.of, Aggregate)("float")
    value: pl.Expr = function.again({piece: pl.col(name) for piece, name in merging.pieces.items()})
    return value
