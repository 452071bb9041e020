"""Results of a stretch of time computed again, in place of those that a pipeline has given.

Guarantee: each sink changes at once, when all has been computed, or not at all. Memory: the rows of the results.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns
from clickpipe.core.meter import Ledger
from clickpipe.core.operator import Writer
from clickpipe.engine.local import Outcome, run
from clickpipe.engine.recompute import Span, again, results_of
from clickpipe.errors import PlanError
from clickpipe.operators.sink import Sink
from clickpipe.plan.plan import Plan


def backfill(plan: Plan, inputs: tuple[str, ...], span: Span | None, say: Callable[[str], None]) -> tuple[Outcome, int]:
    """Run it, and how many rows of results there are now. Raises PlanError where there is nothing to replace."""
    if not results_of(plan):
        raise PlanError("backfill replaces results, and the pipeline has no sink")
    written: list[InSpan] = []

    def opened(sink: Sink, given: Columns) -> Writer:
        if span is not None and given.types.get("window_start") != "time":
            raise PlanError("--from and --to choose windows, and these rows have none", hint="without them all rows are replaced")
        written.append(InSpan(sink.open_replacing(given, span), span))
        return written[-1]

    outcome = run(again(plan, "backfill", inputs, opened, span), say)
    return outcome, sum(one.rows for one in written)


class InSpan(Writer):
    """Hands on those rows whose window began in a span. `rows`: how many."""

    def __init__(self, writer: Writer, span: Span | None) -> None:
        self._writer, self._span = writer, span
        self.rows = 0

    def accept(self, batch: Batch) -> tuple[Batch, list[Dead]]:
        return self._writer.accept(batch)

    def write(self, batch: Batch) -> None:
        if self._span is not None:
            batch, _ = batch.need(["window_start"], set())
            first, end = self._span
            batch = batch.keep(batch.frame.select((pl.col("window_start") >= first) & (pl.col("window_start") < end)).to_series())
        self.rows += batch.height
        if batch.height:
            self._writer.write(batch)

    def close(self, accounts: list[Ledger]) -> None:
        self._writer.close(accounts)

    def abandon(self) -> None:
        self._writer.abandon()
