"""What Polars makes of lines of JSON, row by row, and that a line's fate is its own.

The matrix is what `clickpipe/ndjson.py` was built on. When a new Polars changes a row, this fails and
says which; then that file must be looked at before the pin in pyproject.toml moves.
"""

from __future__ import annotations

import json

import polars as pl
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from clickpipe import ndjson
from clickpipe.batch import from_lines
from clickpipe.columns import Columns
from clickpipe.text import Text, split_lines

SCHEMA = {"id": pl.String, "ts": pl.Int64, "lat": pl.Float64, "ok": pl.Boolean}
REFUSED = "refused"

# A line, what strict Polars reads as (id, ts, lat, ok), and what it reads with ignore_errors.
MATRIX: dict[str, tuple[str, object, object]] = {
    "missing columns": ("{}", (None, None, None, None), (None, None, None, None)),
    "extra columns": ('{"id":"a","more":{"x":[1]}}', ("a", None, None, None), ("a", None, None, None)),
    "null": ('{"ts":null}', (None, None, None, None), (None, None, None, None)),
    "text as integer": ('{"ts":"x"}', REFUSED, (None, None, None, None)),
    "digits as integer": ('{"ts":"123"}', REFUSED, (None, None, None, None)),
    "float as integer": ('{"ts":2.7}', REFUSED, (None, None, None, None)),
    "integral float as integer": ('{"ts":2.0}', REFUSED, (None, None, None, None)),
    "exponent as integer": ('{"ts":1e3}', REFUSED, (None, None, None, None)),
    "boolean as integer": ('{"ts":true}', REFUSED, (None, None, None, None)),
    "object as integer": ('{"ts":{}}', REFUSED, (None, None, None, None)),
    "text as float": ('{"lat":"2.5"}', REFUSED, (None, None, None, None)),
    "boolean as float": ('{"lat":true}', REFUSED, (None, None, None, None)),
    "integer as float": ('{"lat":2}', (None, None, 2.0, None), (None, None, 2.0, None)),
    "integer as boolean": ('{"ok":1}', REFUSED, (None, None, None, None)),
    "text as boolean": ('{"ok":"true"}', REFUSED, (None, None, None, None)),
    "2**63 as integer": ('{"ts":9223372036854775808}', REFUSED, (None, None, None, None)),
    "2**63 - 1 as integer": ('{"ts":9223372036854775807}', (None, 2**63 - 1, None, None), (None, 2**63 - 1, None, None)),
    "10**23 as integer": ('{"ts":100000000000000000000000}', REFUSED, (None, None, None, None)),
    "10**23 as float": ('{"lat":100000000000000000000000}', (None, None, 1e23, None), (None, None, 1e23, None)),
    "integer as text": ('{"id":7}', ("7", None, None, None), ("7", None, None, None)),
    "list as text": ('{"id":[1,"a"]}', ('[1, "a"]', None, None, None), ('[1, "a"]', None, None, None)),
    "duplicate key": ('{"ts":1,"ts":2}', (None, 1, None, None), (None, 1, None, None)),
    "lone surrogate": (r'{"id":"\ud83d"}', ("\0", None, None, None), ("\0", None, None, None)),
    "NaN": ('{"lat":NaN}', REFUSED, REFUSED),
    "Infinity": ('{"lat":Infinity}', REFUSED, REFUSED),
    "float beyond doubles": ('{"lat":1e400}', REFUSED, REFUSED),
    "leading zero": ('{"ts":01}', REFUSED, REFUSED),
    "plus sign": ('{"ts":+1}', REFUSED, REFUSED),
    "trailing comma": ('{"ts":1,}', REFUSED, REFUSED),
    "single quotes": ("{'ts':1}", REFUSED, REFUSED),
    "cut off": ('{"id":"a","ts":', REFUSED, REFUSED),
    "raw control character": ('{"id":"a\x01"}', REFUSED, REFUSED),
    "byte order mark": ('\ufeff{"ts":1}', REFUSED, REFUSED),
    "two objects": ('{"ts":1}{"ts":2}', REFUSED, REFUSED),
    "object and junk": ('{"ts":1} x', REFUSED, REFUSED),
    "deep nesting": ('{"more":' + "[" * 2_000 + "]" * 2_000 + "}", REFUSED, REFUSED),
    "list": ("[1]", REFUSED, (None, None, None, None)),
    "number": ("7", REFUSED, (None, None, None, None)),
    "top-level null": ("null", REFUSED, (None, None, None, None)),
    "leading white space": (' \t {"ts":1}', (None, 1, None, None), (None, 1, None, None)),
    "carriage return": ('{"ts":1}\r', (None, 1, None, None), (None, 1, None, None)),
}


@pytest.mark.parametrize("name", MATRIX)
def test_polars_reads_this_line_so(name: str) -> None:
    """Strict and with ignore_errors, alone and beside a good line."""
    line, strict, lenient = MATRIX[name]
    assert _polars(line, ignore_errors=False) == strict
    assert _polars(line, ignore_errors=True) == lenient
    beside = _polars('{"ts":5}\n' + line, ignore_errors=False)
    assert (beside == REFUSED) == (strict == REFUSED)


def test_polars_is_not_told_to_unpack() -> None:
    """Text that begins like packed data is text, and an array of bytes that is packed is no line of JSON."""
    assert split_lines(b"x^2\nb\n").to_list() == ["x^2", "b"]
    import gzip

    parsed = ndjson.parse(gzip.compress(b'{"ts":1}\n') + b'\n{"ts":2}\n', None, SCHEMA)
    assert parsed.frame["ts"].to_list() == [2]
    assert parsed.bad


