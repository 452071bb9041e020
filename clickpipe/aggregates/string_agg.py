"""The values as one text, by event time: string_agg(page), string_agg(page, ' > ', 20); a comma and the first 1,000 else.

Nulls are left out; null when there was no value. Memory: as many values per group.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from clickpipe.core import hashing
from clickpipe.core.firsts import Firsts
from clickpipe.errors import PlanError


class StringAgg(Firsts):
    def __init__(self, kind: str, separator: Any = ",", most: Any = 1_000) -> None:
        super().__init__(kind, most)
        if not isinstance(separator, str):
            raise PlanError(f"{separator} is no text to stand between values", hint="as in string_agg(page, ' > ')")
        self._separator = separator

    def result(self) -> str:
        return "str"

    def prepared(self, value: pl.Expr) -> pl.Expr:
        return hashing.text_of(value)

    def told(self, values: pl.Expr) -> pl.Expr:
        return pl.when(values.list.len() > 0).then(values.list.join(self._separator))
