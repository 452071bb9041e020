"""One JSON object per line.

Shape: a column per field of the objects; nested values stay JSON. Blank lines, CRLF and a
missing last newline are fine. See clickpipe-stream.5 for what makes a line bad.
"""

from __future__ import annotations

import io
import json
from contextlib import suppress
from typing import Any, cast

import orjson
import polars as pl

from clickpipe.batch import OFFSET, RAW, Batch, Dead, aside, read, widened, wrong_columns
from clickpipe.columns import Columns
from clickpipe.core.format import SAMPLE, Format, Wants, dead_lines, shown_text
from clickpipe.lines import Block
from clickpipe.ndjson import Parsed
from clickpipe.text import Text

_BEYOND = 2.0**63


class Ndjson(Format):
    has_text = True

    def infer(self, blocks: list[Block]) -> dict[str, str]:
        types: dict[str, str] = {}
        for record in _records(blocks):
            for name, value in record.items():
                kind = _kind(value)
                before = types.setdefault(name, kind)
                if not before or (before, kind) == ("int", "float"):
                    types[name] = kind
        return {name: kind or "str" for name, kind in types.items()}  # nulls only: text

    def read(self, block: Block, columns: Columns, wants: Wants, source: str) -> tuple[Batch, list[Dead], int]:
        # Without text to fall back on, everything anyone may need is parsed now.
        names = list(columns.types) if wants.names is None and not wants.text else list(wants.names or ())
        # Blank lines must not get into the stream; finding them takes a count of the lines.
        count = block.data.count(b"\n") + (block.data[-1:] not in (b"\n", b"")) if wants.text else None
        columns = widened(columns, wants.floats)
        parsed = read(block.data, columns, names, count, expect_bad=wants.expect_bad)
        wants.expect_bad = not parsed.is_clean()
        fixed = columns.declared | ({columns.time.name} if columns.time else set())
        if found := parsed.floats - fixed:
            wants.floats |= found
            columns = widened(columns, wants.floats)
            parsed = read(block.data, columns, names, count)
        frame = parsed.frame.select(names) if names else pl.DataFrame(height=parsed.frame.height)
        if parsed.wrong:
            frame = frame.with_columns(*_evidence(parsed, block.offset), **wrong_columns(parsed.wrong))
        text = Text(block.data, count=frame.height, rows=parsed.rows, clean=_clean)
        if wants.text:
            batch = Batch(frame, columns, text, frozenset(columns.types), source)
        else:
            batch = aside(Batch(frame, columns, source=source), text)
        return batch, list(dead_lines(block, parsed.bad, source)), frame.height + len(parsed.bad) + len(block.overlong)


def _evidence(parsed: Parsed, offset: int) -> list[pl.Series]:
    """For the rows in which a value does not fit: their lines, and where those begin."""
    assert parsed.rows is not None
    height = parsed.frame.height
    places = pl.select(pl.any_horizontal(*parsed.wrong.values())).to_series().arg_true()
    lines = [parsed.doubtful[row] for row in parsed.rows.gather(places)]
    raw = pl.Series(RAW, [None], pl.String).new_from_index(0, height)
    where = pl.Series(OFFSET, [None], pl.Int64).new_from_index(0, height)
    return [
        raw.scatter(places, pl.Series([shown_text(line.text) for line in lines], dtype=pl.String)),
        where.scatter(places, pl.Series([offset + line.offset for line in lines], dtype=pl.Int64)),
    ]


def _clean(data: bytes) -> bytes:
    """The lines without the white space that the stream format gives a meaning to."""
    if b"\r" in data:
        data = data.replace(b"\r", b" ").replace(b" \n", b"\n")
    return data.replace(b"\t", b" ") if b"\t" in data else data


def _records(blocks: list[Block]) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for block in blocks:
        for line in io.BytesIO(block.data):
            if not line.strip():
                continue
            if len(records) == SAMPLE:
                return records
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if isinstance(record, dict):
                records.append(_exact(record, line))
    return records


def _exact(record: dict[str, Any], line: bytes) -> dict[str, Any]:
    """orjson makes a float of an integer beyond 64 bits; it must not make one of its whole column."""
    if any(isinstance(value, float) and abs(value) >= _BEYOND for value in record.values()):
        with suppress(ValueError):
            return cast(dict[str, Any], json.loads(line))
    return record


def _kind(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case str():
            return "str"
        case _:
            return "json"
