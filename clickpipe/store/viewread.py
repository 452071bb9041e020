"""Views as their readers see them: whole checkpoints, while the pipeline writes.

A reader holds one transaction: all that it reads is of one moment, and no writer waits for it. Conditions on columns are
given to SQLite, so that a row that is asked for by its key is found by its key.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

from clickpipe.columns import table_dtype
from clickpipe.errors import StateError
from clickpipe.store import views
from clickpipe.store.prefilter import Condition, conditions

_ROWS = 50_000  # that are read at once
_KINDS = {"INTEGER": "int", "REAL": "float", "TEXT": "str"}
_YEAR_1, _YEAR_10000 = -62_135_596_800_000, 253_402_300_800_000


@dataclass(frozen=True)
class About:
    """What a view is. `types`: its columns, as the stream line spells them, none before the first rows; `keys`: rows equal in
    these are one row, none: not known; `time`: the column that says when a row's window began."""

    types: Mapping[str, str]
    keys: tuple[str, ...] = ()
    is_revised: bool = False

    @property
    def time(self) -> str | None:
        return "window_start" if self.types.get("window_start") == "time" else None


class ViewReader:
    """One view at one moment. Raises PlanError for one that is not there, StateError for one that is damaged."""

    def __init__(self, name: str) -> None:
        views.check_there(name)
        path = views.path_of(name)
        self.name, self._path = name, path
        with views.told(path):
            self._connection = sqlite3.connect(
                f"file:{path}?mode=ro", uri=True, timeout=views.PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("BEGIN")
            self.about = self._about()

    def version(self) -> str:
        """Another one whenever rows have changed."""
        with views.told(self._path):
            row = self._connection.execute("SELECT lineage, epoch FROM _marker").fetchone() if self._has("_marker") else None
            changes = self._one("PRAGMA user_version")
        return f"{os.stat(self._path).st_ino}:{row[0]}:{row[1]}:{changes}" if row else "empty"

    def rows(self) -> int:
        with views.told(self._path):
            return int(self._one(f"SELECT count(*) FROM {views.quoted(self.name)}")) if self.about.types else 0

    def oldest(self) -> int | None:
        """A time that no row's window began before, where rows have one. Unit: milliseconds."""
        if self.about.time is None:
            return None
        with views.told(self._path):
            text = self._one(f"SELECT min({self.about.time}) FROM {views.quoted(self.name)}")
        return None if text is None else int(_instants(pl.Series("t", [text], pl.String)).to_physical()[0]) // 1_000 * 1_000

    def scan(self) -> pl.LazyFrame:
        """The rows, those only and those columns only that are asked for. Shape: times as instants, keys in their order."""
        from polars.io.plugins import register_io_source

        schema = {name: table_dtype(kind) for name, kind in self.about.types.items()}

        def read(names: list[str] | None, predicate: pl.Expr | None, limit: int | None, _: int | None) -> Iterator[pl.DataFrame]:
            reads = list(dict.fromkeys([*(names or schema), *(predicate.meta.root_names() if predicate is not None else ())]))
            for frame in self._frames(reads, conditions(predicate), limit if predicate is None else None):
                kept = frame if predicate is None else frame.filter(predicate)
                yield kept.select(names) if names else kept

        return register_io_source(read, schema=schema, explain_name=f"view:{self.name}")

    def frame(self) -> pl.DataFrame:
        """All rows in the order of their keys, and _rev, as they stand in the view."""
        if not self.about.types:
            return pl.DataFrame()
        with views.told(self._path):
            cursor = self._connection.execute(f"SELECT * FROM {views.quoted(self.name)} ORDER BY _key")
            names = [description[0] for description in cursor.description]
            return pl.DataFrame(cursor.fetchall(), schema=names, orient="row", infer_schema_length=None).drop("_key")

    def newest(self, most: int) -> tuple[list[str], list[tuple[object, ...]]]:
        """The names of the columns, and the last rows by their keys, which begin with when their window did."""
        if not self.about.types:
            return [], []
        names = list(self.about.types)
        text = f"SELECT {', '.join(map(views.quoted, names))} FROM {views.quoted(self.name)} ORDER BY _key DESC LIMIT ?"
        with views.told(self._path):
            return names, self._connection.execute(text, (most,)).fetchall()

    def close(self) -> None:
        self._connection.close()

    def _frames(self, names: Sequence[str], asked: Sequence[Condition], limit: int | None) -> Iterator[pl.DataFrame]:
        where, values = self._where(asked)
        stored = {name: _stored(self.about.types[name]) for name in names}
        text = f"SELECT {', '.join(map(views.quoted, names))} FROM {views.quoted(self.name)}{where}"
        text += "" if limit is None else f" LIMIT {int(limit)}"
        with views.told(self._path):
            cursor = self._connection.execute(text, values)
            while True:
                rows = cursor.fetchmany(_ROWS)
                yield _typed(pl.DataFrame(rows, schema=stored, orient="row"), self.about.types)
                if len(rows) < _ROWS:
                    return

    def _where(self, asked: Sequence[Condition]) -> tuple[str, list[Any]]:
        """What SQLite can tell of the conditions: no row that meets them is left out, some may be too many."""
        equal = {one.column: self._as_written(one) for one in asked if one.operator == "="}
        keys = [equal.get(name) for name in self.about.keys]
        if keys and None not in keys:
            return " WHERE _key = ?", [orjson.dumps(keys).decode()]
        parts = [part for one in asked if (part := _part(one, self.about.types.get(one.column, "")))]
        return (f" WHERE {' AND '.join(text for text, _ in parts)}" if parts else ""), [value for _, value in parts]

    def _as_written(self, one: Condition) -> str | int | None:
        """The value of a key as the view has it; None: it cannot be told."""
        kind = self.about.types.get(one.column)
        if kind == "time" and isinstance(one.value, int):
            some = f"SELECT {views.quoted(one.column)} FROM {views.quoted(self.name)} LIMIT 1"
            row = self._connection.execute(some).fetchone()
            return _spelled(one.value) if row and "T" in str(row[0]) else one.value
        is_plain = isinstance(one.value, {"str": str, "int": int}.get(str(kind), type(None)))
        return one.value if is_plain and not isinstance(one.value, float) else None

    def _about(self) -> About:
        if not self._has(self.name):
            return About({})
        if self._has("_about"):
            said = orjson.loads(self._one("SELECT said FROM _about"))
            return About(said["types"], tuple(said["keys"]), said["revised"])
        columns = self._connection.execute("SELECT name, type FROM pragma_table_info(?)", [self.name]).fetchall()
        return About({name: _KINDS[kind] for name, kind in columns if name not in ("_key", "_rev")})

    def _has(self, table: str) -> bool:
        found = self._connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", [table])
        return found.fetchone() is not None

    def _one(self, query: str) -> Any:
        row = self._connection.execute(query).fetchone()
        if row is None:
            raise StateError(f"{self._path}: a table is empty that cannot be", notes=views.WAYS_OUT)
        return row[0]


def read(name: str) -> pl.DataFrame:
    """See ViewReader.frame."""
    reader = ViewReader(name)
    try:
        return reader.frame()
    finally:
        reader.close()


def _stored(kind: str) -> Any:
    return {"int": pl.Int64, "float": pl.Float64, "bool": pl.Int64}.get(kind, pl.String)


def _typed(frame: pl.DataFrame, types: Mapping[str, str]) -> pl.DataFrame:
    bools = [pl.col(name).cast(pl.Boolean) for name in frame.columns if types[name] == "bool"]
    times = [_instants(frame[name]) for name in frame.columns if types[name] == "time"]
    return frame.with_columns(*bools, *times)


def _instants(texts: pl.Series) -> pl.Series:
    """RFC 3339, or epoch milliseconds, as the sink was told to write them."""
    number = texts.cast(pl.Int64, strict=False).cast(table_dtype("time"))
    if number.null_count() == texts.null_count():
        return number
    spelled = texts.str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="ms", time_zone="UTC", strict=False)
    return spelled.zip_with(spelled.is_not_null(), number)


