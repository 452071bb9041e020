"""Population variance of a numeric column (n); null when there was no value.

Null also where a value is 1e24 or more.
Error: a rounding of the result, whatever the order of the records, where the deviation is 1e-18 or more (see core/variance.py).
"""

from __future__ import annotations

import polars as pl

from clickpipe.core.variance import Moments


class VarPop(Moments):
    less = 0

    def of(self, variance: pl.Expr) -> pl.Expr:
        return variance
