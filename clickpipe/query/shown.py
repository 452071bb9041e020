"""An answer as people and programs want it: table, NDJSON, JSON, CSV, Parquet, a chart.

Times are RFC 3339; in Parquet they are instants.
"""

from __future__ import annotations

import io
from typing import Any

import polars as pl

from clickpipe.batch import Batch, render
from clickpipe.columns import Columns, kind_of
from clickpipe.core.compute import as_json, finite
from clickpipe.core.sink import Form
from clickpipe.core.time import rfc3339
from clickpipe.query import charts
from clickpipe.sinks.stdout import table_text

FORMS = ("table", "ndjson", "json", "csv", "parquet")


def shown(frame: pl.DataFrame, form: str, *, rows: int, width: int) -> bytes:
    """`form`: one of FORMS, or plot. `rows`: that a table has at most; `width`: of the terminal, in characters."""
    if form == "parquet":
        return _parquet(frame)
    plain = _plain(frame)
    if form == "plot":
        return charts.chart(plain, width).encode()
    if form == "csv":
        return _csv(_spelled(plain))
    columns = Columns({name: "json" if kind.is_nested() else _kind(plain.schema[name]) for name, kind in frame.schema.items()})
    if form == "table":
        return table_text(Batch(_times_in_milliseconds(plain), columns), Form(None, True, rows), width).encode()
    lines = render(_spelled(plain), {name: "str" if kind == "time" else kind for name, kind in columns.types.items()})
    return lines if form == "ndjson" else b"[\n" + b",\n".join(lines.splitlines()) + b"\n]\n"


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Columns of the types that a stream has, and instants."""
    changed = []
    for name, kind in frame.schema.items():
        if kind.is_nested():
            changed.append(as_json(name))
        elif kind.is_decimal():
            changed.append(pl.col(name).cast(pl.Float64))
        elif isinstance(kind, pl.Duration):
            changed.append(pl.col(name).dt.total_milliseconds())
        elif isinstance(kind, pl.Datetime):
            changed.append(pl.col(name).dt.replace_time_zone("UTC") if kind.time_zone is None else pl.col(name))
        elif isinstance(kind, pl.Binary):
            changed.append(pl.col(name).bin.encode("base64"))
        elif kind.is_integer():
            changed.append(pl.col(name).cast(pl.Int64))
        elif not kind.is_numeric() and kind not in (pl.Boolean, pl.String):
            changed.append(pl.col(name).cast(pl.String))
    return finite(frame.with_columns(changed))


def _kind(type_: Any) -> str:
    return "time" if isinstance(type_, pl.Datetime) else kind_of(type_)


def _instants(frame: pl.DataFrame) -> list[str]:
    return [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]


def _times_in_milliseconds(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col(name).dt.epoch("ms") for name in _instants(frame))


def _spelled(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(rfc3339(pl.col(name).dt.epoch("ms")).alias(name) for name in _instants(frame))


def _csv(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_csv(out)
    return out.getvalue()


def _parquet(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_parquet(out, compression="zstd")
    return out.getvalue()
