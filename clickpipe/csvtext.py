"""The text of CSV -> records, where a quote that somebody forgot costs one line and no more.

A quote opens a quoted field right after a comma or at the beginning of a record; elsewhere it is a character
like any other. The quote that closes a field stands before a comma, CR LF, LF or the end of the input. A record
ends within 1 MiB. Where one does not, or no quote closes its field, only its first line is bad, and the next
line begins a record. All that is decided by the text that follows, never by where a block was cut.

Most blocks have a record on each line, which one regular expression in Polars sees, and most others are a row of
good records, as one in Python sees; what is left is followed from quote to quote. Source: RFC 4180.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

import polars as pl

from clickpipe.lines import Overlong, overlong
from clickpipe.ndjson import LONGEST_LINE
from clickpipe.text import Text, looks_packed, split_lines

NOT_CLOSED = "a quote that is not closed"
_MARK = b"\xef\xbb\xbf"  # in front of a block Polars takes it for no text
_PROBE = LONGEST_LINE // 2
_BAD, _OPEN = 0, -1  # instead of the end of a record: no record; the text ends first

# A line that is a record, whatever the lines around it; and one in which no unquoted field holds a quote:
# Polars, which tells by their parity where a quoted newline may be, reads only those rightly.
_QUOTED_FIELD = '"(?:[^"]|"")*"'
_LINE = rf'^(?:{_QUOTED_FIELD}|[^",][^,]*|)(?:,(?:{_QUOTED_FIELD}|[^",][^,]*|))*\r?$'
_STRICT_LINE = rf'^(?:{_QUOTED_FIELD}|[^",]*)(?:,(?:{_QUOTED_FIELD}|[^",]*))*\r?$'

# The same for records of several lines, one at a time.
_QUOTED_BYTES = rb'"[^"]*+(?:""[^"]*+)*+"(?=,|\r?\n)'
_RECORD = re.compile(rb"(?:(?:%b|[^\",\n][^,\n]*+|),)*+(?:%b|[^\",\n][^,\n]*+|)\r?\n" % (_QUOTED_BYTES, _QUOTED_BYTES))
_STRICT_RECORD = re.compile(rb'(?:(?:%b|[^",\n]*+),)*+(?:%b|[^",\n]*+)\r?\n' % (_QUOTED_BYTES, _QUOTED_BYTES))

# Fields up to the end of the record or, group 1, the quote that opens one which does not end in this line.
_ON_LINE = rb'(?:"[^"\n]*+(?:""[^"\n]*+)*+"(?=,|\r?\n)|[^",\n][^,\n]*+|)'
_FIELDS = re.compile(rb"(?:" + _ON_LINE + rb",)*+(?:" + _ON_LINE + rb'\r?\n|("))')
# The rest of a quoted field and what ends it: 1 a comma, 2 the end of the record, else the end of the text.
_QUOTED = re.compile(rb'[^"]*+(?:""[^"]*+)*+(?:"(?:(,)|\r?(\n)|\r?\Z)|\Z)')
_ODD_RETURN = re.compile(rb"\r[,\r]")
_FIELD = re.compile(r'"([^"]*+(?:""[^"]*+)*+)",|([^,]*+),')


def whole(data: bytes) -> int:
    """How much of a text that begins with a record is records, or lines that are none, whatever comes after it."""
    if b'"' not in data:
        return len(data)
    if _are_lines(data, _LINE):
        return data.rfind(b"\n") + 1
    reach = _reach(data, _RECORD)
    return reach + _walked(data[reach:])


def _walked(data: bytes) -> int:
    end = data.rfind(b"\n") + 1
    lines, starts = _numbered(data)
    walk, at = Walk(data), 0
    for start in starts.filter(~lines.str.contains(_LINE)).to_list():
        if start >= at:
            at = walk.end(start)
            if at == _OPEN:
                return int(min(start, end))
    return end


def is_plain(data: bytes) -> bool:
    """Whether Polars reads this block as we do, but for blank lines. A record with too many fields is for it to refuse."""
    if looks_packed(data) or data.startswith(_MARK) or _has_long_line(data) or _has_odd_return(data):
        return False
    return b'"' not in data or _are_lines(data, _STRICT_LINE) or _reach(data, _STRICT_RECORD) == len(data)


def has_blank_line(data: bytes) -> bool:
    return data.startswith((b"\n", b"\r\n")) or b"\n\n" in data or b"\n\r\n" in data


def _has_odd_return(data: bytes) -> bool:
    """Whether an unquoted field may end with a CR that is no part of the line end: Polars takes it away."""
    return b"\r" in data and _ODD_RETURN.search(data) is not None


def _has_long_line(data: bytes) -> bool:
    """Whether there may be a line longer than 1 MiB."""
    return any(data.find(b"\n", at, at + _PROBE) < 0 for at in range(0, len(data) - _PROBE, _PROBE))


def fields(record: str) -> list[str]:
    """The fields of a record, which stands here without its line end."""
    found = _FIELD.findall(record + ",")
    return [quoted.replace('""', '"') or plain for quoted, plain in found]


class Walk:
    """Finds where records end. Linear in the text, whatever it holds: what follows a quoted field is followed once."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._ends: dict[int, int] = {}  # by where a field begins that a quoted one came before

    def end(self, start: int) -> int:
        """Where the record ends that begins here."""
        end = self._followed(start)
        if (len(self._data) if end == _OPEN else end - 1) - start > LONGEST_LINE:
            return _BAD
        return end

    def line_end(self, start: int) -> int:
        return self._data.find(b"\n", start) + 1 or len(self._data)

    def record(self, start: int) -> str:
        """The text of the record that begins here, less its line end."""
        return self.shown(start, self.end(start))

    def shown(self, start: int, end: int) -> str:
        return self._data[start:end].removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "backslashreplace")

    def _followed(self, at: int) -> int:
        passed: list[int] = []
        end = None
        while end is None:
            end, at = self._step(at)
            if end is None:
                end = self._ends.get(at)
                passed.append(at)
        self._ends.update(dict.fromkeys(passed, end))
        return end

    def _step(self, at: int) -> tuple[int | None, int]:
        """From the beginning of a field: where the record ends, or else where the field behind a quoted one begins."""
        found = _FIELDS.match(self._data, at)
        if not found or not found[1]:
            return (found.end() if found else _OPEN), at
        closed = _QUOTED.match(self._data, found.end())
        if not closed:
            return _BAD, at
        if closed[1]:
            return None, closed.end()
        return (closed.end() if closed[2] else _OPEN), at