def test_of_blank_lines_nothing_is_made() -> None:
    parsed = ndjson.parse(b'\n{"ts":1}\n \t\n\n{"ts":2}', 5, SCHEMA)
    assert parsed.frame["ts"].to_list() == [1, 2]
    assert parsed.rows is not None
    assert parsed.rows.to_list() == [1, 4]
    assert not parsed.bad


def test_a_line_of_more_than_a_mebibyte_is_bad() -> None:
    at_most = b'{"id":"' + b"x" * (ndjson.LONGEST_LINE - 9) + b'"}'
    assert len(at_most) == ndjson.LONGEST_LINE
    assert not ndjson.parse(at_most + b"\n", 1, SCHEMA).bad
    parsed = ndjson.parse(b'{"ts":1}\n' + at_most.replace(b"x", b"xx", 1) + b'\n{"ts":3}\n', 3, SCHEMA)
    assert parsed.frame["ts"].to_list() == [1, 3]
    assert [line.number for line, _ in parsed.bad] == [1]


def test_an_integer_column_says_when_a_float_turns_up() -> None:
    """An integer beyond 64 bits is no float: widening would round its neighbours' values."""
    assert ndjson.parse(b'{"ts":1}\n{"ts":2.5}\n', None, SCHEMA).floats == {"ts"}
    assert ndjson.parse(b'{"ts":1}\n{"ts":9223372036854775808}\n', None, SCHEMA).floats == set()


def test_nested_values_keep_their_spelling() -> None:
    parsed = ndjson.parse(b'{"more":{"x":[1.50,null]}}\n', None, {"more": pl.String}, ["more"])
    assert json.loads(parsed.frame["more"][0]) == {"x": [1.5, None]}


_VALUES = st.sampled_from(
    [
        "1",
        "-7",
        "2.5",
        "2.0",
        "1e3",
        '"x"',
        '"7"',
        "true",
        "null",
        "{}",
        "[1]",
        "NaN",
        "1e400",
        r'"\ud83d"',
        "9223372036854775808",
    ]
)
_OBJECTS = st.dictionaries(st.sampled_from(["id", "ts", "lat", "ok", "more"]), _VALUES, max_size=4).map(
    lambda members: "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}"
)
_JUNK = st.sampled_from(
    ["", " ", "x", "[1]", "7", "null", '{"ts":1', '{"ts":1}{"ts":2}', "{'ts':1}", '{"ts":1,}', "\ufeff{}", "é", "x^"]
)
_DEEP = st.sampled_from([*range(990, 1_030), 400, 100_000]).map(lambda depth: '{"more":' + "[" * depth + "]" * depth + "}")
_DUPLICATES = st.just('{"ts":1,"ts":"x"}')
_LINES = st.lists(st.one_of(_OBJECTS, _OBJECTS, _OBJECTS, _JUNK, _DUPLICATES, _DEEP), max_size=30)


@given(_LINES, st.integers(1, 40))
@settings(max_examples=examples(300), deadline=None)
def test_the_fate_of_a_line_does_not_depend_on_its_neighbours(lines: list[str], size: int) -> None:
    """Any cut into blocks gives the same records, the same bad lines and the same misfits; so does each line alone."""
    alone = _fates(lines, 1)
    assert _fates(lines, size) == alone
    assert _fates(lines, max(len(lines), 1)) == alone
    assert _fates(lines, max(len(lines), 1), expect_bad=True) == alone


@given(_LINES)
@settings(max_examples=examples(100), deadline=None)
def test_a_good_block_is_read_like_its_lines(lines: list[str]) -> None:
    """The fast path and the slow one agree on every line that is in order."""
    good = [line for line in lines if line.startswith("{") and not _fates([line], 1)[0][1] and not any(_fates([line], 1)[0][2])]
    block = "\n".join(good).encode()
    fast, slow = ndjson.parse(block, None, SCHEMA), ndjson.parse(block, None, SCHEMA, expect_bad=True)
    assert fast.frame.equals(slow.frame)
    assert fast.is_clean()
    assert slow.is_clean()


def test_a_tool_that_breaks_a_line_between_two_steps_loses_only_that_line() -> None:
    """Where a stream says how many records there are, a bad line keeps its place as a dead letter."""
    text = Text(b'{"ts":1}\n{"ts":\n{"ts":3}\n', count=3)
    batch, dead = from_lines(text, Columns({"ts": "int"})).need(["ts"], set())
    assert batch.frame["ts"].to_list() == [1, 3]
    assert dead is not None
    assert dead.raw == ['{"ts":']


def _polars(text: str, *, ignore_errors: bool) -> object:
    try:
        frame = pl.read_ndjson(text.encode(), schema=SCHEMA, ignore_errors=ignore_errors)
    except (pl.exceptions.PolarsError, OSError):
        return REFUSED
    return frame.rows()[-1]


def _fates(lines: list[str], size: int, *, expect_bad: bool = False) -> list[tuple[object, str, tuple[str, ...]]]:
    """Per line that is not blank: its record, why it is bad, and the columns that do not fit."""
    fates: dict[int, tuple[object, str, tuple[str, ...]]] = {}
    for first in range(0, len(lines), size):
        piece = lines[first : first + size]
        parsed = ndjson.parse("\n".join(piece).encode() + b"\n", len(piece), SCHEMA, expect_bad=expect_bad)
        rows = parsed.rows if parsed.rows is not None else range(parsed.frame.height)
        for at, (row, record) in enumerate(zip(rows, parsed.frame.rows(), strict=True)):
            misfits = tuple(name for name, mask in sorted(parsed.wrong.items()) if mask[at])
            fates[first + row] = (record, "", misfits)
        for line, reason in parsed.bad:
            assert line.text.decode() == piece[line.number]
            fates[first + line.number] = (None, reason, ())
    return [fates[number] for number in sorted(fates)]
