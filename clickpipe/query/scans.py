"""Stores as lazy frames: a query reads the columns, files and rows that it needs.

Shape: columns by clickpipe's kinds, times as instants in UTC. A log has `_partition`, `_offset` and `_arrival` beside the
fields of its records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from clickpipe.columns import Columns, table_dtype
from clickpipe.core.format import FORMATS, SAMPLE, Format, Wants
from clickpipe.errors import PlanError
from clickpipe.lines import Block
from clickpipe.query.tables import Table
from clickpipe.store import archives, logs
from clickpipe.store.latest import latest
from clickpipe.store.prefilter import Condition, conditions
from clickpipe.store.viewread import ViewReader

_OURS = ("_partition", "_offset", "_arrival")


def view(name: str, _: list[str]) -> pl.LazyFrame:
    return _known(ViewReader(name)).scan()


def _known(reader: ViewReader) -> ViewReader:
    if not reader.about.types:
        raise PlanError(f'view "{reader.name}" has no rows yet: they come with the first checkpoint, or at the end of the run')
    return reader


def archive(name: str, _: list[str]) -> pl.LazyFrame:
    """Of rows that were corrected the latest, as in a view."""
    snapshot = archives.Archive(name).snapshot()
    rows = archives.scan(snapshot)
    return latest(rows, snapshot.key, snapshot.columns) if snapshot.is_revised and snapshot.key else rows


def kinds(table: Table) -> dict[str, str]:
    """The columns of a table, by clickpipe's types."""
    found: dict[str, str] = {}
    for kind in reversed(table.kinds):  # an archive says of its columns what they have become
        if kind == "view":
            reader = ViewReader(table.of)
            found = {**reader.about.types, **found}
            reader.close()
        else:
            found = {**found, **(archives.Archive(table.of).snapshot().columns if kind == "archive" else _log_kinds(table.of))}
    return found


def _log_kinds(name: str) -> dict[str, str]:
    one = _Log(logs.Log(name), [])
    return {**one.columns.types, "_partition": "int", "_offset": "int", "_arrival": "time"}


def hot_and_cold(name: str) -> pl.LazyFrame:
    """An archive, and those rows of the view that it does not have."""
    reader, snapshot = ViewReader(name), archives.Archive(name).snapshot()
    if not reader.about.types:
        return archive(name, [])
    keys, types = reader.about.keys or tuple(snapshot.key), _agreed(name, reader.about.types, snapshot.columns)
    if not keys or not set(keys) <= set(snapshot.columns):
        raise PlanError(
            f'the view and the archive "{name}" do not belong together: the archive has no key of the view',
            hint=f'"view:{name}" or "archive:{name}" in double quotes is one of them alone',
        )
    hot, cold = _shaped(reader.scan(), types), _shaped(archives.scan(snapshot), types)
    if snapshot.is_revised or reader.about.is_revised:
        return latest(pl.concat([cold, hot]), keys, types)
    old = cold.select(keys)
    if (least := reader.oldest()) is not None:
        old = old.filter(pl.col("window_start") >= datetime.fromtimestamp(least / 1_000, UTC))
    return pl.concat([cold, hot.join(old, on=list(keys), how="anti", nulls_equal=True)])


def _agreed(name: str, hot: Any, cold: Any) -> dict[str, str]:
    """The columns of both. Raises PlanError where they are not of one kind."""
    types = {**cold, **{column: kind for column, kind in hot.items() if column not in cold}}
    for column in types:
        kinds = {side[column] for side in (hot, cold) if column in side}
        if kinds == {"int", "float"}:
            types[column] = "float"
        elif len(kinds) > 1:
            raise PlanError(
                f'column "{column}" is {hot[column]} in the view "{name}" and {cold[column]} in the archive',
                hint=f'"view:{name}" or "archive:{name}" in double quotes is one of them alone',
            )
    return types


def _shaped(rows: pl.LazyFrame, types: dict[str, str]) -> pl.LazyFrame:
    has = rows.collect_schema()
    return rows.select(
        (pl.col(name).cast(table_dtype(kind)) if has[name] != table_dtype(kind) else pl.col(name))
        if name in has
        else pl.lit(None, table_dtype(kind)).alias(name)
        for name, kind in types.items()
    )


