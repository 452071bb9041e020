"""Arithmetic mean of a numeric column; nulls are not counted; null when there was no value.

Error: that of the sum (see sum), and one rounding of the division.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import polars as pl

from clickpipe.core.total import Total


class Avg(Total):
    kept: ClassVar[Mapping[str, str]] = {"n": "count", "sum": "sum_wide"}

    def result(self) -> str:
        return "float"

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        return super().final(piece).cast(pl.Float64) / piece["n"]

    def again(self, kept: Mapping[str, pl.Expr]) -> pl.Expr:
        return pl.when(kept["n"] > 0).then(kept["sum"].cast(pl.Float64) / kept["n"])
