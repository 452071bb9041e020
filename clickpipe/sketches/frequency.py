"""How often any value came: frequency(page). For frequency_of, union and merge. No value is kept: it must be asked for.

    4 rows of 2,048 cells; a value adds to one cell of each row; it came as often as the least of its four says, or less

frequency(x, 16384) has 16,384 cells a row: an eighth of the error.
Payload: cells that are not 0, in order: number (u32), row by row, and count (i64).
Error: never too few; too many by no more than e / 2,048 of all that was counted, 0.13 %, with a probability of 98 %.
Memory: four rows per different value, 8,192 at most.
Source: Cormode, Muthukrishnan 2005, "An improved data stream summary: the count-min sketch"; two hashes for four as in
Kirsch, Mitzenmacher 2006.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import polars as pl

from clickpipe.core import hashing
from clickpipe.core.aggregate import SUB_KEY, VALUE
from clickpipe.core.calls import is_whole
from clickpipe.core.counts import Counts
from clickpipe.core.flat import GROUP
from clickpipe.core.values import Values
from clickpipe.errors import PlanError

WIDTH, FEWEST, MOST, DEPTH = 2_048, 16, 1 << 20, 4


class Frequency(Counts, Values):
    keeps = "cells of {x}, a fixed number at most"
    grows = False
    number = 5
    number_type = "<u4"
    explodes = True

    def __init__(self, kind: str, width: Any = WIDTH) -> None:
        super().__init__(kind)
        if not is_whole(width, FEWEST, MOST):
            raise PlanError(f"a row has from {FEWEST} to {MOST:,} cells, and not {width}")
        self.width = width

    def parameter(self) -> tuple[str, float]:
        return "width", self.width

    def shares(self) -> Hashable:
        return ("frequency", self.width)

    def prepared(self, value: pl.Expr) -> pl.Expr:
        hash_ = hashing.hashed(hashing.text_of(value))
        first, step = (hashing.lowest(half(hash_), 32) for half in (hashing.low, hashing.high))
        cells = [((first + row * step) % self.width + row * self.width).cast(pl.UInt32) for row in range(DEPTH)]
        return pl.when(value.is_not_null()).then(pl.concat_list(cells))

    def sub_key(self, value: pl.Expr, order: pl.Expr) -> pl.Expr:
        return value

    def numbers(self) -> tuple[int, int]:
        return 0, DEPTH * self.width - 1

    def frequencies(self, rows: pl.DataFrame, value: Any) -> pl.DataFrame:
        """Shape: GROUP and VALUE; none where it is 0."""
        cells = self.prepared(pl.col("v"))
        mine = pl.DataFrame({"v": [value]}).select(cells.alias(SUB_KEY)).explode(SUB_KEY)
        least = pl.when(pl.len() == DEPTH).then(pl.col("n").min()).otherwise(0)
        return rows.join(mine, on=SUB_KEY, how="semi").group_by(GROUP).agg(least.alias(VALUE))
