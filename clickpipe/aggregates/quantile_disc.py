"""Exact quantile, a value that occurred: quantile(x, 0.99); the least that is not below that share of all values.

With a list, as in quantile(x, [0.5, 0.99]), a list. Nulls are skipped; null when there was no value.
Memory: one row per group and different value.
Source: SQL:2003, PERCENTILE_DISC.
"""

from __future__ import annotations

from clickpipe.core.quantile import Quantile


class QuantileDisc(Quantile):
    takes = ("int", "float", "str", "time", "bool")

    def value_kind(self) -> str:
        return self.kind
