"""The most frequent value; of equally frequent ones the least.

Nulls are skipped; null when there was no value. Memory: one row per group and different value.
"""

from __future__ import annotations

import polars as pl

from clickpipe.core.aggregate import SUB_KEY, Exprs
from clickpipe.core.values import Values


class Mode(Values):
    def final(self, piece: Exprs) -> pl.Expr:
        return pl.col(SUB_KEY).filter(piece["n"] == piece["n"].max()).min()
