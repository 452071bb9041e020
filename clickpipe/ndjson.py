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
_PIECE = 256 << 10
_SHORT = 900  # bytes of a line that cannot be nested too deep, nor too long
_PYTHON: dict[Any, tuple[type, ...]] = {pl.Int64: (int,), pl.Float64: (float, int), pl.Boolean: (bool,)}
_BEGINS = (b"{", b" ", b"\t", b"\r", b"\n", b"")
_DEEP = 500  # brackets in a line from which Polars' depth limit must be asked for
_SURROGATE = re.compile(rb"\\u[dD]")


@dataclass(frozen=True)
class Line:
    """A line that gave trouble. Unit: `offset` in bytes from the beginning of the block."""

    number: int
    offset: int
    text: bytes


@dataclass
class Parsed:
    """A block of lines, read.

    Shape: `frame` has one row per good line; `rows` are those lines' numbers in the block, None
    when all are good; `wrong` holds for some columns a mask of the cells whose value does not
    fit (the frame has null there), and `doubtful` the lines they stand in, by number; `floats`
    names the integer columns that hold a float.
    """

    frame: pl.DataFrame
    rows: list[int] | None = None
    bad: list[tuple[Line, str]] = field(default_factory=list)
    wrong: dict[str, pl.Series] = field(default_factory=dict)
    doubtful: dict[int, Line] = field(default_factory=dict)
    floats: set[str] = field(default_factory=set)

    def is_clean(self) -> bool:
        return not self.bad and not self.wrong


def parse(
    block: bytes, count: int | None, schema: Mapping[str, Any], nested: Sequence[str] = (), *, expect_bad: bool = False
) -> Parsed:
    """Read the `count` lines of `block`, as the columns of `schema`; those in `nested` as JSON text.

    `count` None: nobody needs to know which line a row came from, and blank lines need not be found.
    `expect_bad`: the block before held bad lines, so trying the whole of this one first would be in vain.
    """
    typed = {name: kind for name, kind in schema.items() if name not in nested}
    parsed = (None if expect_bad else _whole(block, count, typed)) or _by_pieces(block, typed)
    if nested:
        parsed.frame = parsed.frame.with_columns(**_nested(block, parsed.rows, nested)).select(list(schema))
    return parsed


def _nested(block: bytes, rows: list[int] | None, names: Sequence[str]) -> dict[str, pl.Series]:
    """Values of any kind, as JSON. One call of orjson a line: Polars would respell what is inside."""
    lines = block.split(b"\n")
    values = [orjson.loads(line) for line in (lines if rows is None else (lines[row] for row in rows)) if line.strip()]
    return {
        name: pl.Series(
            [None if (v := value.get(name)) is None else orjson.dumps(v).decode() for value in values], dtype=pl.String
        )
        for name in names
    }


def _whole(block: bytes, count: int | None, schema: Mapping[str, Any]) -> Parsed | None:
    """A block that is in order. None where Polars refuses it or must not be asked."""
    frame = None if _is_suspect(block) else _strict(block, schema)
    if frame is None:
        return None
    if count in (frame.height, None):
        return Parsed(frame)
    rows = [number for number, line in enumerate(block.split(b"\n")) if line and not line.isspace()]
    return Parsed(frame, rows) if frame.height == len(rows) else None


def _by_pieces(block: bytes, schema: Mapping[str, Any]) -> Parsed:
    """A block with something bad in it: most of its pieces are in order all the same."""
    frames: list[pl.DataFrame] = []
    rows: list[int] = []
    judged = _Judged()
    at = first = 0
    while at < len(block):
        end = block.find(b"\n", at + _PIECE) + 1 or len(block)
        piece = block[at:end]
        count = piece.count(b"\n") + (piece[-1:] != b"\n")
        whole = _whole(piece, count, schema)
        if whole:
            frames.append(whole.frame)
            rows += range(first, first + count) if whole.rows is None else [first + row for row in whole.rows]
        else:
            judged.add(piece, first, at, schema)
        at, first = end, first + count
    return _merged(frames, rows, judged, schema)


