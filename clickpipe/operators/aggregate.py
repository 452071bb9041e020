"""Summarise records per window and key.

Shape: window_start and window_end after a window (and whose session, whose records it is), the --by columns, the named
aggregates. Where rows are given more than once: rev, which is higher in each correction; final, false while a window is
open; deleted, for a session that has become part of another.
Order: windows by their end; within one by key. A window's rows appear when the watermark has passed its end; without a window
all rows appear at the end of the input.
With --also: grouping, the columns that a row is by; the others are null. With --overflow other: other, true for the row of
all groups that were too many.
A column of integers that turns out to hold floats is one of floats from there on: 1 and 1.0 are one key and one value, and so
are 0.0 and -0.0.
Memory: one row per open window and key (hopping: per slide and key). Exact distinct counts, quantiles and mode: one row per
value too; approx_distinct: per register met, 4,096 at most; approx_quantile: per bucket met, some hundred; approx_top_k: 1,000.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clickpipe.columns import Columns
from clickpipe.core.calls import parse_call
from clickpipe.core.compiled import AGGREGATES
from clickpipe.core.option import option
from clickpipe.core.summarise import First, Summarise
from clickpipe.errors import PlanError


@dataclass(frozen=True)
class Aggregate(Summarise):
    functions = AGGREGATES

    top: int | None = option("only the first N rows of each window, by --order", default=None, metavar="N", example="10")
    order: str | None = option(
        "what --top orders by; by default the first aggregate, greatest first", default=None, metavar="NAME [ASC|DESC]"
    )
    keep_pieces: bool = option(
        "beside each avg what it is made of, so that rollup can merge it: NAME_n and NAME_sum", default=False
    )
    bounds: bool = option("with each estimate its bounds at 95 %: NAME_lo and NAME_hi", default=False)

    epilog = """\
Functions, exact: count(*) count(x) count(DISTINCT x) sum avg min max median quantile(x, q) quantile_cont(x, q) mode var var_pop
stddev stddev_pop first last any_value arg_max(x, by) arg_min(x, by) bool_and bool_or list(x, most) string_agg(x, between, most)
histogram(x, [bounds]) rate(*) rate(x). Estimates: approx_distinct(x) approx_quantile(x, q) approx_top_k(x, k)
approx_frequency(x, value). Of sketches: merge(s). For q a list gives a list. Each takes expressions, and FILTER (WHERE …).

Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst |
    clickpipe aggregate --by event n='count(*)' ms='avg(latency_ms)' | clickpipe sink -
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts | clickpipe window tumble 1d |
    clickpipe aggregate users='count(DISTINCT user_id)' paid="count(*) FILTER (WHERE event = 'purchase')" |
    clickpipe sink -
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts | clickpipe window tumble 1d |
    clickpipe aggregate --by page --also total --top 3 --bounds users='approx_distinct(user_id)' |
    clickpipe sink -
  printf '{"page":"/a","n":1,"rev":0}\\n{"page":"/a","n":2,"rev":1}\\n' |
    clickpipe aggregate --by page n='arg_max(n, rev)' | clickpipe sink -

The last example takes, of rows that came again when they changed and were kept in a file, the newest."""

    def first(self) -> First | None:
        return None if self.top is None else First(self.top, *self._ordered_by())

    def has_bounds(self) -> bool:
        return self.bounds

    def keeps_pieces(self) -> bool:
        return self.keep_pieces

    def check(self, types: Mapping[str, str]) -> None:
        if self.top is not None and self.top < 1:
            raise PlanError("--top must be at least 1", word="--top")
        if self.order is not None and self.top is None:
            raise PlanError("--order says what --top counts by: give --top N too", word="--order")
        if self.order is not None and self._ordered_by()[0] not in types:
            raise Columns(types).unknown(self._ordered_by()[0], " to order by")

    def _ordered_by(self) -> tuple[str, bool]:
        """The column of --order, and whether its greatest values come first."""
        name, _, way = (self.order or parse_call(self.calls[0]).name).strip().partition(" ")
        way = way.strip().lower()
        if way not in ("", "asc", "desc"):
            raise PlanError(
                f"--order: {way!r} is neither ASC nor DESC", hint=f'as in: --order "{name} DESC"', word=self.order or ""
            )
        return name, way != "asc"
