"""Put records in the order of event time.

Shape: as given. Order: by event time; of one time as they came. A record is held back until the watermark has passed it,
and one that is late has no place any more: it goes to the late stream.
Memory: the records of --max-out-of-orderness; without a watermark, all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns
from clickpipe.core.held import Held
from clickpipe.core.operator import Late, Operator
from clickpipe.core.option import option
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.core.timed import split_late, time_column, timed, without_marks


@dataclass(frozen=True)
class Sort(OperatorStep):
    time: str | None = option("field that holds event time, where the stream does not say", default=None, metavar="FIELD")

    outcome = "held"
    epilog = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts --max-out-of-orderness 5s | clickpipe sort |
    clickpipe limit 3 | clickpipe sink -
  printf '{"ts":1772355602}\\n{"ts":1772355600}\\n' | clickpipe sort --time ts"""

    def columns(self, given: Columns) -> Columns:
        time_column(given, self.time)
        return given

    def needs(self, given: Columns) -> tuple[str, ...]:
        return (time_column(given, self.time).name,)

    def keys(self) -> tuple[str, ...]:
        return ()

    def open(self, given: Columns, saved: Tables) -> Operator:
        return SortOperator(self, given, saved)

    def describe(self, given: Columns) -> str:
        return f"by {time_column(given, self.time).name}"

    def memory(self) -> str:
        return "the records that the watermark has not passed"


class SortOperator(Operator):
    def __init__(self, step: Sort, given: Columns, saved: Tables) -> None:
        self._time = time_column(given, step.time)
        self._held = Held(saved)
        self._watermark = int(saved["watermark"].item()) if "watermark" in saved else None

    def on_batch(self, batch: Batch) -> Iterable[Batch | Late | Dead]:
        batch, times, dead = timed(batch, self._time)
        if dead:
            yield dead
        for out in split_late(batch, times, self._watermark, by=1):
            if isinstance(out, Late):
                yield out
            else:
                self._held.add(without_marks(out[0]), out[1])

    def on_watermark(self, time: int) -> Iterable[Batch]:
        self._watermark = time
        return self._held.release(time)

    def snapshot(self) -> Tables:
        watermark = {} if self._watermark is None else {"watermark": pl.DataFrame({"watermark": [self._watermark]})}
        return {**self._held.snapshot(), **watermark}
