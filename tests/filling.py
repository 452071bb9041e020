"""Archives that a test fills by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from clickpipe.store.archivefiles import Origin, Staging
from clickpipe.store.archives import Archive, scan
from clickpipe.store.partitioning import Partitioning
from clickpipe.store.versions import File, Shape

LINEAGE = "9f86d0811234abcd"
DAY = 86_400_000
START = 1_772_323_200_000  # 2026-03-01
TYPES = {"ts": "int", "page": "str", "n": "int"}


class Filler:
    """A pipeline that writes to an archive, checkpoint by checkpoint."""

    def __init__(
        self,
        name: str = "clicks",
        lineage: str = LINEAGE,
        types: Mapping[str, str] = TYPES,
        by: Sequence[str] = ("day",),
        time: str | None = "ts",
        unit: str = "ms",
    ) -> None:
        self.archive = Archive(name, is_new=True)
        self.archive.make()
        self.types, self._lineage, self._time, self._unit = types, lineage, time, unit
        self.staging = Staging(self.archive, Origin.of_pipeline("p", lineage), Partitioning(tuple(by)), types, time)
        self.epoch = 0

    @property
    def shape(self) -> Shape:
        time = {"column": self._time, "unit": self._unit} if self._time else None
        return Shape(dict(self.types), time)

    def staged(self, rows: pl.DataFrame) -> list[File]:
        times = None if self._time is None else rows[self._time] * (1_000 if self._unit == "s" else 1)
        self.staging.begin(self.epoch)
        self.staging.add(rows, times)
        return self.staging.taken()

    def commit(self, files: list[File]) -> None:
        self.epoch += 1
        self.archive.commit(files, self.shape, {self._lineage: self.epoch})

    def add(self, rows: pl.DataFrame) -> list[File]:
        files = self.staged(rows)
        self.commit(files)
        return files


def rows(first: int, count: int, step: int = 1_000) -> pl.DataFrame:
    """Records by number: so many milliseconds apart."""
    numbers = pl.int_range(first, first + count, eager=True)
    return pl.DataFrame({"ts": START + numbers * step, "page": ("/p/" + (numbers % 7).cast(pl.String)), "n": numbers})


def read(name: str = "clicks") -> pl.DataFrame:
    """All rows, as our readers see them."""
    return scan(Archive(name).snapshot()).collect()


def numbers(name: str = "clicks") -> list[int]:
    return sorted(read(name)["n"].to_list())


def seen(home: Path, columns: str = "n", name: str = "clicks") -> list[Any]:
    """What DuckDB sees of an archive, which knows nothing of us."""
    pattern = f"{home}/archives/{name}/**/*.parquet"
    return (
        duckdb.connect().execute(f"SELECT {columns} FROM read_parquet($1, union_by_name=true) ORDER BY ALL", [pattern]).fetchall()
    )