def records(data: bytes) -> Iterator[list[str]]:
    """The records of a text that are good, one by one."""
    walk, at = Walk(ended(data)), 0
    while at < len(data):
        end = walk.end(at)
        if end > 0 and (record := walk.shown(at, end)):
            yield fields(record)
        at = end if end > 0 else walk.line_end(at)


@dataclass
class Sifted:
    """The records of a block, as CSV in which Polars finds nothing to misread, behind a first line of empty fields.

    `starts`: where each record begins in the block, in bytes. `bad`: lines that are no records, with the same.
    """

    text: bytes
    starts: pl.Series
    bad: list[tuple[int, str, str]] = field(default_factory=list)
    overlong: list[Overlong] = field(default_factory=list)


def sift(data: bytes, width: int, offset: int = 0, *, exact: bool = False) -> Sifted:
    """Only lines that are not a record on their own are looked at one by one; if `exact`, crowded ones too.

    Unless `exact`, records with more than `width` fields may be left for Polars to refuse.
    """
    data = ended(data)
    lines, starts = _numbered(data)
    suspects = _suspects(lines)
    if exact:
        suspects |= lines.str.count_matches(",", literal=True) >= width
    sifter = _Sifter(data, width, offset, exact)
    for number, start in zip(suspects.arg_true().to_list(), starts.filter(suspects).to_list(), strict=True):
        sifter.judge(number, start)
    mask = pl.repeat(True, len(lines), dtype=pl.Boolean, eager=True).scatter(sifter.dropped, False)
    kept = lines.scatter(list(sifter.rewritten), list(sifter.rewritten.values())).filter(mask)
    first = _written([""] * width) + "\n"
    return Sifted(first.encode() + Text(lines=kept).block(), starts.filter(mask), sifter.bad, sifter.overlong)