@dataclass
class _Judged:
    """Lines by their fate: as they should be, with values that may not fit their type, bad."""

    good: list[tuple[int, bytes]] = field(default_factory=list)
    doubtful: list[Line] = field(default_factory=list)
    bad: list[tuple[Line, str]] = field(default_factory=list)

    def add(self, piece: bytes, first: int, at: int, schema: Mapping[str, Any]) -> None:
        """Judge the lines of a piece that begins with line `first` at offset `at`. The only loop over lines."""
        kinds = [(name, _PYTHON[kind]) for name, kind in schema.items() if kind in _PYTHON]
        for number, line in enumerate(piece.split(b"\n"), first):
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                if line and not line.isspace():
                    self.bad.append((Line(number, at, line), _reason_against(line, error)))
            else:
                if (len(line) > _SHORT or value.__class__ is not dict) and (reason := _reason_against(line, None)):
                    self.bad.append((Line(number, at, line), reason))
                elif _fits(value, kinds):
                    self.good.append((number, line))
                else:
                    self.doubtful.append(Line(number, at, line))
            at += len(line) + 1


def _fits(value: dict[str, Any], kinds: list[tuple[str, tuple[type, ...]]]) -> bool:
    for name, kind in kinds:
        cell = value.get(name)
        if cell is not None and cell.__class__ not in kind:
            return False
    return True


def _merged(frames: list[pl.DataFrame], rows: list[int], judged: _Judged, schema: Mapping[str, Any]) -> Parsed:
    """All good lines as one frame, in the order of the input."""
    good, doubtful = judged.good, judged.doubtful
    frame = _strict(b"\n".join(line for _, line in good), schema)
    if frame is None:  # of duplicate keys orjson sees the last and Polars the first; and integers beyond 64 bits
        doubtful = sorted([*(Line(number, -1, line) for number, line in good), *doubtful], key=lambda line: line.number)
        good, frame = [], pl.DataFrame(schema=_asked(schema))
    careful = _by_type([line.text for line in doubtful], schema)
    every = pl.concat([*frames, frame, careful.frame])
    if not good and not doubtful:
        return Parsed(pl.concat(frames) if frames else frame, rows, judged.bad)
    numbers = [*rows, *(number for number, _ in good), *(line.number for line in doubtful)]
    order = pl.Series(numbers, dtype=pl.Int64).arg_sort()
    before = every.height - len(doubtful)
    wrong = {name: pl.concat([_falses(before), mask])[order] for name, mask in careful.wrong.items()}
    return Parsed(
        every[order],
        sorted(numbers),
        judged.bad,
        wrong,
        {line.number: line for line in doubtful} if wrong else {},
        careful.floats,
    )


def _falses(count: int) -> pl.Series:
    return pl.repeat(False, count, dtype=pl.Boolean, eager=True)


def _is_suspect(block: bytes) -> bool:
    """Whether the block may hold what Polars takes and we do not: lone surrogates, endless lines, packed data."""
    if block[:1] not in _BEGINS:
        return True
    # One byte is found at memory speed, two are not: most blocks hold no backslash at all.
    if b"\\" in block and _SURROGATE.search(block):
        return True
    return any(block.find(b"\n", at, at + _PROBE) < 0 for at in range(0, len(block) - _PROBE, _PROBE))


def _strict(block: bytes, schema: Mapping[str, Any]) -> pl.DataFrame | None:
    if not block:
        return pl.DataFrame(schema=_asked(schema))
    try:
        return pl.read_ndjson(block, schema=_asked(schema))
    except (pl.exceptions.PolarsError, OSError):
        return None


def _asked(schema: Mapping[str, Any]) -> dict[str, Any]:
    return dict(schema) or _NOTHING


def _reason_against(line: bytes, error: orjson.JSONDecodeError | None) -> str:
    """Why this line is not a record; empty when it is."""
    if len(line) > LONGEST_LINE:
        return f"longer than {LONGEST_LINE} bytes"
    if error:
        return _spoken(line, error)
    if not line.lstrip().startswith(b"{"):
        return "not a JSON object"
    if line.count(b"[") + line.count(b"{") > _DEEP and _strict(line, {}) is None:
        return "nested too deep"
    return ""


def _spoken(line: bytes, error: orjson.JSONDecodeError) -> str:
    if line.startswith(b"\xef\xbb\xbf"):
        return "not JSON: a byte order mark"
    if "depth" in error.msg or "recursion" in error.msg:
        return "nested too deep"
    if "utf-8" in error.msg.lower() or "utf8" in error.msg.lower():
        return "not UTF-8"
    if "surrogate" in error.msg:
        return "a lone surrogate"
    return f"not JSON: {error.msg.split(':')[0]}"


def _by_type(lines: list[bytes], schema: Mapping[str, Any]) -> Parsed:
    """Lines of good syntax -> columns, and the cells whose value is not of its column's type."""
    block = b"\n".join(lines)
    typed = _strict(block, schema)
    if typed is not None:
        return Parsed(typed)
    typed = pl.read_ndjson(block, schema=_asked(schema), ignore_errors=True)
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
