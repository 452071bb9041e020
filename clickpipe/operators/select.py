"""Choose, derive, drop and rename columns.

Shape: the named expressions, in their order; with --add the given columns and those; with
--drop all but some. A field that a record lacks is null. Memory: one batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import HIDDEN, Columns, Merging, check_new
from clickpipe.core.compute import compute
from clickpipe.core.functions import compile, least
from clickpipe.core.operator import Operator
from clickpipe.core.option import Names, argument, option
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.core.windows import WINDOW
from clickpipe.errors import PlanError
from clickpipe.sql import Expression


@dataclass(frozen=True)
class Select(OperatorStep):
    exprs: tuple[str, ...] = argument("columns, or expressions with AS NAME", default=(), metavar="EXPR")
    add: tuple[str, ...] = option(
        "keep all columns and add this one", default=(), metavar="EXPR", example="latency_ms / 1000.0 AS latency_s"
    )
    drop: Names = option("keep all columns but these", default=(), metavar="COL,…", example="referrer,device")

    epilog = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst |
    clickpipe select user_id page "latency_ms / 1000.0 AS latency_s" | clickpipe limit 2 | clickpipe sink -
  clickpipe ingest sample_data/clicks.ndjson.zst |
    clickpipe select --drop referrer,device | clickpipe limit 2 | clickpipe sink -
  clickpipe ingest sample_data/clicks.ndjson.zst |
    clickpipe select --add "upper(country) AS land" | clickpipe limit 2 | clickpipe sink -"""

    def passes(self) -> bool:
        return bool(self.add) and not self.exprs and not self.drop

    def columns(self, given: Columns) -> Columns:
        self._check()
        added = {name: expression.kind for name, expression in self._named(given).items()}
        given.need(self.drop, " to drop")
        kept = {} if self.exprs else {name: kind for name, kind in given.types.items() if name not in self.drop}
        if not (kept or added):
            raise PlanError("no column is left", word=",".join(self.drop))
        columns = given.only({**kept, **added})
        columns = replace(columns, merges=self._merges(given, columns))
        self._check_window(given, columns)
        return columns

    def needs(self, given: Columns) -> tuple[str, ...]:
        reads = [name for expression in self._named(given).values() for name in expression.reads]
        if self.exprs or (self.passes() and not self._replaces(given)):
            return tuple(dict.fromkeys(reads))
        return tuple(dict.fromkeys([*reads, *(name for name in given.types if name not in self.drop)]))

    def changes(self, given: Columns) -> frozenset[str]:
        return frozenset(name for name, expression in self._named(given).items() if not expression.expr.meta.is_column())

    def open(self, given: Columns, saved: Tables) -> Operator:
        return SelectOperator(self, given)

    def describe(self, given: Columns) -> str:
        return ", ".join([*self.exprs, *(f"+ {e}" for e in self.add), *(f"- {name}" for name in self.drop)])

    def _check(self) -> None:
        if not (self.exprs or self.add or self.drop):
            raise PlanError("nothing to select", hint='as in: select user_id page "latency_ms / 1000 AS latency_s"')
        if self.exprs and (self.add or self.drop):
            raise PlanError("--add and --drop keep the other columns; expressions without them do not: choose one")

    def _check_window(self, given: Columns, columns: Columns) -> None:
        """Rows that stand for a stretch of several windows, or of one to come, say by these columns which; and rows that come
        again, what they replace."""
        if given.window is not None and given.window.kind != "tumble":
            hint = "aggregate first, or select before the window"
            self._check_kept(given, columns, given.window.columns(), "it says in which windows a record stands", hint)
        if given.is_revised:
            said = [name for name in (*given.key, "rev", "deleted") if name in given.types]
            self._check_kept(given, columns, said, "rows come again, and it says which one counts", "")

    def _merges(self, given: Columns, columns: Columns) -> dict[str, Merging]:
        """How values merge that are as they were, in rows that are by what they were by."""
        changed = self.changes(given)
        merges = {name: merging for name, merging in columns.merges.items() if name not in changed}
        if changed.isdisjoint((*WINDOW, *given.key)):
            return merges
        return {name: replace(merging, why="select has changed what the rows are by") for name, merging in merges.items()}

    def _check_kept(self, given: Columns, columns: Columns, names: Iterable[str], why: str, hint: str) -> None:
        for name in names:
            named = self._named(given).get(name)
            if name not in columns.types or (named and not named.expr.meta.is_column()):
                raise PlanError(f'"{name}" must stay as it is: {why}', hint=hint, word=name)

    def _replaces(self, given: Columns) -> bool:
        return any(name in given.types for name in self._named(given))

    def _named(self, given: Columns) -> dict[str, Expression]:
        named: dict[str, Expression] = {}
        for text in self.exprs or self.add:
            if text.strip() == "*":
                named |= {name: _column(name, kind) for name, kind in given.types.items()}
                continue
            expression = compile(text, given, has_name=True)
            name = _name_of(text, expression)
            if not expression.expr.meta.is_column():
                check_new(name, text)
            if name in named:
                raise PlanError(f'two columns are called "{name}"', word=text)
            named[name] = expression
        return named


class SelectOperator(Operator):
    def __init__(self, step: Select, given: Columns) -> None:
        self._step, self._given = step, given
        self._columns = step.columns(given)
        named = step._named(given)
        self._exprs = [expression.expr.alias(name) for name, expression in named.items()]
        self.most_rows = least(expression.most_rows for expression in named.values())
        self._splices = step.passes() and not step._replaces(given)

    def on_batch(self, batch: Batch) -> Iterable[Batch | Dead]:
        batch, values, dead = compute(batch, self._exprs)
        if dead:
            yield dead
        if self._splices:
            yield batch.add(values, self._widened(batch, values))
            return
        if not self._step.exprs:
            kept = [name for name in batch.columns.types if name not in self._step.drop and name not in values.columns]
            values = batch.frame.select(kept).hstack(values)
        hidden = [name for name in batch.frame.columns if name.startswith(HIDDEN) or name == "_mark"]
        frame = values.hstack(batch.frame.select(hidden)) if hidden else values
        yield batch.replaced(frame, self._widened(batch, values))

    def _widened(self, batch: Batch, values: pl.DataFrame) -> Columns:
        """The columns after the step: an integer that has become a float makes floats of its offspring."""
        floats = {name for name, kind in values.schema.items() if kind.is_float()}
        types = self._columns.types
        changed = {name: "float" for name in floats if types.get(name) == "int"}
        changed |= {name: "float" for name in types if batch.columns.types.get(name) == "float" and name not in values.columns}
        return self._columns.add(changed) if changed else self._columns


def _column(name: str, kind: str) -> Expression:
    return Expression(name, pl.col(name), (name,), kind)


def _name_of(text: str, expression: Expression) -> str:
    expr = expression.expr
    if not expr.meta.is_column() and not expression.name:
        raise PlanError(f"{text!r} needs a name", hint=f"{text} AS NAME", word=text)
    return str(expr.meta.output_name())
