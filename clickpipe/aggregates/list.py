"""The values as a list, by event time: list(page), list(page, 20); the first 1,000 without a number.

Nulls are left out; null when there was no value. Memory: as many values per group.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from clickpipe.core.firsts import Firsts


class List(Firsts):
    def __init__(self, kind: str, most: Any = 1_000) -> None:
        super().__init__(kind, most)

    def result(self) -> str:
        return "json"

    def told(self, values: pl.Expr) -> pl.Expr:
        return pl.when(values.list.len() > 0).then(values)
