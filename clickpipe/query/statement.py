"""SQL as a person typed it -> SQL as Polars takes it, and where it is wrong.

TIMESTAMP '2026-03-01'      an instant in UTC, as all times here are
now()                       the moment at which the query began, the same throughout
ms('2026-03-01')            the same in epoch milliseconds, for event time that came as a number
3.0                         a double, not a decimal
union(visitors)             sketches of a group merged into one, written merge_of(visitors) inside: UNION is SQL's own word
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from clickpipe.core.time import instant_text, parse_instant
from clickpipe.errors import Place, PlanError, near
from clickpipe.query import tables
from clickpipe.query.tables import Table
from clickpipe.sql import as_doubles

MERGE_OF = "merge_of"  # what union(x) of one column is called inside

_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|[A-Za-z_]\w*|\d+(?:\.\d+)?|\s+|.""", re.DOTALL)
_BEFORE_A_CALL = re.compile(r"[(,=<>+*/|-]|select|by|having|when|then|else|and|or|not|on|distinct|limit", re.IGNORECASE)
_AT_LINE = re.compile(r"sql parser error: (?P<what>.*?)(?: at Line: (?P<line>\d+), Column: (?P<column>\d+))?$", re.DOTALL)


@dataclass(frozen=True)
class Statement:
    """`text`: for Polars; `names`: words of it that may be names of tables; `is_fixed`: says the same at any moment."""

    typed: str
    text: str
    names: frozenset[str]
    is_fixed: bool


def prepared(typed: str, now: int | None = None) -> Statement:
    """Raises PlanError. `now`: epoch milliseconds."""
    if not typed.strip():
        raise PlanError("no SQL", hint="clickpipe query 'SELECT * FROM NAME'")
    now = int(time.time() * 1_000) if now is None else now
    words = _TOKEN.findall(typed.rstrip().rstrip(";"))
    instead = list(_rewritten(words, now))
    is_fixed = not any(word.lower() in ("now", "random", "current_timestamp", "current_date", "current_time") for word in words)
    plain = [word for word in words if word[:1] not in "'-/ \n"]
    names = frozenset(word[1:-1].replace('""', '"') if word.startswith('"') else word for word in plain)
    return Statement(typed, as_doubles("".join(instead)), names, is_fixed)


def _rewritten(words: list[str], now: int) -> Iterator[str]:
    at = 0
    while at < len(words):
        word, low = words[at], words[at].lower()
        after = _next(words, at)
        call = words[after] == "(" if after else False
        if low in ("timestamp", "datetime") and _names_a_type(words, at):
            yield "TIMESTAMPTZ"
        elif low == "current_timestamp" or (low == "now" and call):
            yield f"TIMESTAMPTZ '{instant_text(now)}'"
            at = _closing(words, after) if low == "now" and call else at
        elif low == "ms" and call:
            end = _closing(words, after)
            yield str(_milliseconds("".join(words[after + 1 : end]).strip(), now))
            at = end
        elif low == "union" and call and _BEFORE_A_CALL.fullmatch(words[_before(words, at)] if at else "select"):
            yield MERGE_OF
        else:
            yield word
        at += 1


def _names_a_type(words: list[str], at: int) -> bool:
    """Whether it stands before a literal, or is what something is cast to; else it is a column's name."""
    after, before = _next(words, at), _before(words, at)
    is_literal = bool(after) and words[after].startswith("'")
    is_cast = at > 0 and (words[before].lower() == "as" or words[before] == ":")
    return is_literal or is_cast


def _milliseconds(argument: str, now: int) -> int:
    if argument.lower() == "now" or argument.lower().startswith("now"):
        return now
    try:
        return parse_instant(argument.strip("'"))
    except ValueError as error:
        raise PlanError(f"ms({argument}): {error}", word=argument) from None


def _next(words: list[str], at: int) -> int:
    """The place of the next word that is no white space, 0 for none."""
    return next((place for place in range(at + 1, len(words)) if not words[place].isspace()), 0)


def _before(words: list[str], at: int) -> int:
    return next((place for place in range(at - 1, -1, -1) if not words[place].isspace()), 0)


def _closing(words: list[str], opening: int) -> int:
    """The place of the parenthesis that closes this one. Raises PlanError."""
    depth = 0
    for place in range(opening, len(words)):
        depth += {"(": 1, ")": -1}.get(words[place], 0)
        if depth == 0:
            return place
    raise PlanError("a parenthesis is not closed")


def mentioned(statement: Statement) -> list[Table]:
    """Tables that the statement may read: those whose names stand in it."""
    every = tables.known()
    addresses = {name for name in statement.names if name.partition(":")[0] in tables.KINDS and name.partition(":")[2]}
    lowered = {name.lower() for name in statement.names}
    return [tables.find(name) for name in sorted({name for name in every if name.lower() in lowered} | addresses)]


def spoken(statement: Statement, error: Exception, found: Iterable[str]) -> PlanError:
    """What Polars says of a statement, for the person who typed it."""
    said = str(error).split("\n", 1)[0]
    if match := re.match(r"relation '(.*)' was not found", said):
        return tables.unknown(match[1])
    if match := _AT_LINE.match(said):
        return _placed(statement, match)
    if match := re.search(r"unable to find column \"(.*?)\"; valid columns: \[(.*)\]", said):
        given = [name.strip('" ') for name in match[2].split(",")]
        return PlanError(f'no column "{match[1]}"', hint=near(match[1], given), notes=[f"there are: {', '.join(given)}"])
    if "string value" in said or ("compar" in said and "str" in said):
        return PlanError(said, hint="event time that came as a number is compared as ms('2026-03-01') or as that number")
    return PlanError(said, notes=[f"tables: {', '.join(found) or 'none'}"])


def _placed(statement: Statement, match: re.Match[str]) -> PlanError:
    """With the place in the text, as it was typed, if that is where it is."""
    what = re.sub(r"^Expected: (.*), found: (.*)$", r"expected \1, found \2", match["what"])
    if match["line"] is None:
        return PlanError(what)
    line, column = int(match["line"]), int(match["column"])
    lines = statement.text.split("\n")
    if not 0 < line <= len(lines):
        return PlanError(what)
    error = PlanError(what)
    error.place = Place(lines[line - 1], column - 1, column, line if len(lines) > 1 else None)
    return error
