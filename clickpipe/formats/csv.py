"""Comma-separated values with a header line; quoted fields may hold commas, quotes and newlines.

Shape: a column per name in the header. Types are inferred from the first 1,000 records; an empty
field is null. A line with more fields than the header is bad, one with fewer has nulls at its end.
Source: RFC 4180.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import polars as pl

from clickpipe.batch import RAW, WRONG, Batch, Dead, widened
from clickpipe.columns import Columns
from clickpipe.core.format import SAMPLE, Format, Wants, dead_overlong
from clickpipe.errors import DataError
from clickpipe.lines import Block
from clickpipe.text import looks_packed, split_lines, write_ndjson

_INTEGER = re.compile(r"[+-]?\d{1,18}")


class Csv(Format):
    def __init__(self) -> None:
        self._names: list[str] = []

    def begin(self, block: Block) -> Block:
        """Reads the header line."""
        end = self._record_end(block.data)
        names = next(csv.reader([block.data[:end].decode("utf-8", "replace")]), [])
        if not names or len(set(names)) != len(names):
            raise DataError("the first line of CSV must name each column once")
        if self._names and names != self._names:
            raise DataError(f"this file has the columns {', '.join(names)}; the first file has {', '.join(self._names)}")
        self._names = names
        return Block(block.data[end:], block.offset + end, block.end, block.overlong)

    def saved(self) -> Any:
        return self._names

    def restore(self, saved: Any) -> None:
        self._names = list(saved)

    @staticmethod
    def _record_end(data: bytes) -> int:
        end = data.find(b"\n") + 1
        while end and data.count(b'"', 0, end) % 2:
            end = data.find(b"\n", end) + 1
        return end or len(data)

    def cut(self, data: bytes) -> int:
        """A newline inside quotes ends no record: an odd number of quotes before it says so."""
        end = len(data)
        while end and data.count(b'"', 0, end) % 2:
            end = data.rfind(b"\n", 0, end - 1) + 1
        return end

    def infer(self, blocks: list[Block]) -> dict[str, str]:
        rows = csv.reader(io.StringIO(b"".join(block.data for block in blocks).decode("utf-8", "replace")))
        sample = [row for row, _ in zip(rows, range(SAMPLE), strict=False)]
        columns = [[row[at] for row in sample if at < len(row) and row[at] != ""] for at in range(len(self._names))]
        return {name: _kind(values) for name, values in zip(self._names, columns, strict=True)}

    def read(self, block: Block, columns: Columns, wants: Wants, source: str) -> tuple[Batch, list[Dead], int]:
        rows, dead = self._rows(block, source)
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
        if wrong:  # a dead letter shows the fields as they were
            wrong[RAW] = split_lines(write_ndjson(rows))
        frame = pl.DataFrame(typed).with_columns(**wrong)
        total = frame.height + sum(len(letters) for letters in dead)
        return Batch(frame, columns, source=source), dead, total

    def _rows(self, block: Block, source: str) -> tuple[pl.DataFrame, list[Dead]]:
        """All fields as text, and the records that have too many of them."""
        dead = [dead_overlong(block.overlong, source)] if block.overlong else []
        schema = dict.fromkeys(self._names, pl.String)
        if not block.data.strip():
            return pl.DataFrame(schema=schema), dead
        if looks_packed(block.data):
            return self._slowly(block, source, dead)
        try:
            return pl.read_csv(block.data, has_header=False, schema=schema, empty_string_is_null=True), dead
        except pl.exceptions.PolarsError:
            return self._slowly(block, source, dead)

    def _slowly(self, block: Block, source: str, dead: list[Dead]) -> tuple[pl.DataFrame, list[Dead]]:
        good, bad = [], []
        for row in csv.reader(io.StringIO(block.data.decode("utf-8", "backslashreplace"))):
            if len(row) > len(self._names):
                bad.append(",".join(row))
            elif row:
                good.append([field or None for field in row] + [None] * (len(self._names) - len(row)))
        if bad:
            reason = f"more than {len(self._names)} fields"
            dead = [*dead, Dead(bad, [reason] * len(bad), [None] * len(bad), source, [None] * len(bad))]
        return pl.DataFrame(good, schema=dict.fromkeys(self._names, pl.String), orient="row"), dead


def _kind(values: list[str]) -> str:
    if not values:
        return "str"
    if all(_INTEGER.fullmatch(value) for value in values):
        return "int"
    if all(_is_number(value) for value in values):
        return "float"
    return "bool" if {value.lower() for value in values} <= {"true", "false"} else "str"


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value) is not None


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
    return any(_is_number(value.strip()) and not _INTEGER.fullmatch(value.strip()) for value in misfits.unique())
