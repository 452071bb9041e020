"""Raw lines of records, kept as they came: as one block of bytes, or line by line.

An operator that touches no value passes a block on untouched; one that drops records needs
lines; one that adds fields splices them in front of each closing brace. Nothing here parses.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable

import orjson
import polars as pl

_LINE, _FIELDS = "line", "\0fields"
_FEW, _STRIDE = 4, 64 << 10
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"x\x01", b"x^", b"x\x9c", b"x\xda")  # gzip, zstd, zlib


class Text:
    """The NDJSON text of some records. Immutable; block and lines are made from each other on demand.

    `count`: how many records the block holds, if that is known. Where it has more lines, some are blank.
    `rows`: the numbers of the block's lines that are records, where others are not.
    `clean`: what is still to be done to the block, once someone looks at it.
    """

    __slots__ = ("_block", "_clean", "_count", "_lines", "_rows")

    def __init__(
        self,
        block: bytes | None = None,
        lines: pl.Series | None = None,
        count: int | None = None,
        rows: pl.Series | None = None,
        clean: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._block, self._lines, self._count, self._rows, self._clean = block, lines, count, rows, clean

    def block(self) -> bytes:
        """The text, every line ended."""
        self._choose()
        if self._block is None:
            assert self._lines is not None
            self._block = _join(self._lines.to_frame())
        elif self._block and not self._block.endswith(b"\n"):
            self._block += b"\n"
        return self._block

    def lines(self) -> pl.Series:
        """The text, line by line, without line ends."""
        self._choose()
        if self._lines is None:
            assert self._block is not None
            self._lines = split_lines(self._block)
            if self._count is not None and len(self._lines) > self._count:
                self._lines = self._lines.filter(self._lines.str.strip_chars() != "")
        return self._lines

    def pick(self, records: list[int]) -> list[str]:
        """A few of the lines, without making a column of all of them."""
        self._cleaned()
        if self._lines is not None or self._block is None or (self._rows is None and self._count is None):
            return self.lines().gather(records).to_list()
        if self._rows is None and self._block.count(b"\n") > (self._count or 0):
            return self.lines().gather(records).to_list()  # some lines are blank
        numbers = records if self._rows is None else self._rows.gather(records).to_list()
        return [line.decode("utf-8", "replace") for line in _lines_at(self._block, numbers)]

    def _choose(self) -> None:
        """Leave the lines out that are no records."""
        self._cleaned()
        if self._rows is not None and self._block is not None:
            lines = self._block.split(b"\n")
            self._block = b"\n".join([*map(lines.__getitem__, self._rows.to_list()), b""])
            self._rows = None

    def _cleaned(self) -> None:
        if self._clean is not None and self._block is not None:
            self._block, self._clean = self._clean(self._block), None

    def keep(self, mask: pl.Series) -> Text:
        return Text(lines=self.lines().filter(mask))

    def without_blanks(self) -> Text:
        """The text without the empty lines that a tool may have left in place of records."""
        lines = self.lines()
        blank = lines.str.len_bytes() == 0
        return Text(lines=lines.filter(~blank)) if blank.any() else self

    def take(self, rows: Iterable[int]) -> Text:
        return Text(lines=self.lines().gather(list(rows)))

    def repeat(self, rows: pl.Series) -> Text:
        return Text(lines=self.lines().gather(rows))


def _lines_at(block: bytes, numbers: list[int]) -> list[bytes]:
    """Lines by number. A few are found by counting: cutting up the whole block makes an object of each line."""
    if len(numbers) > _FEW:
        lines = block.split(b"\n")
        return [lines[number] for number in numbers]
    return [_line_at(block, number) for number in numbers]


def _line_at(block: bytes, number: int) -> bytes:
    at = 0
    while (count := block.count(b"\n", at, at + _STRIDE)) < number:
        at, number = at + _STRIDE, number - count
    for _ in range(number):
        at = block.find(b"\n", at) + 1
    end = block.find(b"\n", at)
    return block[at : end if end >= 0 else len(block)]


def split_lines(block: bytes) -> pl.Series:
    """The lines of a block of UTF-8. Blank lines count. (Polars: 12 M lines/s, a copy of the bytes.)"""
    if not block:
        return pl.Series(_LINE, [], pl.String)
    if looks_packed(block):
        return split_lines(b"\n" + block)[1:]
    try:
        return pl.scan_lines(block, name=_LINE).collect().to_series()
    except pl.exceptions.PolarsError:  # not UTF-8: only a tool between two steps can have done that
        return pl.Series(_LINE, block.decode("utf-8", "replace").removesuffix("\n").split("\n"), pl.String)


def looks_packed(block: bytes) -> bool:
    """Whether Polars would take this text for packed data, and unpack it: a trap that anyone can set in a line."""
    return block.startswith(_PACKED)


def splice(text: Text, added: pl.DataFrame) -> Text:
    """Each line with the fields of the same row of `added` before its closing brace."""
    if added.width == 0:
        return text
    stem, has_empty = _stems(_without(text.lines(), added.columns))
    fields = _fields(added)
    if has_empty:
        comma = pl.when(stem.str.ends_with("{")).then(pl.lit("")).otherwise(pl.lit(","))
        joined = pl.select(pl.concat_str(pl.lit(stem), comma, pl.lit(fields))).to_series()
        return Text(lines=joined.alias(_LINE))
    # A third quicker than writing the two as CSV that is never quoted.
    lines = pl.concat_str(pl.lit(stem), pl.lit(","), pl.lit(fields), pl.lit("\n"))
    return Text(block=pl.select(lines.str.join("").cast(pl.Binary)).item())


def splice_some(text: Text, added: pl.Series) -> Text:
    """Only the lines whose value in `added` is not null get that field."""
    mask = added.is_not_null()
    if not mask.any():
        return text
    rows = mask.arg_true()
    lines = _without(text.lines(), [added.name])
    spliced = splice(Text(lines=lines.gather(rows)), added.gather(rows).to_frame()).lines()
    return Text(lines=lines.clone().scatter(rows, spliced))  # scatter changes the series itself, which others hold


def _without(lines: pl.Series, names: list[str]) -> pl.Series:
    """The lines, without fields of their own that go by these names: the next reader would take them for ours."""
    keys = [orjson.dumps(name).decode() for name in names]
    suspects = lines.str.contains(_common_beginning(keys), literal=True).arg_true()  # one search for all
    if not len(suspects):
        return lines
    kept = pl.Series([_line_without(line, names) for line in lines.gather(suspects)], dtype=pl.String)
    return lines.clone().scatter(suspects, kept)


def _common_beginning(keys: list[str]) -> str:
    shortest = min(keys, key=len)
    return next(shortest[:end] for end in range(len(shortest), -1, -1) if all(key.startswith(shortest[:end]) for key in keys))


def _line_without(line: str, names: list[str]) -> str:
    """The line as it is if the name stands in a value or further inside, else made anew."""
    record = orjson.loads(line)
    if record.keys().isdisjoint(names):
        return line
    return orjson.dumps({key: value for key, value in record.items() if key not in names}).decode()


def split_tail(text: Text, names: list[str]) -> tuple[Text, pl.DataFrame] | None:
    """Undo `splice` of integer fields: the shorter lines, and the values. None if any line is otherwise."""
    pattern = "^(.*?)" + "".join(rf',?"{re.escape(name)}":(-?\d+)' for name in names) + r"\}$"
    groups = text.lines().str.extract_groups(pattern).struct.unnest()
    if groups.null_count().sum_horizontal().item():
        return None
    columns = groups.columns
    stem = groups.to_series(0)
    values = groups.select(pl.col(column).cast(pl.Int64).alias(name) for column, name in zip(columns[1:], names, strict=True))
    return Text(lines=(stem + "}").alias(_LINE)), values


def leading_milliseconds(text: Text, name: str) -> pl.Series | None:
    """The integer that every line begins with under this name, if they all do: `{"ts":1700000003059,…`.

    Thirteen digits, the years 2001 to 2286. A fifth of the cost of parsing the lines; only for text that was
    parsed before. The first of duplicate keys wins, so what comes later in a line does not matter.
    """
    lines, begin = text.lines(), f'{{"{name}":'
    if not name.isascii() or not lines.str.starts_with(begin).all():
        return None
    value = lines.str.slice(len(begin), 13).cast(pl.Int64, strict=False)
    if value.null_count() or not len(value) or not (lines.str.slice(len(begin) + 13, 1) == ",").all():
        return None
    return value.alias(name) if value.min() >= 10**12 else None  # type: ignore[operator]  # an Int64 series


def owned(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with texts of its own. Rows that were picked out of others may keep the text of all of those in memory."""
    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    return frame.with_columns(pl.concat_str(name, pl.lit("")).alias(name) for name in texts) if texts else frame


