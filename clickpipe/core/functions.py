"""Expressions with functions of our own, which SQL does not know: those of sketches.

    estimate(union(a, b)) > 100    ->    f > 100    with    f = estimate(g)    with    g = union(a, b)

Calls are cut out of the text, and what is left is SQL over their results: over the fields of a struct that has them beside the
other columns. So all of it is one expression, as everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import polars as pl

from clickpipe import sql
from clickpipe.columns import Columns, dtype
from clickpipe.core.calls import parse_argument
from clickpipe.core.catalog import Catalog
from clickpipe.core.instants import with_instants
from clickpipe.errors import PlanError
from clickpipe.lazy import numpy_for_polars
from clickpipe.readable import readable
from clickpipe.sql import Expression

FUNCTIONS = Catalog("clickpipe.functions", "function", "_")
MORE = "…"  # in place of a last argument: as many more columns as one likes
_VALUE = "\0value"
_DEPTH = {"L_PAREN": 1, "R_PAREN": -1, "L_BRACKET": 1, "R_BRACKET": -1}
_Token = tuple[str, str, int, int]  # kind, text, begin, end


class Function:
    """`takes`: its arguments, as they are spoken of; the first `sketches` of them are columns, the others constants. The
    constructor takes the constants and raises PlanError."""

    takes: ClassVar[tuple[str, ...]]
    sketches: ClassVar[int] = 1
    column_types: ClassVar[tuple[str, ...]] = ("sketch", "str")  # the types of these columns
    column_word: ClassVar[str] = "sketches"  # and what they are called
    gives: str
    most_rows: ClassVar[int | None] = None  # that it takes at once, where a value may be much larger than a sketch

    def values(self, *columns: pl.Series) -> pl.Series:
        """Record by record; null where one of them is null. Raises Refused."""
        raise NotImplementedError


def compile(text: str, given: Columns, *, has_name: bool = False) -> Expression:
    """An expression that is computed record by record. Raises PlanError. `has_name`: it ends with AS NAME, but for a column."""
    with readable(text):
        return _compiled(text, given, has_name)


def _compiled(text: str, given: Columns, has_name: bool) -> Expression:
    calls = list(_calls(text)) if text not in given.types else []
    if not calls:
        return _plain(text, given, has_name=has_name)
    parts = [_part(call, given, place) for place, call in enumerate(calls)]
    rest, known = _without(text, calls, parts), given.add({part.name: part.function.gives for part in parts})
    try:
        inner = _plain(rest, known, has_name=has_name)
    except PlanError as error:
        raise _restored(error, calls, parts) from None
    mine = [name for name in inner.reads if name in given.types]
    fields = pl.struct(*mine, *(part.expr().alias(part.name) for part in parts))
    whole = fields.struct.with_fields(_of_fields(inner.expr).alias(_VALUE)).struct.field(_VALUE)
    reads = dict.fromkeys([*(name for part in parts for name in part.reads()), *mine])
    whole = whole.alias(inner.name) if inner.name else whole
    most_rows = least(rows for part in parts for rows in part.most_rows())
    return replace(inner, text=text, expr=whole, reads=tuple(reads), most_rows=most_rows)


def least(rows: Iterable[int | None]) -> int | None:
    return min((some for some in rows if some is not None), default=None)


def _plain(text: str, given: Columns, *, has_name: bool) -> Expression:
    """One without functions of our own."""
    if text in given.types and not has_name:
        return sql.compile(text, given)
    return sql.compile(text, given, expr=with_instants(sql.parse(text), text, given))


def predicate(text: str, given: Columns) -> Expression:
    """An expression that says true or false of a record."""
    return sql.condition(compile(text, given))


@dataclass(frozen=True)
class _Call:
    """A call in a text: of this function, from `begin` to `end`."""

    function: str
    arguments: tuple[str, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class _Part:
    """A call that was cut out, and the name in its place."""

    name: str
    function: Function
    arguments: tuple[Expression, ...]

    def reads(self) -> list[str]:
        return list(dict.fromkeys(name for argument in self.arguments for name in argument.reads))

    def most_rows(self) -> list[int | None]:
        return [self.function.most_rows, *(argument.most_rows for argument in self.arguments)]

    def expr(self) -> pl.Expr:
        numpy_for_polars()
        return pl.struct(self.reads()).map_batches(self._values, return_dtype=dtype(self.function.gives), is_elementwise=True)

    def _values(self, records: pl.Series) -> pl.Series:
        frame = records.struct.unnest()
        columns = [frame.select(argument.expr.alias(_VALUE)).to_series() for argument in self.arguments]
        return self.function.values(*columns)


def _calls(text: str) -> Iterator[_Call]:
    """Those of our functions, the outermost ones."""
    if not re.search(rf"\b({'|'.join(FUNCTIONS.names())})\s*\(", text, re.IGNORECASE):
        return
    from sqlglot import tokenize
    from sqlglot.errors import SqlglotError

    try:
        tokens = [
            (token.token_type.name, token.text.lower(), token.start, token.end + 1) for token in tokenize(text, read="duckdb")
        ]
    except SqlglotError:
        return  # Polars says what is wrong
    at = 0
    while at < len(tokens):
        end = _end(tokens, at)
        if end:
            said = tuple(text[begin:stop].strip() for begin, stop in _between(tokens[at + 1 : end + 1]))
            yield _Call(tokens[at][1], said if said != ("",) else (), tokens[at][2], tokens[end][3])
        at = max(at, end) + 1


def _end(tokens: Sequence[_Token], at: int) -> int:
    """Which token ends the call of a function of ours that begins here; 0: none does."""
    kind, name, *_ = tokens[at]
    if kind in ("STRING", "IDENTIFIER") or not FUNCTIONS.has(name):
        return 0
    depth = 0
    for place in range(at + 1, len(tokens)):
        depth += _DEPTH.get(tokens[place][0], 0)
        if depth <= 0:
            return place if place > at + 1 else 0
    return 0


def _between(tokens: Sequence[_Token]) -> Iterator[tuple[int, int]]:
    """Where arguments begin and end, in `(a, f(b, c))`."""
    depth, begin = 0, tokens[0][3]
    for kind, _, start, end in tokens[:-1]:
        depth += _DEPTH.get(kind, 0)
        if kind == "COMMA" and depth == 1:
            yield begin, start
            begin = end
    yield begin, tokens[-1][2]


def _part(call: _Call, given: Columns, place: int) -> _Part:
    function: type[Function] = FUNCTIONS.find(call.function, Function)
    spoken = f"{call.function}({', '.join(function.takes)})"
    has_more = function.takes[-1] == MORE
    fewest = sum(not name.startswith(("[", MORE)) for name in function.takes)
    if len(call.arguments) < fewest or (len(call.arguments) > len(function.takes) and not has_more):
        raise PlanError(f"{call.function}() has too few or too many arguments: it is {spoken}", word=call.function)
    sketches = len(call.arguments) if has_more else function.sketches
    arguments = tuple(compile(text, given) for text in call.arguments[:sketches])
    for argument in arguments:
        if argument.kind not in function.column_types:
            raise PlanError(
                f"{call.function}() needs {function.column_word}, and {argument.text} is {argument.kind}", word=argument.text
            )
        if not argument.reads:
            raise PlanError(f"{call.function}() needs a column of {function.column_word}", word=argument.text)
    constants = [_constant(text, spoken) for text in call.arguments[sketches:]]
    name = f"{call.function}_{place}"
    while name in given.types:
        name += "_"
    try:
        return _Part(name, function(*constants), arguments)
    except PlanError as error:
        error.word = error.word or call.function
        raise


def _constant(text: str, spoken: str) -> Any:
    said = parse_argument(text)
    if not said.is_constant:
        raise PlanError(f"{text} must be a constant in {spoken}", word=text)
    return said.value


def _without(text: str, calls: Sequence[_Call], parts: Sequence[_Part]) -> str:
    """The text with names in the places of calls."""
    at, said = 0, ""
    for call, part in zip(calls, parts, strict=True):
        said += f'{text[at : call.begin]}"{part.name}"'
        at = call.end
    return said + text[at:]


def _restored(error: PlanError, calls: Sequence[_Call], parts: Sequence[_Part]) -> PlanError:
    """In the words that were typed."""
    said = str(error)
    for call, part in zip(calls, parts, strict=True):
        said = said.replace(f'"{part.name}"', f"{call.function}({', '.join(call.arguments)})")
    return PlanError(said, hint=error.hint, word=calls[0].function)


def _of_fields(expr: pl.Expr) -> pl.Expr:
    """An expression of columns -> the same of a struct's fields."""

    def of_field(tree: Any, _: object) -> Any:
        match tree:
            case {"Column": str(name)}:
                return {"Field": [name]}
        return None

    return sql.rewritten(expr, of_field)
