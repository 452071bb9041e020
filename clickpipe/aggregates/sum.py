"""Sum of a numeric column; null when there was no value.

Error: none for integers; for floats one rounding, whatever the order, of zero and magnitudes from 7e-21 to 1e30; others are added
as doubles are (see core/exact.py). Null where a float leaves the doubles.
Raises DataError when a sum of integers leaves 64 bits: sum a float instead, CAST(x AS DOUBLE).
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from clickpipe.core import exact
from clickpipe.core.total import Total


class Sum(Total):
    rolled_up = "sum"

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        total = piece["whole"] if self.kind == "int" else exact.final(piece)
        return pl.when(piece["n"] > 0).then(total)
