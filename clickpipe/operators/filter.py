"""Keep the records for which an SQL expression is true.

Shape: as given. A null is not true. Memory: one batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns
from clickpipe.core.compute import compute
from clickpipe.core.functions import predicate
from clickpipe.core.operator import Operator
from clickpipe.core.option import argument
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.errors import Unsupported
from clickpipe.sql import Expression


@dataclass(frozen=True)
class Filter(OperatorStep):
    expr: str = argument("an SQL expression", metavar="EXPR", example="status >= 500 AND country = 'DE'")

    chooses = True

    epilog = """\
Examples:
  printf '{"a":1}\\n{"a":2}\\n' | clickpipe filter 'a = 1'
  clickpipe ingest sample_data/clicks.ndjson.zst | clickpipe filter "event = 'purchase' AND latency_ms > 2000" | clickpipe sink -

Text stands in single quotes: filter "event = 'click'"."""

    def columns(self, given: Columns) -> Columns:
        reads = predicate(self.expr, given).reads
        if given.is_revised and not set(reads) <= set(given.key):
            reason = "rows that come again when they change would be kept as they were before"
            hint = f"filter by {', '.join(given.key)} only, or when the results are read"
            raise Unsupported("notimpl", "filter", reason, hint=hint)
        return given

    def needs(self, given: Columns) -> tuple[str, ...]:
        return predicate(self.expr, given).reads

    def open(self, given: Columns, saved: Tables) -> Operator:
        return FilterOperator(predicate(self.expr, given))

    def describe(self, given: Columns) -> str:
        return f"keep where {self.expr}"


class FilterOperator(Operator):
    def __init__(self, predicate: Expression) -> None:
        self._expr = predicate.expr.alias("keep")
        self.most_rows = predicate.most_rows

    def on_batch(self, batch: Batch) -> Iterable[Batch | Dead]:
        batch, verdict, dead = compute(batch, [self._expr])
        if dead:
            yield dead
        yield batch.keep(verdict["keep"].fill_null(False))
