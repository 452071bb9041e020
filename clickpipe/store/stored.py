"""Rows that a sink has given, as they stand there now, by clickpipe's types: times are epoch milliseconds."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from clickpipe.columns import dtype
from clickpipe.store import archives
from clickpipe.store.latest import latest
from clickpipe.store.viewread import ViewReader


def of_view(name: str) -> tuple[pl.DataFrame, Mapping[str, str]]:
    """The rows, and which types they have. Raises PlanError, StateError."""
    reader = ViewReader(name)
    try:
        types = reader.about.types
        rows = reader.scan().collect() if types else pl.DataFrame()
    finally:
        reader.close()
    return plain(rows, types), types


def of_archive(name: str) -> tuple[pl.DataFrame, Mapping[str, str]]:
    """Of rows that were corrected the latest."""
    snapshot = archives.Archive(name).snapshot()
    rows = archives.scan(snapshot)
    kept = latest(rows, snapshot.key, snapshot.columns) if snapshot.is_revised and snapshot.key else rows
    return plain(kept.collect(engine="streaming"), snapshot.columns), snapshot.columns


def plain(rows: pl.DataFrame, types: Mapping[str, str]) -> pl.DataFrame:
    """Instants as a stream has them."""
    times = [name for name in rows.columns if types.get(name) == "time" and rows.schema[name] != pl.Int64]
    return rows.with_columns(pl.col(name).dt.epoch("ms") for name in times).cast(
        {name: dtype(types[name]) for name in rows.columns if name in types and name not in times}
    )
