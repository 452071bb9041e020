"""Sketches in SQL: estimate(union(visitors)) over the rows of a group, which Polars' SQL does not know.

    SELECT day, estimate(union(v)) * 2 AS n FROM t GROUP BY day ORDER BY n

    inner   SELECT day AS g0, ARRAY_AGG(v) AS u0 FROM t GROUP BY day       Polars
    here    u0 -> one sketch a row; estimate(u0) -> s0
    outer   SELECT g0 AS day, s0 * 2 AS n FROM … ORDER BY n                Polars

A SELECT without such a union is cut in two the same way: its rows, the functions of each, and the rest. The innermost SELECT
comes first. Memory: the rows of the inner part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

import polars as pl

from clickpipe.columns import Columns, kind_of
from clickpipe.core.aggregate import VALUE
from clickpipe.core.asked import united
from clickpipe.core.flat import GROUP
from clickpipe.core.functions import FUNCTIONS, compile
from clickpipe.errors import PlanError, Unsupported
from clickpipe.query.statement import MERGE_OF

if TYPE_CHECKING:
    from sqlglot import exp

Run = Callable[[str], "pl.DataFrame"]
_MERGES = (MERGE_OF, "merge")
_DIALECT = "duckdb"


def has_any(text: str) -> bool:
    """Whether a statement calls a function of sketches."""
    return re.search(rf"\b({'|'.join([*FUNCTIONS.names(), *_MERGES])})\s*\(", text, re.IGNORECASE) is not None


class Sketches:
    """Rewrites a statement. `run`: what a SELECT in SQL gives; `register`: makes a frame a table of this name."""

    def __init__(self, run: Run, register: Callable[[str, pl.DataFrame], None]) -> None:
        self._run, self._register, self._numbers = run, register, count()

    def rewritten(self, text: str) -> str:
        """The statement without functions of sketches. Raises PlanError."""
        from sqlglot import exp, parse_one
        from sqlglot.errors import SqlglotError

        try:
            tree = parse_one(text, read=_DIALECT)
        except SqlglotError:
            return text  # Polars says what is wrong
        while select := next((one for one in reversed(list(tree.find_all(exp.Select))) if _own_calls(one)), None):
            self._check_free(select)
            again = self._grouped(select) if any(_is_merge(call) for call in _own_calls(select)) else self._plain(select)
            if select is tree:
                tree = again
            else:
                select.replace(again)
        return str(tree.sql(dialect=_DIALECT))

    def _check_free(self, select: exp.Select) -> None:
        from sqlglot import exp

        if select.find_ancestor(exp.Select) and any(isinstance(one, exp.With) for one in select.walk()):
            raise Unsupported("notimpl", "functions of sketches below WITH in a sub-query", "take the WITH to the beginning")

    def _grouped(self, select: exp.Select) -> exp.Select:
        """Of rows of groups."""
        from sqlglot import exp

        groups = _groups(select)
        names: dict[str, exp.Expr] = {f"g{number}": group for number, group in enumerate(groups)}
        merges = _distinct([call for call in _own_calls(select) if _is_merge(call)])
        merged = {f"u{number}": call for number, call in enumerate(merges)}
        others = _distinct([one for part in _answers(select) for one in _own(part, exp.AggFunc) if not _own_calls(one)])
        aggregates = {f"a{number}": one for number, one in enumerate(others)}

        inner = exp.Select()
        inner.set("with_", _popped(select, "with_"))
        for key in ("from_", "joins", "where", "laterals"):
            inner.set(key, _popped(select, key))
        for name, group in names.items():
            inner = inner.select(exp.alias_(group.copy(), name), copy=False)
        for name, call in merged.items():
            inner = inner.select(exp.alias_(exp.ArrayAgg(this=_arguments(call)[0].copy()), name), copy=False)
        for name, one in aggregates.items():
            inner = inner.select(exp.alias_(one.copy(), name), copy=False)
        if groups:
            inner = inner.group_by(*(group.copy() for group in groups), copy=False)
        rows = self._run(str(inner.sql(dialect=_DIALECT)))
        rows = rows.with_columns(_united(rows[name]).alias(name) for name in merged)
        return self._outer(select, rows, [*_items(names), *_items(merged), *_items(aggregates)])

    def _plain(self, select: exp.Select) -> exp.Select:
        """Of rows each by itself."""
        from sqlglot import exp

        if select.args.get("joins"):
            reason = "put the join into a sub-query: FROM (SELECT … JOIN …)"
            raise Unsupported("notimpl", "functions of sketches in a SELECT with a join", reason)
        inner = exp.Select(expressions=[exp.Star()])
        inner.set("with_", _popped(select, "with_"))
        inner.set("from_", _popped(select, "from_"))
        where = select.args.get("where")
        if where is not None and not _own_calls(where):
            inner.set("where", _popped(select, "where"))
        for column in select.find_all(exp.Column):
            column.set("table", None)
        return self._outer(select, self._run(str(inner.sql(dialect=_DIALECT))), [])

    def _outer(self, select: exp.Select, rows: pl.DataFrame, known: list[tuple[exp.Expr, str]]) -> exp.Select:
        """The rest of a SELECT over the rows of its inner part. `known`: what stands in which column."""
        from sqlglot import exp

        titles = [one.alias_or_name or one.sql(dialect=_DIALECT).lower() for one in select.expressions]
        if known:
            _put_in(select, dict(known))
            if having := _popped(select, "having"):
                select.set("where", exp.Where(this=having.this))
            _popped(select, "group")
        calls = _distinct(_outermost(select))
        for number, call in enumerate(calls):
            rows = rows.with_columns(_value(call, rows).alias(f"s{number}"))
        _put_in(select, {call: f"s{number}" for number, call in enumerate(calls)})
        select.set("expressions", [_titled(one, title) for one, title in zip(select.expressions, titles, strict=True)])
        name = f"sketched_{next(self._numbers)}"
        self._register(name, rows)
        return select.from_(name, copy=False)


def _titled(one: exp.Expr, title: str) -> exp.Expr:
    from sqlglot import exp

    return one if isinstance(one, exp.Alias | exp.Star) else exp.alias_(one, title, quoted=True)


def _own(tree: exp.Expr, kind: type[exp.Expr]) -> list[exp.Expr]:
    """Nodes of this kind that are not inside a SELECT of their own."""
    from sqlglot import exp

    nodes = tree.walk(prune=lambda node: isinstance(node, exp.Select) and node is not tree)
    return [one for one in nodes if isinstance(one, kind)]


def _own_calls(tree: exp.Expr) -> list[exp.Expr]:
    """Calls of functions of sketches."""
    from sqlglot import exp

    return [one for one in _own(tree, exp.Func) if _name(one) in (*FUNCTIONS.names(), *_MERGES)]


def _outermost(select: exp.Expr) -> list[exp.Expr]:
    """Calls that stand in no other one."""
    calls = _own_calls(select)
    inside = {id(one) for call in calls for one in call.walk() if one is not call}
    return [call for call in calls if id(call) not in inside]


def _name(call: exp.Expr) -> str:
    from sqlglot import exp

    return str(call.name if isinstance(call, exp.Anonymous) else call.key).lower()


def _arguments(call: exp.Expr) -> list[Any]:
    from sqlglot import exp

    if isinstance(call, exp.Anonymous):
        return list(call.expressions)
    return [value for value in (call.this, *call.args.get("expressions", ())) if value is not None]


def _is_merge(call: exp.Expr) -> bool:
    return _name(call) in _MERGES and len(_arguments(call)) == 1


def _answers(select: exp.Select) -> list[exp.Expr]:
    """The parts of a SELECT that speak of groups."""
    parts = [*select.expressions, select.args.get("having"), select.args.get("order")]
    return [part for part in parts if part is not None]


def _groups(select: exp.Select) -> list[exp.Expr]:
    """What the rows are grouped by: names and numbers of what is selected are that itself. Raises Unsupported."""
    from sqlglot import exp

    group = select.args.get("group")
    if group is None:
        return []
    if group.args.get("all") or any(group.args.get(kind) for kind in ("rollup", "cube", "grouping_sets")):
        raise Unsupported("notimpl", "functions of sketches with GROUP BY ALL, ROLLUP or CUBE", "name what the groups are")
    selected = {one.alias: one.this for one in select.expressions if isinstance(one, exp.Alias)}
    found: list[exp.Expr] = []
    for one in group.expressions:
        if isinstance(one, exp.Literal) and not one.is_string:
            one = select.expressions[int(one.this) - 1]
            one = one.this if isinstance(one, exp.Alias) else one
        elif isinstance(one, exp.Column) and not one.table and one.name in selected:
            one = selected[one.name]
        found.append(one.copy())
    return found


def _popped(select: exp.Expr, key: str) -> Any:
    value = select.args.get(key)
    select.set(key, None)
    return value


def _distinct(found: list[exp.Expr]) -> list[exp.Expr]:
    kept: list[exp.Expr] = []
    for one in found:
        if one not in kept:
            kept.append(one)
    return kept


def _items(names: Mapping[str, exp.Expr]) -> list[tuple[exp.Expr, str]]:
    return [(one.copy(), name) for name, one in names.items()]


def _put_in(select: exp.Expr, names: Mapping[exp.Expr, str]) -> None:
    """Columns in the places of what they hold, the largest parts first."""
    from sqlglot import exp

    for one in list(select.walk(bfs=True)):
        if one is not select and one in names:
            one.replace(exp.column(names[one]))


def _united(lists: pl.Series) -> pl.Series:
    """Lists of sketches -> one sketch each; null of none."""
    groups = pl.Series(range(lists.len()), dtype=pl.UInt32).alias(GROUP)
    flat = pl.DataFrame([groups, lists.alias(VALUE)]).explode(VALUE).drop_nulls()
    if flat[VALUE].dtype != pl.String:
        raise PlanError("union() of one column is for sketches, which are text", hint="sketch … | sink archive:NAME keeps them")
    found = united(flat[VALUE], flat[GROUP])
    return groups.to_frame().join(found, on=GROUP, how="left", maintain_order="left")[VALUE]


def _value(call: exp.Expr, rows: pl.DataFrame) -> pl.Series:
    """What a call says of each row."""
    columns = Columns({name: _kind(kind) for name, kind in rows.schema.items()})
    compiled = compile(call.sql(dialect=_DIALECT, normalize_functions="lower"), columns)
    return rows.select(compiled.expr.alias("value")).to_series() if rows.height else pl.Series("value", [], pl.Float64)


def _kind(type_: Any) -> str:
    return "time" if isinstance(type_, pl.Datetime) else kind_of(type_)