class _Sifter:
    """What becomes of lines that are suspects: `dropped` and `rewritten` are by the number of the line."""

    def __init__(self, data: bytes, width: int, offset: int, exact: bool) -> None:
        self._data, self._width, self._offset, self._exact = data, width, offset, exact
        self._walk, self._at = Walk(data), 0
        self.dropped: list[int] = []
        self.rewritten: dict[int, str] = {}
        self.bad: list[tuple[int, str, str]] = []
        self.overlong: list[Overlong] = []

    def judge(self, number: int, start: int) -> None:
        if start < self._at:
            return
        end = self._walk.end(start)
        self._at = end if end > 0 else self._walk.line_end(start)
        if end <= 0:
            self._refuse(number, start, NOT_CLOSED)
        else:
            # The first line gets the text of all.
            self.dropped += range(number + 1, number + self._data.count(b"\n", start, end))
            self._accept(number, start, end)

    def _accept(self, number: int, start: int, end: int) -> None:
        record = self._walk.shown(start, end)
        if not record:
            self.dropped.append(number)
        elif self._exact or "\r" in record or not _STRICT_RECORD.match(self._data, start, end):
            values = fields(record)
            self.rewritten[number] = _written(values)
            if len(values) > self._width:
                self._refuse(number, start, f"more than {self._width} fields")
        else:
            self.rewritten[number] = record

    def _refuse(self, number: int, start: int, reason: str) -> None:
        self.dropped.append(number)
        if self._walk.line_end(start) - 1 - start > LONGEST_LINE:
            self.overlong.append(overlong(self._offset + start, self._data[start : self._at - 1]))
        else:
            self.bad.append((self._offset + start, self._walk.shown(start, self._at), reason))


def ended(data: bytes) -> bytes:
    """The text with a line end behind its last line."""
    return data if not data or data.endswith(b"\n") else data + b"\n"


def _are_lines(data: bytes, pattern: str) -> bool:
    lines = split_lines(data)
    return bool(lines.filter(lines.str.contains('"', literal=True)).str.contains(pattern).all())


def _reach(data: bytes, pattern: re.Pattern[bytes]) -> int:
    """Where the first thing begins that is not such a record."""
    at = 0
    while (found := pattern.match(data, at)) and found.end() - at <= LONGEST_LINE:
        at = found.end()
    return at


def _numbered(data: bytes) -> tuple[pl.Series, pl.Series]:
    """The lines of a text, their CR included, and where each begins."""
    if data.isascii() or _is_utf8(data):
        # One CR before the line end is taken for a part of it.
        lines = split_lines(data.replace(b"\r\n", b"\r\r\n"))
        sizes = lines.str.len_bytes().cast(pl.Int64) + 1
        return lines, sizes.cum_sum() - sizes
    parts = data.removesuffix(b"\n").split(b"\n")
    starts = accumulate((len(part) + 1 for part in parts[:-1]), initial=0)
    return pl.Series([part.decode("utf-8", "backslashreplace") for part in parts]), pl.Series(starts, dtype=pl.Int64)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _suspects(lines: pl.Series) -> pl.Series:
    misread = lines.str.contains('"', literal=True) & ~lines.str.contains(_STRICT_LINE)
    return misread | (lines == "") | lines.str.contains(r"^\r$|\r.") | (lines.str.len_bytes() > LONGEST_LINE)


def _written(values: list[str]) -> str:
    return ",".join('"' + value.replace('"', '""') + '"' for value in values)
