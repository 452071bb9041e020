"""Tables of pieces <-> records: what travels between the two phases of an aggregate.

    {"table":"groups","floats":"","pieces":"/////7gA…"}            a table, or some rows of it, as an Arrow IPC stream
    {"table":"sub-users","floats":"[\"ms\"]","pieces":"/////7gA…"}   made when the argument of ms had turned out to hold floats

A record stands for itself: tables may come in any order, in any number of parts, and from any number of workers.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

import orjson
import polars as pl

from clickpipe.columns import Columns
from clickpipe.errors import DataError
from clickpipe.wire.arrow import from_arrow, to_arrow

TABLE, FLOATS, PIECES = "table", "floats", "pieces"
COLUMNS = Columns({TABLE: "str", FLOATS: "str", PIECES: "sketch"})
MOST_BYTES = 700_000  # of one record: as text it must fit into a line, which is no longer than 1 MiB


@dataclass(frozen=True)
class Part:
    """Rows of one table. `floats`: aggregates of integers that had turned out to be of floats."""

    table: str
    floats: frozenset[str]
    rows: pl.DataFrame


def packed(tables: Mapping[str, pl.DataFrame], floats: Set[str]) -> pl.DataFrame:
    """Records that say it all."""
    said = orjson.dumps(sorted(floats)).decode() if floats else ""
    found = [(name, said, base64.b64encode(data).decode()) for name, rows in tables.items() for data in _parts(rows)]
    return pl.DataFrame(found, schema=COLUMNS.schema(), orient="row")


def unpacked(records: pl.DataFrame) -> Iterator[Part]:
    """Raises DataError for what `packed` has not made."""
    for table, said, text in records.select(TABLE, FLOATS, PIECES).iter_rows():  # tables, of which there are few
        try:
            floats = frozenset(orjson.loads(said)) if said else frozenset()
            data = base64.b64decode(text, validate=True)
        except (ValueError, TypeError) as error:
            raise DataError(f"what should be pieces of an aggregate is damaged: {error}") from None
        yield Part(table, floats, from_arrow(data, "what should be pieces of an aggregate"))


def _parts(rows: pl.DataFrame) -> Iterator[bytes]:
    """Each as large as a record may be."""
    data = to_arrow(rows)
    if len(data) <= MOST_BYTES:
        yield data
    elif rows.height > 1:
        for some in rows.iter_slices(max(1, rows.height * MOST_BYTES // (2 * len(data)))):
            yield from _parts(some)
    else:
        raise DataError(
            "the pieces of one group are too large to be handed on by a worker",
            hint="partition by what the aggregate is grouped by, and they stay where they are",
        )
