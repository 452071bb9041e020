"""`paid="count(*) FILTER (WHERE event = 'purchase')"` -> a named call of a function.

Aggregates are SQL. The plain shapes, `count(*)`, `avg(latency_ms)` and `approx_quantile(latency_ms, 0.99)`, are
recognised by a pattern; everything else is parsed by sqlglot, which takes 130 ms to import.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from clickpipe.errors import PlanError
from clickpipe.readable import readable

if TYPE_CHECKING:
    from sqlglot import exp

_NAMED = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)", re.DOTALL)
_PLAIN = re.compile(
    r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*\(\s*(\*|[A-Za-z_][A-Za-z0-9_]*)\s*((?:,\s*(?:[0-9]+(?:\.[0-9]+)?)\s*)*)\)\s*"
)
_WHOLE, _SHOWN = 2.0**63, 40
_HELD = "integers of 64 bits, and finite doubles"
_FUNCTION = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*\(")
SYNONYMS = {
    "mean": "avg",
    "average": "avg",
    "variance": "var",
    "var_samp": "var",
    "stddev_samp": "stddev",
    "std": "stddev",
    "first_value": "first",
    "last_value": "last",
    "any_value": "first",
    "max_by": "arg_max",
    "min_by": "arg_min",
    "every": "bool_and",
    "some": "bool_or",
    "quantile": "quantile_disc",
    "percentile_disc": "quantile_disc",
    "percentile_cont": "quantile_cont",
    "group_concat": "string_agg",
    "array_agg": "list",
    "approx_count_distinct": "approx_distinct",
    "approx_percentile": "approx_quantile",
}


def is_whole(value: Any, least: float = -math.inf, most: float = math.inf) -> TypeGuard[int]:
    """Whether a constant is a whole number between these."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


@dataclass(frozen=True)
class Argument:
    """What stands behind the first argument: an expression, and its value where that is a constant."""

    text: str
    is_constant: bool = False
    value: Any = None


@dataclass(frozen=True)
class Named:
    """One call as it was written. `argument` is an SQL expression or `*`."""

    name: str
    text: str
    function: str
    argument: str
    more: tuple[Argument, ...] = ()
    where: str | None = None


def parse_call(word: str) -> Named:
    """Raises PlanError for what is not NAME=FUNCTION(…), or cannot be read."""
    match = _NAMED.fullmatch(word)
    if not match:
        raise PlanError(f"{word!r} has no name", hint=f"as in: n='{word}'", word=word)
    name, text = match[1], match[2].strip()
    plain = _PLAIN.fullmatch(text)
    if plain:
        return Named(name, text, _spoken(plain[1]), plain[2], tuple(map(_plain_number, plain[3].split(",")[1:])))
    with readable(text):
        return _parsed(name, text)


def _plain_number(text: str) -> Argument:
    return Argument(text.strip(), True, _number(text.strip()))


def _number(text: str) -> int | float:
    """Raises PlanError for what no column can hold."""
    number = float(text)
    has_digits_only = set(text).isdisjoint(".eE")
    if math.isinf(number) or (has_digits_only and number > _WHOLE):
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        raise PlanError(f"{shown} is more than a column can hold", hint=_HELD, word=text)
    return int(text) if has_digits_only else number


def _spoken(function: str) -> str:
    return SYNONYMS.get(function.lower(), function.lower())


def _parsed(name: str, text: str) -> Named:
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    begins = _FUNCTION.match(text)
    if begins and text[begins.end() :].strip() == ")":
        raise _no_argument(begins[1], text)
    try:  # under a name that means nothing to SQL: set, distinct, union
        node = parse_one(f"called{text[begins.end() - 1 :]}" if begins else text, dialect="duckdb")
    except SqlglotError as error:
        first = str(error).split("\n", 1)[0].split(". Line")[0]
        raise PlanError(f"cannot read {text!r}: {first}", word=text) from None
    where = None
    if isinstance(node, exp.Filter):
        where, node = node.expression.this.sql(dialect="duckdb"), node.this
    if not begins or not isinstance(node, exp.Anonymous):
        raise PlanError(
            f"{text!r} is not one call of an aggregate", hint="compute with its result in a select after it", word=text
        )
    function, arguments = _spoken(begins[1]), node.expressions
    if arguments and isinstance(arguments[0], exp.Distinct):
        if function != "count":
            raise PlanError(f"{function}(DISTINCT …) is not supported; count(DISTINCT …) is", word=text)
        function, arguments = "count_distinct", arguments[0].expressions
        if len(arguments) > 1:
            hint = "of several together: count(DISTINCT a || ' ' || b)"
            raise PlanError(f"count(DISTINCT …) is of one expression, and not of {len(arguments)}", hint=hint, word=text)
    if not arguments:
        raise _no_argument(function, text)
    argument, *more = arguments
    return Named(name, text, function, argument.sql(dialect="duckdb"), tuple(map(_argument, more)), where)


def _no_argument(function: str, text: str) -> PlanError:
    return PlanError(f"{function}() needs an argument", hint=f"as in: {function}(x)", word=text)


def parse_argument(text: str) -> Argument:
    """Raises PlanError for what cannot be read."""
    from sqlglot import parse_one
    from sqlglot.errors import SqlglotError

    try:
        return _argument(parse_one(text, dialect="duckdb"))
    except SqlglotError:
        raise PlanError(f"cannot read {text!r}", word=text) from None


def _argument(node: exp.Expr) -> Argument:
    text = node.sql(dialect="duckdb")
    try:
        return Argument(text, True, _constant(node))
    except ValueError:
        return Argument(text)


def _constant(node: exp.Expr) -> Any:
    """Numbers, texts, truth, and lists of them. Raises ValueError for an expression."""
    from sqlglot import exp

    match node:
        case exp.Literal(is_string=True) | exp.Boolean():
            return node.this
        case exp.Literal():
            return _number(node.this)
        case exp.Neg():
            return -_constant(node.this)
        case exp.Array():
            return [_constant(item) for item in node.expressions]
        case _:
            raise ValueError("not a constant")
