"""Let the first N records through, then end.

Order: as they come. The step before is told to stop, as with head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from clickpipe.batch import Batch
from clickpipe.columns import Columns
from clickpipe.core.operator import Operator
from clickpipe.core.option import argument
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.errors import PlanError


@dataclass(frozen=True)
class Limit(OperatorStep):
    count: int = argument("how many records", metavar="N", example="10")

    ends = True
    epilog = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst | clickpipe limit 3 | clickpipe sink -"""

    def columns(self, given: Columns) -> Columns:
        if self.count < 0:
            raise PlanError("N must not be negative")
        return given

    def keys(self, given: Columns) -> tuple[str, ...]:
        return ()

    def groups_by(self, given: Columns) -> None:
        """They are counted, no more."""

    def open(self, given: Columns, saved: Tables) -> Operator:
        return LimitOperator(self.count, saved)

    def describe(self, given: Columns) -> str:
        return f"the first {self.count:,} records"


class LimitOperator(Operator):
    def __init__(self, count: int, saved: Tables) -> None:
        self._left = int(saved["left"].item()) if "left" in saved else count
        self.done = self._left == 0

    def on_batch(self, batch: Batch) -> Iterable[Batch]:
        taken = batch.head(self._left)
        self._left -= taken.height
        self.done = self._left == 0
        yield taken

    def snapshot(self) -> Tables:
        return {"left": pl.DataFrame({"left": [self._left]})}
