"""Sum of a numeric column, a float where one of integers leaves 64 bits: what --keep-pieces keeps of avg.

Null when there was no value. Error: as of sum; one rounding where it became a float.
"""

from __future__ import annotations

from clickpipe.core.total import Total


class SumWide(Total):
    rolled_up = "sum_wide"
    widens = True
