"""Raw lines of records, kept as they came: as one block of bytes, or line by line.

An operator that touches no value passes a block on untouched; one that drops records needs
lines; one that adds fields splices them in front of each closing brace. Nothing here parses.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable

import polars as pl

_LINE = "line"


class Text:
    """The NDJSON text of some records. Immutable; the two forms are made from each other on demand."""

    __slots__ = ("_block", "_lines")

    def __init__(self, block: bytes | None = None, lines: pl.Series | None = None) -> None:
        self._block, self._lines = block, lines

    def block(self) -> bytes:
        """The text, every line ended."""
        if self._block is None:
            assert self._lines is not None
            self._block = _join(self._lines.to_frame())
        elif self._block and not self._block.endswith(b"\n"):
            self._block += b"\n"
        return self._block

    def lines(self) -> pl.Series:
        """The text, line by line, without line ends."""
        if self._lines is None:
            assert self._block is not None
            self._lines = split_lines(self._block)
        return self._lines

    def keep(self, mask: pl.Series) -> Text:
        return Text(lines=self.lines().filter(mask))

    def take(self, rows: Iterable[int]) -> Text:
        return Text(lines=self.lines().gather(list(rows)))

    def repeat(self, rows: pl.Series) -> Text:
        return Text(lines=self.lines().gather(rows))


def split_lines(block: bytes) -> pl.Series:
    """The lines of a block of UTF-8. Blank lines count. (Polars: 12 M lines/s, a copy of the bytes.)"""
    if not block:
        return pl.Series(_LINE, [], pl.String)
    try:
        return pl.scan_lines(block, name=_LINE).collect().to_series()
    except pl.exceptions.PolarsError:  # not UTF-8: only a tool between two steps can have done that
        return pl.Series(_LINE, block.decode("utf-8", "replace").removesuffix("\n").split("\n"), pl.String)


def splice(text: Text, added: pl.DataFrame) -> Text:
    """Each line with the fields of the same row of `added` before its closing brace."""
    if added.width == 0:
        return text
    stem = _without_brace(text.lines())
    fields = _fields(added)
    if _has_empty(stem):
        comma = pl.when(stem.str.ends_with("{")).then(pl.lit("")).otherwise(pl.lit(","))
        joined = pl.select(pl.concat_str(pl.lit(stem), comma, pl.lit(fields))).to_series()
        return Text(lines=joined.alias(_LINE))
    # Two columns of CSV that is never quoted are exactly `stem,fields`: one pass instead of two.
    return Text(block=_join(pl.DataFrame([stem.alias("stem"), fields.alias("fields")])))


def splice_some(text: Text, added: pl.Series) -> Text:
    """Only the lines whose value in `added` is not null get that field."""
    mask = added.is_not_null()
    if not mask.any():
        return text
    rows = mask.arg_true()
    lines = text.lines()
    spliced = splice(Text(lines=lines.gather(rows)), added.gather(rows).to_frame()).lines()
    return Text(lines=lines.scatter(rows, spliced))


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


def write_ndjson(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_ndjson(out)
    return out.getvalue()


def _fields(added: pl.DataFrame) -> pl.Series:
    """`"a":1,"b":2}` for each row. Rows repeat themselves (windows do): each is written once."""
    distinct = added.unique(maintain_order=True)
    texts = split_lines(write_ndjson(distinct)).str.slice(1).alias("fields")
    if distinct.height == added.height:
        return texts
    known = distinct.with_columns(texts)
    return added.join(known, on=added.columns, how="left", nulls_equal=True, maintain_order="left")["fields"]


def _without_brace(lines: pl.Series) -> pl.Series:
    if not lines.str.ends_with("}").all():
        lines = lines.str.strip_chars_end()
    stem = lines.str.head(-1)
    return stem.str.strip_chars_end() if _ends(stem) & {" ", "\t"} else stem


def _has_empty(stem: pl.Series) -> bool:
    return "{" in _ends(stem)


def _ends(lines: pl.Series) -> set[str]:
    return set(lines.str.tail(1).unique().to_list())


def _join(columns: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    columns.write_csv(out, include_header=False, quote_style="never")
    return out.getvalue()