def log(name: str, notes: list[str]) -> pl.LazyFrame:
    """Lines that are no records with these columns are left out, and `notes` says how many."""
    from polars.io.plugins import register_io_source

    one = _Log(logs.Log(name), notes)
    return register_io_source(one.read, schema=one.schema(), explain_name=f"log:{name}")


@dataclass
class _Log:
    """One log as a table: its columns are those of its first records."""

    log: logs.Log
    notes: list[str]

    def __post_init__(self) -> None:
        self._format: Format = FORMATS.find("ndjson", Format)()
        types = self._format.infer(list(self._sample()))
        self.columns = Columns({name: kind for name, kind in types.items() if name not in _OURS}, frozenset(types))
        self._ends = self.log.ends()

    def schema(self) -> dict[str, Any]:
        kinds = {name: table_dtype(kind) for name, kind in self.columns.types.items()}
        return {**kinds, "_partition": pl.Int64, "_offset": pl.Int64, "_arrival": table_dtype("time")}

    def _sample(self) -> Iterator[Block]:
        count = 0
        for partition in range(self.log.partitions):
            for head, text in self.log.batches(partition, self.log.starts[partition]):
                yield Block(text, 0)
                count += head.records
                if count >= SAMPLE:
                    return

    def read(
        self, names: list[str] | None, predicate: pl.Expr | None, limit: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        names = names or list(self.schema())
        reads = list(dict.fromkeys([*names, *(predicate.meta.root_names() if predicate is not None else ())]))
        asked, lost = conditions(predicate), 0
        for partition in range(self.log.partitions):
            if not all(_may_hold(one, "_partition", partition, partition) for one in asked):
                continue
            for head, text in self.log.batches(partition, self._first(partition, asked)):
                if head.offset >= self._ends[partition]:
                    break
                if not all(_may_be_in(one, head) for one in asked):
                    continue
                frame = self._parsed(text, partition, head, reads)
                lost += head.records - frame.height
                frame = frame if predicate is None else frame.filter(predicate)
                frame = frame if limit is None else frame.head(limit)
                yield frame.select(names)
                if limit is not None and (limit := limit - frame.height) <= 0:
                    return
        if lost:
            self.notes.append(f"log {self.log.name}: {lost:,} lines are no records with these columns, and are left out")

    def _first(self, partition: int, asked: Sequence[Condition]) -> int:
        """The first offset that the conditions let in."""
        least = [one.value for one in asked if one.column == "_offset" and one.operator in ("=", ">", ">=")]
        wanted = [int(value) for value in least if isinstance(value, int)]
        return min(max([self.log.starts[partition], *wanted]), self._ends[partition])

    def _parsed(self, text: bytes, partition: int, head: Any, names: list[str]) -> pl.DataFrame:
        fields = [name for name in names if name not in _OURS]
        batch, _, _ = self._format.read(Block(text, 0), self.columns, Wants(list(fields), False, set()), self.log.name)
        good, _ = batch.need(fields, set())
        frame = good.frame.select(fields) if fields else pl.DataFrame(height=good.height)
        frame = frame.cast({name: table_dtype(self.columns.types[name]) for name in fields})
        first = pl.lit(head.offset, pl.Int64)  # of its batch: which line a record was is known where no line was bad
        offsets = first + pl.int_range(pl.len(), dtype=pl.Int64) if good.height == head.records else first
        ours = {
            "_partition": pl.lit(partition, pl.Int64),
            "_offset": offsets,
            "_arrival": pl.lit(head.arrival).cast(table_dtype("time")),
        }
        if frame.width:
            return frame.with_columns(**ours).select(names)
        return pl.select(pl.int_range(good.height).alias("\0row")).with_columns(**ours).select(names)


def _may_be_in(one: Condition, head: Any) -> bool:
    """Whether a batch can have a record that meets the condition."""
    return _may_hold(one, "_offset", head.offset, head.offset + head.records - 1) and _may_hold(
        one, "_arrival", head.arrival, head.arrival
    )


def _may_hold(one: Condition, column: str, least: int, greatest: int) -> bool:
    if one.column != column or isinstance(one.value, str):
        return True
    value = one.value
    met = {
        "=": least <= value <= greatest,
        ">": greatest > value,
        ">=": greatest >= value,
        "<": least < value,
        "<=": least <= value,
    }
    return bool(met[one.operator])
