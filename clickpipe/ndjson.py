"""Lines of JSON -> columns, with the fate of every bad line decided by that line alone.

Two judges. Polars reads a whole block when nothing is wrong with it: that is the fast path.
When it refuses, msgspec glances at the block in pieces, and in a piece that it does not pass, at
each line. What it passes goes back to Polars as one block, which has the last word on it; of the
other lines orjson says whether they are one JSON object, and a comparison of each cell as text with
the same cell as its type says where a value does not fit. So junk costs the same however
much of it there is. (Bisecting with Polars was measured too: 10 % junk made it 100 times slower.)
All paths agree on every line; `tests/test_ndjson.py` holds them to it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson
import polars as pl

LONGEST_LINE = 1 << 20
_PROBE = LONGEST_LINE // 2
_PIECE = 128 << 10
_MANY = 4  # lines of a piece that do not pass: the next piece is not tried as a whole
_BEGINS = (b"{", b" ", b"\t", b"\r", b"\n", b"")
_REFUSES = (ValueError, RecursionError)  # msgspec's words for a line that it does not read
_DEEP = 500  # brackets in a line from which Polars' depth limit must be asked for
# A surrogate without its other half; one behind two backslashes may be, or may be no escape at all.
_SURROGATE = re.compile(
    rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]|\\\\u[dD][89a-fA-F]", re.DOTALL
)


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
    rows: pl.Series | None = None
    bad: list[tuple[Line, str]] = field(default_factory=list)
    wrong: dict[str, pl.Series] = field(default_factory=dict)
    doubtful: dict[int, Line] = field(default_factory=dict)
    floats: set[str] = field(default_factory=set)

    def is_clean(self) -> bool:
        return not self.bad and not self.wrong


def parse(
    block: bytes,
    count: int | None,
    schema: Mapping[str, Any],
    nested: Sequence[str] = (),
    *,
    expect_bad: bool = False,
    is_ours: bool = False,
) -> Parsed:
    """Read the `count` lines of `block`, as the columns of `schema`; those in `nested` as JSON text.

    `count` None: nobody needs to know which line a row came from, and blank lines need not be found.
    `expect_bad`: the block before held bad lines, so trying the whole of this one first would be in vain.
    `is_ours`: a step has written the lines, and they may be of any length.
    """
    typed = {name: kind for name, kind in schema.items() if name not in nested}
    parsed = (None if expect_bad else _whole(block, count, typed, is_ours)) or _sifted(block, typed, is_ours)
    if nested:
        parsed.frame = parsed.frame.with_columns(**_nested(block, parsed.rows, nested)).select(list(schema))
    return parsed


def _nested(block: bytes, rows: pl.Series | None, names: Sequence[str]) -> dict[str, pl.Series]:
    """Values of any kind, as JSON. One call of orjson a line: Polars would respell what is inside."""
    lines = block.split(b"\n")
    values = [_first_fields(line, names) for line in (lines if rows is None else (lines[row] for row in rows)) if line.strip()]
    return {
        name: pl.Series([None if value.get(name) is None else _dumped(value[name]) for value in values], dtype=pl.String)
        for name in names
    }


def _first_fields(line: bytes, names: Sequence[str]) -> dict[str, Any]:
    """The object; of a name that comes twice the first value, as in all other columns."""
    record: dict[str, Any] = orjson.loads(line)
    if any(line.count(orjson.dumps(name)) > 1 for name in names):
        with _deep_recursion():
            record |= json.loads(line, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    return record


def _dumped(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # nested deeper than orjson writes, though not deeper than it reads
        with _deep_recursion():
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Room for the deepest value that Polars reads, some 1,020 levels."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 10_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _whole(block: bytes, count: int | None, schema: Mapping[str, Any], is_ours: bool) -> Parsed | None:
    """A block that is in order. None where Polars refuses it or must not be asked."""
    frame = None if _is_suspect(block, is_ours) else _strict(block, schema)
    if frame is None:
        return None
    if count in (frame.height, None):
        return Parsed(frame)
    rows = [number for number, line in enumerate(block.split(b"\n")) if line and not line.isspace()]
    return Parsed(frame, pl.Series(rows, dtype=pl.Int64)) if frame.height == len(rows) else None


def _sifted(block: bytes, schema: Mapping[str, Any], is_ours: bool) -> Parsed:
    """A block with something bad in it. Lines that pass a glance go to Polars together; the others are judged."""
    sieve = _Sieve(schema, is_ours)
    at = 0
    while at < len(block):
        end = block.find(b"\n", at + _PIECE) + 1 or len(block)
        sieve.add(block[at:end], at)
        at = end
    frame = _strict(b"".join(sieve.good), schema)
    if frame is None or frame.height != sieve.count - len(sieve.refused):  # too quick a glance: nothing is taken for granted
        sieve, frame = _Sieve(schema, is_ours), _empty(schema)
        sieve.refuse(block, 0)
    return _verdict(frame, sieve, schema)


class _Sieve:
    """Tells the lines that seem to be in order from the others. `good`: the former, as blocks of text."""

    def __init__(self, schema: Mapping[str, Any], is_ours: bool) -> None:
        self.is_ours = is_ours
        python: dict[Any, Any] = {pl.Int64: int, pl.Float64: float, pl.Boolean: bool}
        names = tuple(name for name, kind in schema.items() if kind in python)
        self._decoder = _glance(names, tuple(python[schema[name]] for name in names))
        self.good: list[bytes] = []
        self.refused: list[Line] = []
        self.count = 0
        self._is_dirty = False

    def add(self, piece: bytes, offset: int) -> None:
        count = piece.count(b"\n") + (piece[-1:] != b"\n")
        if _holds_traps(piece, self.is_ours):
            self.refuse(piece, offset)
        elif not self._is_dirty and self._passes(piece, count):
            self.good.append(piece)
            self.count += count
        else:
            self._add_lines(piece, offset)

    def refuse(self, piece: bytes, offset: int) -> None:
        """All lines of the piece."""
        lines = piece.removesuffix(b"\n").split(b"\n")
        self._refuse(lines, range(len(lines)), offset)

    def _passes(self, piece: bytes, count: int) -> bool:
        try:
            return len(self._decoder.decode_lines(piece)) == count
        except _REFUSES:
            return False

    def _add_lines(self, piece: bytes, offset: int) -> None:
        """The only loop over lines, a third of a microsecond each."""
        lines = piece.removesuffix(b"\n").split(b"\n")
        decode, refused = self._decoder.decode, []
        for number, line in enumerate(lines):
            try:
                decode(line)
            except _REFUSES:
                refused.append(number)
        self._is_dirty = len(refused) > _MANY
        self.good.append(b"\n".join([*_without(lines, refused), b""]))
        self._refuse(lines, refused, offset)

    def _refuse(self, lines: list[bytes], numbers: Sequence[int], offset: int) -> None:
        begin = 0
        for number in numbers:
            offset += sum(map(len, lines[begin:number])) + number - begin
            self.refused.append(Line(self.count + number, offset, lines[number]))
            begin = number
        self.count += len(lines)


@lru_cache
def _glance(names: tuple[str, ...], kinds: tuple[Any, ...]) -> Any:
    """Reads the syntax of a line and the types of these columns, and makes nothing of the rest."""
    import msgspec

    fields = [(f"column_{number}", kind | None, None) for number, kind in enumerate(kinds)]
    record = msgspec.defstruct("Record", fields, rename={field[0]: name for field, name in zip(fields, names, strict=True)})
    return msgspec.json.Decoder(record)


def _without(lines: list[bytes], numbers: Sequence[int]) -> list[bytes]:
    kept, begin = [], 0
    for number in numbers:
        kept += lines[begin:number]
        begin = number + 1
    return kept + lines[begin:]


def _verdict(frame: pl.DataFrame, sieve: _Sieve, schema: Mapping[str, Any]) -> Parsed:
    """What becomes of the lines that were refused; those that are records take their place among the others."""
    objects, bad, blank = _judged(sieve.refused, sieve.is_ours)
    skipped = [*blank, *(line.number for line, _ in bad)]
    rows = _numbers(sieve.count, skipped)
    if not objects:
        return Parsed(frame, rows, bad)
    careful = _by_type([line.text for line in objects], schema)
    numbers = [line.number for line in objects]
    order = pl.concat([_numbers(sieve.count, [*skipped, *numbers]), pl.Series(numbers, dtype=pl.Int64)]).arg_sort()
    wrong = {name: pl.concat([_falses(frame.height), mask])[order] for name, mask in careful.wrong.items()}
    doubtful = {line.number: line for line in objects} if wrong else {}
    return Parsed(pl.concat([frame, careful.frame])[order], rows, bad, wrong, doubtful, careful.floats)


def _judged(lines: Iterable[Line], is_ours: bool) -> tuple[list[Line], list[tuple[Line, str]], list[int]]:
    """Those that are JSON objects, those that are bad and why, and the numbers of blank ones."""
    objects: list[Line] = []
    bad: list[tuple[Line, str]] = []
    blank: list[int] = []
    for line in lines:
        if not line.text or line.text.isspace():
            blank.append(line.number)
        elif reason := _reason_against(line.text, is_ours):
            bad.append((line, reason))
        else:
            objects.append(line)
    return objects, bad, blank


def _numbers(count: int, skipped: list[int]) -> pl.Series:
    """0, 1, 2, … below `count`, but for some."""
    mask = pl.repeat(True, count, dtype=pl.Boolean, eager=True).scatter(skipped, False)
    return pl.int_range(count, eager=True).filter(mask)


def _falses(count: int) -> pl.Series:
    return pl.repeat(False, count, dtype=pl.Boolean, eager=True)


def _empty(schema: Mapping[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(schema=_asked(schema))


def _is_suspect(block: bytes, is_ours: bool) -> bool:
    """Whether the block may hold what Polars takes and we do not: lone surrogates, endless lines, packed data."""
    return block[:1] not in _BEGINS or _holds_traps(block, is_ours)


def _holds_traps(block: bytes, is_ours: bool) -> bool:
    # One byte is found at memory speed, two are not: most blocks hold no backslash at all.
    if b"\\" in block and _SURROGATE.search(block):
        return True
    return not is_ours and any(block.find(b"\n", at, at + _PROBE) < 0 for at in range(0, len(block) - _PROBE, _PROBE))


def _strict(block: bytes, schema: Mapping[str, Any]) -> pl.DataFrame | None:
    if not block:
        return _empty(schema)
    try:
        return pl.read_ndjson(block, schema=_asked(schema))
    except (pl.exceptions.PolarsError, OSError):
        return None


def _asked(schema: Mapping[str, Any]) -> dict[str, Any]:
    return dict(schema) or {"\0": pl.String}  # no column: the syntax is judged all the same


def _reason_against(line: bytes, is_ours: bool) -> str:
    """Why this line is not a record; empty when it is."""
    if len(line) > LONGEST_LINE and not is_ours:
        return f"longer than {LONGEST_LINE} bytes"
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _spoken(line, error)
    if not isinstance(value, dict):
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
        floats={name for name in wrong if checked[name] == pl.Int64 and _has_float(block, lines, name, wrong[name])},
    )


def _has_float(block: bytes, lines: list[bytes], name: str, wrong: pl.Series) -> bool:
    """Whether a cell that is no integer is a float, and not merely an integer beyond 64 bits: 1e300 is, by how it is written."""
    if not wrong.any():
        return False
    real = pl.read_ndjson(block, schema={name: pl.Float64}, ignore_errors=True)[name]
    is_large = real.abs() >= 2.0**63
    if (wrong & real.is_not_null() & ~is_large).any():
        return True
    return any(_is_float(lines[row], name) for row in (wrong & is_large).arg_true())


def _is_float(line: bytes, name: str) -> bool:
    return isinstance(json.loads(line, parse_int=str).get(name), float)