def write_ndjson(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_ndjson(out)
    return out.getvalue()


def _fields(added: pl.DataFrame) -> pl.Series:
    """`"a":1,"b":2}` for each row. Rows repeat themselves (windows do): each is written once."""
    distinct = added.unique(maintain_order=True)
    texts = split_lines(write_ndjson(distinct)).str.slice(1).alias(_FIELDS)
    if distinct.height == added.height:
        return texts
    if distinct.height <= _FEW:
        return texts.gather(added.select(_place_in(distinct)).to_series())
    known = distinct.with_columns(texts)
    return added.join(known, on=added.columns, how="left", nulls_equal=True, maintain_order="left")[_FIELDS]


def _place_in(rows: pl.DataFrame) -> pl.Expr:
    """Which of a few different rows a row is equal to: for few a fifth of the cost of a join."""
    place = pl.lit(0, pl.UInt32)
    for number, row in enumerate(rows.iter_rows(named=True)):
        equal = pl.all_horizontal(pl.col(name).eq_missing(pl.lit(value, rows.schema[name])) for name, value in row.items())
        place = pl.when(equal).then(pl.lit(number, pl.UInt32)).otherwise(place)
    return place


def _stems(lines: pl.Series) -> tuple[pl.Series, bool]:
    """The lines without their closing brace, and whether one of them is an empty object."""
    ends = set(lines.str.tail(2).unique().to_list())
    if not all(end[-1:] == "}" for end in ends):
        lines = lines.str.strip_chars_end()
        ends = set(lines.str.tail(2).unique().to_list())
    stem = lines.str.head(-1)
    if any(end[:1] in " \t" for end in ends):
        stem = stem.str.strip_chars_end()
        return stem, bool(stem.str.ends_with("{").any())
    return stem, "{}" in ends


def _join(columns: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    # In one piece: the default of 1,024 rows a piece takes four times as long.
    columns.write_csv(out, include_header=False, quote_style="never", batch_size=max(1, columns.height))
    return out.getvalue()
