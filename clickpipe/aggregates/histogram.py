"""How many values fall into each of some ranges: histogram(latency_ms, [10, 100, 1000]).

A list of {"le", "count"}: values up to and including this bound, and above the one before; the last, without a bound, has
those above all. Nulls are not counted.
Memory: a number per group and range that was met.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import polars as pl

from clickpipe.columns import NUMBERS
from clickpipe.core.aggregate import SUB_KEY, VALUE
from clickpipe.core.values import Values
from clickpipe.errors import PlanError

_MOST = 1_000
_LE = "le"


class Histogram(Values):
    keeps = "a number per range of {x}"
    grows = False
    takes = NUMBERS

    def __init__(self, kind: str, bounds: Any) -> None:
        super().__init__(kind)
        is_list = isinstance(bounds, list) and 1 <= len(bounds) <= _MOST
        if not is_list or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in bounds):
            raise PlanError(f"the bounds are a list of 1 to {_MOST:,} numbers", hint="as in histogram(x, [10, 100, 1000])")
        self._bounds = [float(one) for one in bounds]
        if self._bounds != sorted(set(self._bounds)):
            raise PlanError("the bounds must rise")

    def result(self) -> str:
        return "json"

    def shares(self) -> Hashable:
        return ("histogram", *self._bounds)

    def sub_key(self, value: pl.Expr, order: pl.Expr) -> pl.Expr:
        place = pl.lit(pl.Series(self._bounds)).search_sorted(value.cast(pl.Float64), side="left")
        return pl.when(value.is_not_null()).then(place).cast(pl.Int32)

    def values(self, rows: pl.DataFrame, keys: Sequence[str], piece: Mapping[str, str]) -> pl.DataFrame:
        n = pl.col(piece["n"])
        in_range = [n.filter(pl.col(SUB_KEY) == place).sum() for place in range(len(self._bounds) + 1)]
        counts = [one.alias(str(place)) for place, one in enumerate(in_range)]
        found = rows.group_by(keys).agg(counts) if keys else rows.select(counts)
        ends = [*self._bounds, None]
        ranges = [
            pl.struct(pl.lit(end, pl.Float64).alias(_LE), pl.col(str(place)).alias("count")) for place, end in enumerate(ends)
        ]
        return found.select(*keys, pl.concat_list(ranges).alias(VALUE))
