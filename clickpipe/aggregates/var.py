"""Sample variance of a numeric column (n - 1); null for fewer than two values.

Error: a rounding of the result; the order of the records does not matter (see core/variance.py).
"""

from __future__ import annotations

from clickpipe.core.variance import Moments


class Var(Moments):
    def of(self, variance: float) -> float:
        return variance
