"""Sum of a numeric column; null when there was no value.

Error: none for integers; for floats one rounding, whatever the order, of zero and magnitudes from 7e-21 to 1e30; others are added
as doubles are (see core/exact.py). Null where a float leaves the doubles.
Raises DataError when a sum of integers leaves 64 bits: sum a float instead, CAST(x AS DOUBLE).
"""

from __future__ import annotations

from clickpipe.core.total import Total


class Sum(Total):
    rolled_up = "sum"
