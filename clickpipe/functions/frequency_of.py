"""How often a value came: frequency_of(s, '/home'), of frequency. Never too few; see there for how many too many."""

from __future__ import annotations

from typing import Any

import polars as pl

from clickpipe.core.asked import answered
from clickpipe.core.functions import Function
from clickpipe.errors import PlanError


class FrequencyOf(Function):
    takes = ("s", "value")
    gives = "int"

    def __init__(self, value: Any) -> None:
        if isinstance(value, list):
            raise PlanError("one value is asked for, and not a list")
        self.value = value

    def values(self, *columns: pl.Series) -> pl.Series:
        return answered(columns[0], "frequencies", pl.Int64(), self.value, nothing=0)
