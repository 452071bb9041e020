"""Expression text -> Polars expression, checked against the columns it will see.

Expressions are SQL, parsed by Polars. What is checked here is what would otherwise fail, or
silently depend on batch sizes, while records flow.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

from clickpipe.columns import Columns, kind_of
from clickpipe.errors import ClickpipeError, PlanError, near

# Polars reads 3.0 as a decimal, and 1 / 3.0 as 0.3333333; with an exponent it is a double.
_LITERAL = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|(?<![\w.])(?P<number>\d+\.\d*|\.\d+)(?![\w.])""")
_ACROSS = frozenset(
    "Agg Len Over Window Explode Implode NullCount Quantile Rank Shift Range Filter Slice Sort SortBy Gather CumSum".split()
)
_FUNCTION = re.compile(r"unsupported function '(\w+)'")
_COMMON = (
    "abs ceil coalesce concat contains date_part ends_with floor greatest ifnull left length like log lower ltrim "
    "nullif regexp_like replace reverse right round rtrim sign split_part sqrt starts_with strpos substr trim upper"
).split()


@dataclass(frozen=True)
class Expression:
    """One parsed expression, the columns it reads and the type it gives. `name`: that of AS NAME, if it ends so; `most_rows`: of
    how many records it is to be computed at once."""

    text: str
    expr: pl.Expr
    reads: tuple[str, ...]
    kind: str
    name: str | None = None
    most_rows: int | None = None


def parse(text: str) -> pl.Expr:
    """Raises PlanError for what is not an SQL expression."""
    try:
        return _as_sql_means(pl.sql_expr(as_doubles(text)))
    except pl.exceptions.PolarsError as error:
        raise _spoken(text, str(error)) from None
    except BaseException as error:  # a panic inside Polars is not an Exception
        if type(error).__name__ != "PanicException":
            raise
        raise PlanError(f"cannot read the expression {text!r}", word=text) from None


def _as_sql_means(expr: pl.Expr) -> pl.Expr:
    """Two of Polars' functions give other digits than SQL: division by a constant, and round."""
    said = expr.meta.serialize(format="json")
    if '"Div"' not in said and '"Round"' not in said:
        return expr
    return rewritten(expr, _mended)


Rule = Callable[[Any, Callable[[Any], Any]], Any]


def rewritten(expr: pl.Expr, rule: Rule) -> pl.Expr:
    """The expression with parts of its tree replaced. `rule`: a part, and what rewrites those inside it -> what stands in its
    place; None: the same, with what is inside it rewritten."""

    def again(tree: Any) -> Any:
        if (instead := rule(tree, again)) is not None:
            return instead
        match tree:
            case dict():
                return {key: again(value) for key, value in tree.items()}
            case list():
                return [again(item) for item in tree]
        return tree

    said = json.loads(expr.meta.serialize(format="json"))
    return pl.Expr.deserialize(io.StringIO(json.dumps(again(said))), format="json")


def _mended(tree: Any, again: Callable[[Any], Any]) -> Any:
    match tree:
        case {"Function": {"input": [left, {"Literal": _} as right], "function": {"Sql": {"Binary": "Div"}}}} if (
            "Literal" not in left
        ):
            # Polars multiplies by 1 / constant, which is off by a digit: a constant in each row is divided by.
            zero = _binary(again(left), "Multiply", {"Literal": {"Dyn": {"Int": 0}}})
            divided = {"input": [again(left), _binary(zero, "Plus", right)], "function": {"Sql": {"Binary": "Div"}}}
            return {"Function": divided}
        case {"Function": {"input": inputs, "function": {"Sql": {"Round": {"decimals": decimals}}}}}:
            # Polars rounds 2.5 to 2, the nearest even number.
            rounded = {"Round": {"decimals": decimals, "mode": "HalfAwayFromZero"}}
            return {"Function": {"input": again(inputs), "function": rounded}}
    return None


def _binary(left: Any, op: str, right: Any) -> dict[str, Any]:
    return {"BinaryExpr": {"left": left, "op": op, "right": right}}


def as_doubles(text: str) -> str:
    """The same SQL, whose numbers with a point are doubles."""
    return _LITERAL.sub(_as_double, text)


def _as_double(match: re.Match[str]) -> str:
    return f"{match[0]}e0" if match["number"] else match[0]