def _spelled(milliseconds: int) -> str:
    """As sinks spell it: with milliseconds only where there are any."""
    form = "%Y-%m-%dT%H:%M:%S%.3fZ" if milliseconds % 1_000 else "%Y-%m-%dT%H:%M:%SZ"
    return str(pl.select(pl.lit(milliseconds).cast(pl.Datetime("ms")).dt.strftime(form)).item())


def _part(one: Condition, kind: str) -> tuple[str, Any] | None:
    """A condition in SQLite's words."""
    name = views.quoted(one.column)
    if kind == "time":
        return _of_time(name, one)
    if kind in ("int", "float", "str") and isinstance(one.value, {"str": str}.get(kind, (int, float))):
        return f"{name} {one.operator} ?", one.value
    return None


def _of_time(name: str, one: Condition) -> tuple[str, Any] | None:
    """Texts of times have the order of their seconds, whatever follows. Those that are numbers begin with a digit or minus, and
    have another length."""
    if not isinstance(one.value, int) or not _YEAR_1 <= one.value < _YEAR_10000:
        return None
    second = _spelled(one.value)[:19]
    is_number = f"{name} NOT LIKE '____-__-__T%'"
    bounds = {">": f"{name} >= ?", ">=": f"{name} >= ?", "<": f"substr({name}, 1, 19) <= ?", "<=": f"substr({name}, 1, 19) <= ?"}
    text = bounds.get(one.operator, f"substr({name}, 1, 19) = ?")
    return f"({is_number} OR {text})", second
