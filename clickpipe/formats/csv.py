"""Comma-separated values with a header line; quoted fields may hold commas, quotes and newlines.

Shape: a column per name in the header. Types are inferred from the first 1,000 records; an empty
field is null. A line with more fields than the header is bad, one with fewer has nulls at its end;
a blank line is no record. A quote that opens a field and is not closed makes its line bad, no other.
Source: RFC 4180.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import polars as pl

from clickpipe.batch import OFFSET, RAW, WRONG, Batch, Dead, widened
from clickpipe.columns import Columns
from clickpipe.core.format import SAMPLE, Format, Wants, dead_overlong
from clickpipe.csvtext import NOT_CLOSED, Sifted, Walk, ended, fields, has_blank_line, is_plain, records, sift, whole
from clickpipe.errors import DataError
from clickpipe.lines import Block

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class Csv(Format):
    def __init__(self) -> None:
        self._names: list[str] = []

    def begin(self, block: Block) -> Block:
        """Reads the header line."""
        walk = Walk(ended(block.data))
        end = walk.end(0) if block.data else 0
        if block.data and end <= 0:
            raise DataError(f"the first line of CSV is too long, or has {NOT_CLOSED}")
        header = walk.shown(0, end)
        names = fields(header) if header else []
        if not names or len(set(names)) != len(names):
            raise DataError("the first line of CSV must name each column once")
        if self._names and names != self._names:
            raise DataError(f"this file has the columns {', '.join(names)}; the first file has {', '.join(self._names)}")
        self._names = names
        end = min(end, len(block.data))
        return Block(block.data[end:], block.offset + end, block.overlong)

    def saved(self) -> Any:
        return self._names

    def restore(self, saved: Any) -> None:
        self._names = list(saved)

    def cut(self, data: bytes) -> int:
        """A newline inside quotes ends no record."""
        return whole(data)

    def infer(self, blocks: list[Block]) -> dict[str, str]:
        found = chain.from_iterable(records(block.data) for block in blocks)
        sample = list(islice((row for row in found if len(row) <= len(self._names)), SAMPLE))
        columns = [[row[at] for row in sample if at < len(row) and row[at] != ""] for at in range(len(self._names))]
        return {name: _kind(values) for name, values in zip(self._names, columns, strict=True)}

    def read(self, block: Block, columns: Columns, wants: Wants, source: str) -> tuple[Batch, list[Dead], int]:
        rows, sifted = self._rows(block)
        columns = widened(columns, wants.floats)
        typed = {name: _typed(rows[name], columns.types.get(name, "str")) for name in self._names}
        for name, values in typed.items():
            if columns.types.get(name) == "int" and name not in columns.declared and _has_float(rows[name], values):
                wants.floats.add(name)
                columns = widened(columns, wants.floats)
                typed[name] = _typed(rows[name], "float")
        wrong = {
            WRONG + name: mask for name, values in typed.items() if (mask := rows[name].is_not_null() & values.is_null()).any()
        }
        frame = pl.DataFrame(typed).with_columns(**wrong)
        if wrong:
            starts = (sifted or sift(block.data, len(self._names))).starts
            frame = frame.with_columns(*_evidence(block, starts, pl.select(pl.any_horizontal(*wrong.values())).to_series()))
        dead = list(_dead(block, sifted, source))
        return Batch(frame, columns, source=source), dead, frame.height + sum(len(letters) for letters in dead)

    def _rows(self, block: Block) -> tuple[pl.DataFrame, Sifted | None]:
        """All fields as text. Sifted: unless Polars reads the block as it is, and as we do."""
        if not block.data:
            return pl.DataFrame(schema=dict.fromkeys(self._names, pl.String)), None
        data = ended(block.data)
        rows = self._parsed(data) if is_plain(data) else None
        # Polars makes a row of a blank line, one without a value.
        if rows is not None and not (all(column.null_count() for column in rows) and has_blank_line(data)):
            return rows, None
        sifted = sift(data, len(self._names), block.offset)
        rows = self._parsed(sifted.text)
        if rows is None:
            sifted = sift(data, len(self._names), block.offset, exact=True)
            rows = self._parsed(sifted.text)
        assert rows is not None, "sifted records have no more fields than the header"
        return rows[1:], sifted

    def _parsed(self, data: bytes) -> pl.DataFrame | None:
        """None where Polars refuses it, for what one of the records has too much."""
        try:
            rows = pl.read_csv(data, has_header=False, schema=dict.fromkeys(self._names, pl.String))
        except pl.exceptions.PolarsError:
            return None
        return pl.DataFrame([_without_empty(column) for column in rows]) if b'""' in data else rows


def _without_empty(text: pl.Series) -> pl.Series:
    return text.zip_with(text != "", pl.Series([None], dtype=pl.String)).alias(text.name)


def _dead(block: Block, sifted: Sifted | None, source: str) -> Iterator[Dead]:
    if sifted and sifted.bad:
        offsets, raw, reasons = zip(*sifted.bad, strict=True)
        yield Dead(list(raw), list(reasons), list(offsets), source, [None] * len(raw))
    if overlong := (*block.overlong, *(sifted.overlong if sifted else ())):
        yield dead_overlong(overlong, source)


def _evidence(block: Block, starts: pl.Series, wrong: pl.Series) -> list[pl.Series]:
    """For the rows in which a value does not fit: their text, and where it begins."""
    walk, places = Walk(ended(block.data)), wrong.arg_true()
    begins = starts.gather(places)
    raw = pl.Series([walk.record(start) for start in begins.to_list()], dtype=pl.String)
    return [
        pl.Series(RAW, [None], pl.String).new_from_index(0, len(wrong)).scatter(places, raw),
        pl.Series(OFFSET, [None], pl.Int64).new_from_index(0, len(wrong)).scatter(places, begins + block.offset),
    ]


def _kind(values: list[str]) -> str:
    if not values:
        return "str"
    if all(_INTEGER.fullmatch(value) for value in values):
        return "int"
    if all(_NUMBER.fullmatch(value) for value in values):
        return "float"
    return "bool" if {value.lower() for value in values} <= {"true", "false"} else "str"


def _typed(text: pl.Series, kind: str) -> pl.Series:
    if kind == "int":
        return text.str.strip_chars().cast(pl.Int64, strict=False)
    if kind == "float":
        number = text.str.strip_chars().cast(pl.Float64, strict=False)
        return number.zip_with(number.is_finite().fill_null(False), pl.Series([None], dtype=pl.Float64))
    if kind == "bool":
        return text.str.to_lowercase().replace_strict(["true", "false"], [True, False], default=None, return_dtype=pl.Boolean)
    return text


def _has_float(text: pl.Series, integers: pl.Series) -> bool:
    misfits = text.filter(text.is_not_null() & integers.is_null())
    return any(_NUMBER.fullmatch(value.strip()) and not _INTEGER.fullmatch(value.strip()) for value in misfits.unique())
