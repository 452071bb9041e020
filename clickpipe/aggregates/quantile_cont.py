"""Exact quantile, between two values if it must be: quantile_cont(x, 0.99).

With a list, as in quantile_cont(x, [0.5, 0.99]), a list. Nulls are skipped; null when there was no value.
Memory: one row per group and different value.
"""

from __future__ import annotations

from clickpipe.core.quantile import Between


class QuantileCont(Between):
    pass
