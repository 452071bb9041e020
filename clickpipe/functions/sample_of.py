"""The values of a sample: sample_of(s), of sample. A list, in no order that means anything."""

from __future__ import annotations

import polars as pl

from clickpipe.core.asked import answered
from clickpipe.core.functions import Function


class SampleOf(Function):
    takes = ("s",)
    gives = "json"

    def values(self, *columns: pl.Series) -> pl.Series:
        return answered(columns[0], "samples", pl.String(), nothing="[]")