def compile(text: str, given: Columns, *, expr: pl.Expr | None = None) -> Expression:
    """An expression that is computed record by record. Raises PlanError."""
    if expr is None:  # a column alone is one, also where SQL has a word like it: user, date
        expr = pl.col(text) if text in given.types else parse(text)
    reads = _reads(expr, text, given)
    if _looks_across(expr):
        raise PlanError(f"{text!r} looks at more than one record; summaries belong to aggregate", word=text)
    frame = pl.DataFrame(schema=given.schema(reads) or {"\0": pl.Int8})
    try:
        expr = _plain(expr, frame.lazy().select(expr.alias("value")).collect_schema()["value"], text)
        kind = kind_of(frame.lazy().select(expr.alias("value")).collect_schema()["value"])
        frame.select(expr)
    except pl.exceptions.PolarsError as error:
        raise PlanError(f"{_first_line(error)} in {text!r}", word=text, notes=[_types(given, reads)]) from None
    name = None if expr.meta.undo_aliases().meta.eq(expr) else expr.meta.output_name()
    return Expression(text, expr, reads, _kept_kind(expr, given, kind), name)


def _looks_across(expr: pl.Expr) -> bool:
    """Whether a record's value depends on other records too: it would change with the size of a batch."""
    # Polars' own is_row_separable says yes to `x > avg(x)`, so the tree is looked at.
    return not _ACROSS.isdisjoint(_nodes(orjson.loads(expr.meta.serialize(format="json"))))


def _nodes(tree: Any) -> Iterator[str]:
    match tree:
        case dict():
            for kind, inner in tree.items():
                if kind not in ("Column", "Literal", "StringExpr"):  # a "Slice" of text is no slice of records
                    yield kind
                    yield from _nodes(inner)
        case list():
            for inner in tree:
                yield from _nodes(inner)
        case str():
            yield tree


def condition(compiled: Expression) -> Expression:
    """The same, if it says true or false of a record. Raises PlanError."""
    text = compiled.text
    if compiled.kind != "bool":
        hint = 'compare it with something, as in "status >= 500"'
        raise PlanError(f"{text!r} is {compiled.kind}, not true or false", hint=hint, word=text)
    if compiled.name:
        raise PlanError(f'a condition has no name: what is "{compiled.name}" in {text!r}?', word=compiled.name)
    return compiled


def _reads(expr: pl.Expr, text: str, given: Columns) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(expr.meta.root_names()))
    for name in names:
        if name.startswith("_POLARS_TMP"):
            raise PlanError(f"a sub-query cannot be used here: {text!r}", word=text)
    try:
        given.need(names, f" (in {text!r})" if text not in names else "")
    except ClickpipeError as error:
        if f"'{error.word}'" not in text and f'"{error.word}"' in text:
            error.hint, error.notes = f"in SQL, text stands in single quotes: '{error.word}'", error.notes[:1]
        raise
    return names


def _plain(expr: pl.Expr, type_: pl.DataType, text: str) -> pl.Expr:
    """The expression in one of the types that a stream has."""
    if type_.is_integer() and type_ != pl.Int64:
        return expr.cast(pl.Int64)
    if type_.is_numeric() and type_ not in (pl.Int64, pl.Float64):
        return expr.cast(pl.Float64)
    if type_.is_temporal() or type_ == pl.Null:
        return expr.cast(pl.String)
    if type_.is_nested() or type_ == pl.Binary:
        raise PlanError(f"{text!r} is a {str(type_).split('(')[0].lower()}, which a record cannot hold here", word=text)
    return expr


def _kept_kind(expr: pl.Expr, given: Columns, kind: str) -> str:
    """A bare column keeps its type: those that Polars does not know are time, json and sketch."""
    plain = expr.meta.undo_aliases()
    if plain.meta.is_column() and (kept := given.types.get(plain.meta.output_name())) in ("time", "json", "sketch"):
        return str(kept)
    return kind


def _spoken(text: str, message: str) -> PlanError:
    match = _FUNCTION.search(message)
    if match:
        name = match[1].lower()
        if name in _COMMON:
            return PlanError(f"{name}() is not called so, in {text!r}", word=text)
        return PlanError(f"no function {match[1]}()", hint=near(name, _COMMON), word=text)
    return PlanError(f"{message.splitlines()[0]}" if "parse" in message else f"{message.splitlines()[0]} in {text!r}", word=text)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def _types(given: Columns, names: tuple[str, ...]) -> str:
    return "columns: " + ", ".join(f"{name} {given.types[name]}" for name in names)
