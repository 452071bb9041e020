"""Distinct values, approximately: approx_distinct(user_id). Nulls are not counted.

approx_distinct(x, 14) takes 2**14 registers instead of 2**12: twice as exact, four times the memory.
Error: 1.04 / sqrt(2**precision), one standard deviation: 1.6 %. Memory: one row per register met, 2**precision at most.
Source: HyperLogLog++, see core/registers.py.
"""

from __future__ import annotations

from clickpipe.core.registers import Registers


class ApproxDistinct(Registers):
    sketched = "distinct"
