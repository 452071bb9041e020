"""Different values that are not null, counted exactly. Also written count(DISTINCT x).

Memory: one row per group and value.
"""

from __future__ import annotations

import polars as pl

from clickpipe.core.aggregate import Exprs
from clickpipe.core.values import Values


class CountDistinct(Values):
    sketched = "distinct"

    def result(self) -> str:
        return "int"

    def final(self, piece: Exprs) -> pl.Expr:
        return (piece["n"] > 0).sum().cast(pl.Int64)
