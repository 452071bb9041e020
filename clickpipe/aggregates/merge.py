"""Sketches merged: merge(users), of a column that `sketch` made, or of text that holds such sketches.

Gives a sketch of all that the merged ones have seen. Sketches of two kinds or parameters in one group end the run, and a damaged
one makes its record a dead letter. Nulls are skipped; null when there was nothing else.
Memory: one sketch per group, and those that have come since the last merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import polars as pl

from clickpipe.core.aggregate import VALUE, Aggregate, Exprs
from clickpipe.core.asked import checked, united
from clickpipe.core.flat import GROUP, numbered
from clickpipe.lazy import numpy_for_polars


class Merge(Aggregate):
    takes: ClassVar[tuple[str, ...]] = ("sketch", "str")
    rolled_up: ClassVar[str] = "merge"
    has_pieces: ClassVar[bool] = True
    width = 1_000

    def result(self) -> str:
        return "sketch"

    def prepared(self, value: pl.Expr) -> pl.Expr:
        numpy_for_polars()
        return value.map_batches(checked, return_dtype=pl.String, is_elementwise=True)

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        return {"sketch": value}

    def merge(self, piece: Exprs) -> Exprs:
        return piece

    def final(self, piece: Exprs) -> pl.Expr:
        return piece["sketch"]

    def combined(self, rows: pl.DataFrame, keys: Sequence[str], column: str) -> pl.DataFrame:
        groups, rows = numbered(rows, keys)
        found = united(rows[column], rows[GROUP]).rename({VALUE: column})
        return groups.join(found, on=GROUP, how="left", maintain_order="left").select(*keys, column)
