"""Times in expressions: a column of times holds milliseconds, and Polars would compare SQL's microseconds and days with them.

window_start >= TIMESTAMP '2026-03-01'       ->    window_start >= 1772323200000
window_start >= '2026-03-01T00:00:00Z'       ->    the same
latency_ms >= TIMESTAMP '2026-03-01'         ->    an error: a number of what?
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl

from clickpipe import sql
from clickpipe.columns import Columns
from clickpipe.core.time import parse_instant
from clickpipe.errors import PlanError

_COMPARING = frozenset("Eq NotEq Lt LtEq Gt GtEq EqValidity NotEqValidity".split())
_PER_MILLISECOND = {"Milliseconds": 1, "Microseconds": 1_000, "Nanoseconds": 1_000_000}
_DAY = 86_400_000


def with_instants(expr: pl.Expr, text: str, given: Columns) -> pl.Expr:
    """Raises PlanError for what is no time, and for a time that is compared with a number."""
    reads = [name for name in expr.meta.root_names() if name in given.types]
    times = {name for name in reads if given.types[name] == "time"}

    def rule(tree: Any, again: Callable[[Any], Any]) -> Any:
        match tree:
            case {"BinaryExpr": {"left": left, "op": op, "right": right}} if op in _COMPARING:
                sides = {"left": _beside(left, right, times), "op": op, "right": _beside(right, left, times)}
                _check(sides["left"], sides["right"])
                return {"BinaryExpr": {name: again(side) for name, side in sides.items()}}
        return None

    def _check(left: Any, right: Any) -> None:
        types = [_type(side, given.schema(reads)) for side in (left, right)]
        if any(one.is_temporal() for one in types) and any(one.is_numeric() for one in types):
            hint = "times that are numbers compare with numbers: 2026-03-01T00:00:00Z is 1772323200000 milliseconds"
            raise PlanError(f"{text!r} compares a time with a number", hint=hint, word=text)

    return sql.rewritten(expr, rule)


def _beside(side: Any, other: Any, times: set[str]) -> Any:
    """A constant, in milliseconds if what it is compared with is a time."""
    match side:
        case {"Literal": {"Scalar": {"String": str(said)}}} if other in [{"Column": name} for name in times]:
            try:
                return _number(parse_instant(said))
            except ValueError as error:
                raise PlanError(str(error), word=said) from None
        case {"Literal": {"Scalar": {"Datetime": [int(count), str(unit), _]}}} if not times.isdisjoint(_columns(other)):
            whole, rest = divmod(count, _PER_MILLISECOND[unit])
            return _number(count / _PER_MILLISECOND[unit] if rest else whole)
        case {"Literal": {"Scalar": {"Date": int(days)}}} if not times.isdisjoint(_columns(other)):
            return _number(days * _DAY)
    return side


def _number(milliseconds: float) -> Any:
    return json.loads(pl.lit(milliseconds).meta.serialize(format="json"))


def _columns(tree: Any) -> Iterator[str]:
    match tree:
        case {"Column": str(name)}:
            yield name
        case dict() | list():
            for inner in tree.values() if isinstance(tree, dict) else tree:
                yield from _columns(inner)


def _type(tree: Any, schema: dict[str, Any]) -> pl.DataType:
    """What a part of an expression gives; null where Polars will refuse it."""
    try:
        part = pl.Expr.deserialize(io.StringIO(json.dumps(tree)), format="json")
        return pl.LazyFrame(schema=schema).select(part.alias("value")).collect_schema()["value"]
    except pl.exceptions.PolarsError:
        return pl.Null()
