"""`paid="count(*) FILTER (WHERE event = 'purchase')"` -> a named call of an aggregate.

Aggregates are SQL. The plain shapes, `count(*)` and `avg(latency_ms)`, are recognised by a pattern;
everything else is parsed by sqlglot, which takes 130 ms to import.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clickpipe.errors import PlanError

if TYPE_CHECKING:
    from sqlglot import exp

_NAMED = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)", re.DOTALL)
_PLAIN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*\(\s*(\*|[A-Za-z_][A-Za-z0-9_]*)\s*\)\s*")
_FUNCTION = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*\(")
_SYNONYMS = {
    "mean": "avg",
    "average": "avg",
    "variance": "var",
    "var_samp": "var",
    "stddev_samp": "stddev",
    "std": "stddev",
    "first_value": "first",
    "last_value": "last",
}


@dataclass(frozen=True)
class Named:
    """One aggregate as it was written. `argument` is an SQL expression or `*`."""

    name: str
    text: str
    function: str
    argument: str
    where: str | None = None


def parse_call(word: str) -> Named:
    """Raises PlanError for what is not NAME=FUNCTION(…)."""
    match = _NAMED.fullmatch(word)
    if not match:
        raise PlanError(f"{word!r} has no name", hint=f"NAME='{word}', as in clicks='count(*)'", word=word)
    name, text = match[1], match[2].strip()
    plain = _PLAIN.fullmatch(text)
    if plain:
        return Named(name, text, _spoken(plain[1]), plain[2])
    return _parsed(name, text)


def _spoken(function: str) -> str:
    return _SYNONYMS.get(function.lower(), function.lower())


def _parsed(name: str, text: str) -> Named:
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    begins = _FUNCTION.match(text)
    try:
        node = parse_one(text, dialect="duckdb")
    except SqlglotError as error:
        first = str(error).split("\n", 1)[0].split(". Line")[0]
        raise PlanError(f"cannot read {text!r}: {first}", word=text) from None
    where = None
    if isinstance(node, exp.Filter):
        where, node = node.expression.this.sql(dialect="duckdb"), node.this
    if not begins or not isinstance(node, exp.Func):
        raise PlanError(
            f"{text!r} is not one call of an aggregate", hint="compute with its result in a select after it", word=text
        )
    function, arguments = _spoken(begins[1]), _arguments(node)
    if arguments and isinstance(arguments[0], exp.Distinct):
        if function != "count":
            raise PlanError(f"{function}(DISTINCT …) is not supported; count(DISTINCT …) is", word=text)
        function, arguments = "count_distinct", arguments[0].expressions
    if len(arguments) != 1:
        raise PlanError(f"{function}() takes one argument, not {len(arguments)}", word=text)
    return Named(name, text, function, arguments[0].sql(dialect="duckdb"), where)


def _arguments(node: exp.Func) -> list[exp.Expression]:
    """All arguments of a call, however its class stores them."""
    from sqlglot import exp

    found: list[exp.Expression] = []
    for value in node.args.values():
        if isinstance(value, list):
            found += [item for item in value if isinstance(item, exp.Expression)]
        elif isinstance(value, exp.Expression):
            found.append(value)
    return found
