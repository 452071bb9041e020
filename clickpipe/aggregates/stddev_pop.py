"""Population standard deviation of a numeric column (n); null when there was no value.

Error: a rounding of the result; the order of the records does not matter (see core/variance.py).
"""

from __future__ import annotations

import math

from clickpipe.core.variance import Moments


class StddevPop(Moments):
    less = 0

    def of(self, variance: float) -> float:
        return math.sqrt(variance)
