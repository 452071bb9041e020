"""Make one stream of those of several workers.

Shape: as given. Order: as they come; --ordered: by event time, within the watermark. The watermark is the least of all inputs'.
Memory: one batch, and what stands in pipes; --ordered: also the records that the watermark has not passed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clickpipe.columns import Columns, TimeColumn, WindowInfo
from clickpipe.core.held import HeldOperator
from clickpipe.core.kept import Kept
from clickpipe.core.operator import Operator
from clickpipe.core.option import Duration, option
from clickpipe.core.step import MergeStep, Tables
from clickpipe.core.timed import event_time


@dataclass(frozen=True)
class Merge(MergeStep):
    ordered: bool = option("records of all workers in the order of event time", default=False)
    max_drift: Duration | None = option(
        "an input whose watermark is further ahead of the last one's than this waits for it", default=None, example="1m"
    )

    harmless = frozenset({"max_drift"})

    epilog = """\
Examples:
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst --time ts | partition --by user_id --workers 2 |
    filter \\"event = 'purchase'\\" | merge --ordered | limit 3 | sink -\""""

    outcome = "held"

    def unordered(self) -> Merge:
        return replace(self, ordered=False)

    def columns(self, given: Columns) -> Columns:
        if self.ordered:
            _time(given)
        return given

    def needs(self, given: Columns) -> tuple[str, ...]:
        return (_time(given).name,) if self.ordered else ()

    def open(self, given: Columns, saved: Tables) -> Operator:
        return HeldOperator(_time(given), saved) if self.ordered else Operator()

    def describe(self, given: Columns) -> str:
        return "by event time" if self.ordered else "as they come"

    def keeps(self, given: Columns | None, window: WindowInfo | None) -> Kept | None:
        return Kept("the latest records", "let go when the watermark passes them", is_timed=True) if self.ordered else None

    def judges_lateness(self) -> bool:
        return self.ordered

    def memory(self) -> str:
        return "the records that the watermark has not passed" if self.ordered else "one batch"


def _time(given: Columns) -> TimeColumn:
    """Rows of windows come when their window has ended."""
    return event_time(given, "window_end" if given.results_of and "window_end" in given.types else None)
