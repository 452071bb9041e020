"""The most frequent values that a sketch has seen: top_of(s), or top_of(s, 3), of top_k.

A list of {"value", "count", "error"}, the most frequent first: a value came from count to count + error times.
Where none stands out: one without a value, since none came more than `error` times.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from clickpipe.core.asked import answered
from clickpipe.core.calls import is_whole
from clickpipe.core.functions import Function
from clickpipe.errors import PlanError


class TopOf(Function):
    takes = ("s", "[k]")
    gives = "json"

    def __init__(self, k: Any = None) -> None:
        if k is not None and not is_whole(k, 1):
            raise PlanError(f"the number of values is at least 1, and not {k}")
        self.k = k

    def values(self, *columns: pl.Series) -> pl.Series:
        return answered(columns[0], "tops", pl.String(), self.k, nothing="[]")
