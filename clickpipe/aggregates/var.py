"""Sample variance of a numeric column (n - 1); null for fewer than two values.

Null also where a value is 1e24 or more.
Error: a rounding of the result, whatever the order of the records, where the deviation is 1e-18 or more (see core/variance.py).
"""

from __future__ import annotations

import polars as pl

from clickpipe.core.variance import Moments


class Var(Moments):
    def of(self, variance: pl.Expr) -> pl.Expr:
        return variance
