"""A statement's answer: computed in a thread, within a bound of memory, or taken from where the last one was kept.

Memory: at most `--memory`, beyond which the query is given up.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl

from clickpipe.errors import ClickpipeError, DataError
from clickpipe.lazy import numpy_for_polars
from clickpipe.query import sketches
from clickpipe.query.statement import Statement, mentioned, spoken
from clickpipe.query.tables import Table, scan

T = TypeVar("T")
_LOOK = 0.02  # seconds between two looks at the memory
_TRIES = 3  # of a query while files go
_SCAN = re.compile(r"Parquet SCAN \[(?P<first>[^\],]*)(?P<more>(?:, [^\],]*)*)\]")


@dataclass
class Query:
    """One statement over the tables that it names, which are opened when it is made: it sees them at one moment."""

    statement: Statement
    tables: Sequence[Table]

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self._context: Any = pl.SQLContext({table.name: scan(table, self.notes) for table in self.tables})

    def frame(self, memory: int) -> pl.DataFrame:
        """Raises PlanError for what is no such statement, DataError beyond `memory` bytes."""
        return bounded(self._again, memory)

    def _again(self) -> pl.DataFrame:
        """An archive may be compacted after its files were listed, and these may be gone by now: then they are listed anew."""
        for _ in range(_TRIES):
            try:
                return self._collected(self._lazy())
            except FileNotFoundError:
                self.__post_init__()
        return self._collected(self._lazy())

    def plan(self) -> str:
        """How it would be computed: what is read of which files."""
        try:
            return str(self._lazy().explain(engine="streaming"))
        except pl.exceptions.PolarsError as error:
            raise self._spoken(error) from None

    def _lazy(self) -> pl.LazyFrame:
        text = self.statement.text
        if sketches.has_any(text):
            numpy_for_polars()
            text = sketches.Sketches(lambda part: self._collected(self._asked(part)), self._register).rewritten(text)
        return self._asked(text)

    def _register(self, name: str, frame: pl.DataFrame) -> None:
        self._context.register(name, frame)

    def _asked(self, text: str) -> pl.LazyFrame:
        try:
            asked: pl.LazyFrame = self._context.execute(text)
        except pl.exceptions.PolarsError as error:
            raise self._spoken(error) from None
        return asked

    def _collected(self, asked: pl.LazyFrame) -> pl.DataFrame:
        try:
            return asked.collect(engine="streaming")
        except pl.exceptions.PolarsError as error:
            raise self._spoken(error) from None

    def _spoken(self, error: Exception) -> ClickpipeError:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ClickpipeError):
            return cause
        return spoken(self.statement, error, [table.name for table in self.tables])


def query(statement: Statement) -> Query:
    return Query(statement, mentioned(statement))


def files_read(plan: str) -> int:
    """How many Parquet files a plan reads, all its scans together."""
    count = 0
    for match in _SCAN.finditer(plan):
        others = re.search(r"\.\.\. (\d+) other", match["more"])
        listed = [name for name in (match["first"], *match["more"].split(", ")) if name and "other source" not in name]
        count += len(listed) + (int(others[1]) if others else 0)
    return count


def bounded(work: Callable[[], T], memory: int) -> T:
    """What `work` gives, in a thread; given up when this process holds more than so many bytes more than when it began. Raises
    what it raises, and DataError."""
    done = threading.Event()
    result: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # a panic inside Polars is no Exception
            failed.append(error)
        done.set()

    begun = _held()
    threading.Thread(target=run, daemon=True, name="query").start()
    while not done.wait(_LOOK):
        if _held() - begun > memory:
            hint = "ask for less: fewer columns, a shorter time, a LIMIT"
            raise DataError(f"the query needs more than --memory {memory >> 20}MiB", hint=hint)
    if failed:
        raise failed[0]
    return result[0]


def _held() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4_096
