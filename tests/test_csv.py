"""What CSV says does not depend on how it was cut, and for CSV that is in order it is what Python's csv says."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickpipe import csvtext, lines
from clickpipe.columns import Columns
from clickpipe.core import reading
from clickpipe.core.format import Wants
from clickpipe.core.source import Split
from clickpipe.csvtext import NOT_CLOSED
from clickpipe.formats.csv import Csv

NAMES = ["a", "b", "c"]
HEADER = b"a,b,c\n"
BATCHES = (1, 7, 100, 8 << 20)
CHUNKS = (1, 10, 8 << 20)
SHORT, SHOWN = 24, 8  # stand for 1 MiB and 1 KiB where lines that are too long are tried

Fate = tuple[list[tuple[Any, ...]], list[tuple[int, str, str]]]  # records, dead letters by offset

pieces = st.sampled_from(
    [
        b'"',
        b'""',
        b",",
        b"\n",
        b"\r\n",
        b"\r",
        b"a",
        b"5",
        b" ",
        b'",',
        b'"\n',
        b'\n"',
        b',"',
        b"\xc3\xa9",
        b"\xff",
        b"x^",
        b"\xef\xbb\xbf",
        b"\0",
        b"\x1f\x8b",
    ]
)
texts = st.lists(pieces, max_size=40).map(b"".join)


@dataclass
class Bytes(Split):
    """A split at rest, in chunks of some size."""

    data: bytes
    chunk: int
    name: str = "bytes"

    def chunks(self) -> Iterator[bytes]:
        for at in range(0, len(self.data), self.chunk):
            yield self.data[at : at + self.chunk]


def fate(data: bytes, batch_bytes: int, chunk: int = 8 << 20, names: list[str] = NAMES) -> Fate:
    """What becomes of a CSV text, whose header names these columns."""
    form, records, dead = Csv(), [], []
    columns = Columns(dict.fromkeys(names, "str"))
    chunks = reading._cut(Bytes(data, chunk).chunks(), form.cut, batch_bytes // 2)
    for number, block in enumerate(reading._pieces(chunks, form.cut, batch_bytes)):
        batch, letters, count = form.read(block if number else form.begin(block), columns, Wants(None, False, set()), "")
        found = [letter for part in letters for letter in zip(part.offset, part.raw, part.reason, strict=True)]
        assert count == batch.height + len(found)
        records += batch.frame.select(names).rows()
        dead += found
    return records, sorted(dead)


def plainly(data: bytes, longest: int) -> Fate:
    """The same by the letter of the rules, a character at a time. The header must be in order."""
    records, dead, at = [], [], len(HEADER)
    data = data if data.endswith(b"\n") else data + b"\n"
    while at < len(data):
        line_end = data.index(b"\n", at)
        values, end = _record(data, at) or ([], len(data))
        if end - at > longest:
            end = line_end
            too_long = f"longer than {csvtext.LONGEST_LINE} bytes: {end - at}; only its beginning is kept"
            is_long = end - at > longest
            shown = data[at:end][:SHOWN].rstrip(b"\r") if is_long else data[at:end]
            dead.append((at, _text(shown), too_long if is_long else NOT_CLOSED))
        elif not values:
            end = line_end
            dead.append((at, _text(data[at:end]), NOT_CLOSED))
        elif len(values) > len(NAMES):
            dead.append((at, _text(data[at:end]), f"more than {len(NAMES)} fields"))
        elif data[at:end] not in (b"", b"\r"):
            records.append((*(value or None for value in values), *[None] * (len(NAMES) - len(values))))
        at = end + 1
    return records, dead


def _record(data: bytes, at: int) -> tuple[list[str], int] | None:
    """The fields of the record that begins here, and where its newline is; None where a quote is not closed."""
    values: list[str] = []
    while True:
        value, end = _quoted(data, at) if data[at : at + 1] == b'"' else _unquoted(data, at)
        if data[end : end + 2] == b"\r\n":
            end += 1
        if data[end : end + 1] not in (b",", b"\n"):
            return None
        values.append(value.decode("utf-8", "backslashreplace"))
        if data[end : end + 1] == b"\n":
            return values, end
        at = end + 1


def _quoted(data: bytes, at: int) -> tuple[bytes, int]:
    value, at = b"", at + 1
    while at < len(data):
        if data[at : at + 1] == b'"':
            if data[at + 1 : at + 2] != b'"':
                return value, at + 1
            at += 1
        value += data[at : at + 1]
        at += 1
    return value, at


def _unquoted(data: bytes, at: int) -> tuple[bytes, int]:
    end = min(place for place in (data.find(b",", at), data.find(b"\n", at)) if place >= 0)
    if data[at:end].endswith(b"\r") and data[end : end + 1] == b"\n":
        end -= 1
    return data[at:end], end


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "backslashreplace")


@settings(max_examples=examples(100), deadline=None)
@given(texts)
def test_no_cut_matters(text: bytes) -> None:
    """Any bytes have the same records and dead letters however they come: those that the rules give them."""
    expected = plainly(HEADER + text, csvtext.LONGEST_LINE)
    for batch_bytes in BATCHES:
        assert fate(HEADER + text, batch_bytes) == expected
    for chunk in CHUNKS:
        assert fate(HEADER + text, 8 << 20, chunk) == expected


@pytest.mark.usefixtures("short_lines")
@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts)
def test_no_cut_matters_to_long_records(text: bytes) -> None:
    """Nor where records are longer than they may be."""
    expected = plainly(HEADER + text, SHORT)
    for batch_bytes, chunk in [(batch_bytes, CHUNKS[-1]) for batch_bytes in BATCHES] + [(100, chunk) for chunk in CHUNKS]:
        assert fate(HEADER + text, batch_bytes, chunk) == expected


@pytest.fixture
def short_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("csvtext", "lines", "core.format"):
        monkeypatch.setattr(f"clickpipe.{name}.LONGEST_LINE", SHORT)
    monkeypatch.setattr(csvtext, "_PROBE", SHORT // 2)
    monkeypatch.setattr(lines, "_SHOWN", SHOWN)


values = st.text(st.sampled_from('",\n\r a5é\t;'), max_size=6)
tables = st.lists(st.lists(values, min_size=2, max_size=3), max_size=12)


@settings(max_examples=examples(100), deadline=None)
@given(tables, st.sampled_from([{}, {"quoting": csv.QUOTE_ALL}, {"quoting": csv.QUOTE_ALL, "lineterminator": "\n"}]))
def test_as_python_reads_it(table: list[list[str]], style: dict[str, Any]) -> None:
    """CSV that Python has written is read as Python reads it; an empty field is null."""
    out = io.StringIO()
    csv.writer(out, **style).writerows(table)
    read = list(csv.reader(io.StringIO(out.getvalue(), newline="")))
    expected = [tuple(value or None for value in [*row, "", ""][:3]) for row in read]
    for batch_bytes in BATCHES:
        assert fate(HEADER + out.getvalue().encode(), batch_bytes) == (expected, [])


def test_stray_quotes_in_a_large_block() -> None:
    """Polars splits a large text by the parity of quotes before a place: it must not see those that are characters."""
    count = 300_000
    text = b"".join(
        b'%d,%d" disk,"two\nlines, %d"\n' % (n, n % 100, n) if n % 3 else b"%d,disk,one line\n" % n for n in range(count)
    )
    assert len(text) > 8 << 20
    records, dead = fate(HEADER + text, 64 << 20, 64 << 20)
    assert not dead
    assert records == [
        (str(n), f'{n % 100}" disk', f"two\nlines, {n}") if n % 3 else (str(n), "disk", "one line") for n in range(count)
    ]


def test_one_column() -> None:
    """A line of one empty field is a blank line, and no record; one in quotes is a null."""
    assert fate(b'a\n1\n\n""\n2\n', 8 << 20, names=["a"]) == ([("1",), (None,), ("2",)], [])


@pytest.mark.parametrize(
    "line",
    [b'"x,1\n', b'x,"1\n', b'",x",y,"\n', b'"""\n', b'5" disk,"\n', b'x"y,1\n'],
    ids=["begin", "end", "reopened", "doubled", "stray", "stray only"],
)
def test_many_lines_with_a_stray_quote(line: bytes) -> None:
    """Every line opens a quoted field that none closes, or seems to. In quadratic time this would take an hour."""
    count = 80_000
    records, dead = fate(HEADER + line * count, 4096, 1 << 20)
    lines_of_a_record = 2 if line == b'"""\n' else 1
    assert len(records) * lines_of_a_record + len(dead) == count
