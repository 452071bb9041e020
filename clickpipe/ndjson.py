"""Lines of JSON -> columns, with the fate of every bad line decided by that line alone.

Two judges. Polars reads a whole block when nothing is wrong with it: that is the fast path.
When it refuses, orjson says of each line whether it is one JSON object, and a comparison of
each cell as text with the same cell as its type says where a value does not fit. The slow
path is still columnar but for one call of orjson per line, so junk costs the same however
much of it there is. (Bisecting with Polars was measured too: 10 % junk made it 100 times
slower.) Both paths agree on every line; `tests/test_ndjson.py` holds them to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import polars as pl

LONGEST_LINE = 1 << 20
_PROBE = LONGEST_LINE // 2
_NOTHING = {"\0": pl.String}  # a schema that asks for no column: the syntax is judged all the same
_DEEP = 500  # brackets in a line from which Polars' depth limit must be asked for
_SURROGATE = re.compile(rb"\\u[dD]")


@dataclass
class Parsed:
    """A block of lines, read.

    Shape: `frame` has one row per good line; `rows` are those lines' numbers in the block, None
    when all are good; `wrong` holds for some columns a mask of the cells whose value does not
    fit (the frame has null there); `floats` names the integer columns that hold a float.
    """

    frame: pl.DataFrame
    rows: list[int] | None = None
    bad: list[tuple[int, str]] = field(default_factory=list)  # line number, reason
    wrong: dict[str, pl.Series] = field(default_factory=dict)
    floats: set[str] = field(default_factory=set)


def parse(block: bytes, count: int | None, schema: Mapping[str, Any], nested: Sequence[str] = ()) -> Parsed:
    """Read the `count` lines of `block`, as the columns of `schema`; those in `nested` as JSON text.

    `count` None: nobody needs to know which line a row came from, and blank lines need not be found.
    """
    typed = {name: kind for name, kind in schema.items() if name not in nested}
    parsed = _parse(block, count, typed)
    if nested:
        parsed.frame = parsed.frame.with_columns(**_nested(block, parsed.rows, nested)).select(list(schema))
    return parsed


def _nested(block: bytes, rows: list[int] | None, names: Sequence[str]) -> dict[str, pl.Series]:
    """Values of any kind, as JSON. One call of orjson a line: Polars would respell what is inside."""
    lines = block.split(b"\n")
    values = [orjson.loads(line) for line in (lines if rows is None else (lines[row] for row in rows)) if line.strip()]
    return {
        name: pl.Series([None if (v := value.get(name)) is None else orjson.dumps(v).decode() for value in values], dtype=pl.String)
        for name in names
    }


def _parse(block: bytes, count: int | None, schema: Mapping[str, Any]) -> Parsed:
    frame = None if _is_suspect(block) else _strict(block, schema)
    if frame is not None and count in (frame.height, None):
        return Parsed(frame)
    if frame is not None and frame.height == len(rows := _filled(block)):
        return Parsed(frame, rows)
    return _line_by_line(block, schema)


def _filled(block: bytes) -> list[int]:
    """Numbers of the lines that are not blank."""
    return [number for number, line in enumerate(block.split(b"\n")) if line and not line.isspace()]


def _is_suspect(block: bytes) -> bool:
    """Whether the block may hold what Polars takes and we do not: lone surrogates, endless lines."""
    # One byte is found at memory speed, two are not: most blocks hold no backslash at all.
    if b"\\" in block and _SURROGATE.search(block):
        return True
    return any(block.find(b"\n", at, at + _PROBE) < 0 for at in range(0, len(block) - _PROBE, _PROBE))


def _strict(block: bytes, schema: Mapping[str, Any]) -> pl.DataFrame | None:
    if not block:
        return pl.DataFrame(schema=dict(schema))
    try:
        return pl.read_ndjson(block, schema=dict(schema) or _NOTHING)
    except (pl.exceptions.PolarsError, OSError):
        return None


def _line_by_line(block: bytes, schema: Mapping[str, Any]) -> Parsed:
    rows: list[int] = []
    good: list[bytes] = []
    bad: list[tuple[int, str]] = []
    for number, line in enumerate(block.split(b"\n")):
        if not line or line.isspace():
            continue
        reason = _reason_against(line)
        if reason:
            bad.append((number, reason))
        else:
            rows.append(number)
            good.append(line)
    parsed = _by_type(good, schema)
    parsed.rows, parsed.bad = rows, bad
    return parsed


def _reason_against(line: bytes) -> str:
    """Why this line is not a record; empty when it is."""
    if len(line) > LONGEST_LINE:
        return f"longer than {LONGEST_LINE} bytes"
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _spoken(error)
    if not isinstance(value, dict):
        return "not a JSON object"
    if line.count(b"[") + line.count(b"{") > _DEEP and _strict(line, {}) is None:
        return "nested too deep"
    return ""


def _spoken(error: orjson.JSONDecodeError) -> str:
    if "surrogate" in error.msg:
        return "a lone surrogate"
    if "depth" in error.msg or "recursion" in error.msg:
        return "nested too deep"
    if "utf-8" in error.msg.lower() or "utf8" in error.msg.lower():
        return "not UTF-8"
    return f"not JSON: {error.msg.split(':')[0]}"


def _by_type(lines: list[bytes], schema: Mapping[str, Any]) -> Parsed:
    """Lines of good syntax -> columns, and the cells whose value is not of its column's type."""
    block = b"\n".join(lines)
    typed = _strict(block, schema)
    if typed is not None:
        return Parsed(typed)
    typed = pl.read_ndjson(block, schema=dict(schema), ignore_errors=True)
    checked = {name: type_ for name, type_ in schema.items() if type_ != pl.String}
    text = pl.read_ndjson(block, schema=dict.fromkeys(checked, pl.String), ignore_errors=True)
    wrong = {name: text[name].is_not_null() & typed[name].is_null() for name in checked}
    return Parsed(
        typed,
        wrong={name: mask for name, mask in wrong.items() if mask.any()},
        floats={name for name in wrong if checked[name] == pl.Int64 and _has_float(block, text, name, wrong[name])},
    )


def _has_float(block: bytes, text: pl.DataFrame, name: str, wrong: pl.Series) -> bool:
    """Whether a cell that is no integer is a float, and not merely an integer beyond 64 bits."""
    if not wrong.any():
        return False
    real = pl.read_ndjson(block, schema={name: pl.Float64}, ignore_errors=True)[name]
    beyond = text[name].str.contains(r"^-?\d+$") & (real.abs() >= 2.0**63)
    return bool((wrong & real.is_not_null() & ~beyond).any())
