"""Put records in the order of event time.

Shape: as given. Order: by event time; of one time as they came. A record is held back until the watermark has passed it,
and one that is late has no place any more: it goes to the late stream.
Memory: the records of --max-out-of-orderness; without a watermark, all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from clickpipe.columns import Columns, WindowInfo
from clickpipe.core.held import HeldOperator
from clickpipe.core.kept import Kept
from clickpipe.core.operator import Operator
from clickpipe.core.option import option
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.core.timed import time_column


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

    def keys(self, given: Columns) -> tuple[str, ...]:
        return ()

    def open(self, given: Columns, saved: Tables) -> Operator:
        return HeldOperator(time_column(given, self.time), saved)

    def describe(self, given: Columns) -> str:
        return f"by {time_column(given, self.time).name}"

    def keeps(self, given: Columns | None, window: WindowInfo | None) -> Kept:
        return Kept("the latest records", "let go when the watermark passes them", is_timed=True)

    def judges_lateness(self) -> bool:
        return True

    def memory(self) -> str:
        return "the records that the watermark has not passed"
