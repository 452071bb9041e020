"""How often a value came: approx_frequency(page, '/p/1').

Since the value is known beforehand it is counted: exactly, one number per group. To ask for values afterwards, keep a
sketch: sketch f='frequency(page)'.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from clickpipe.core.aggregate import Exprs
from clickpipe.core.tally import Tally
from clickpipe.errors import PlanError

_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,), "time": (int,)}


class ApproxFrequency(Tally):
    sketched = "frequency"
    rolled_up = "sum"
    takes = tuple(_TYPES)

    def __init__(self, kind: str, value: Any) -> None:
        super().__init__(kind)
        self._value = value
        fits = isinstance(value, _TYPES.get(kind, ())) and (kind == "bool") == isinstance(value, bool)
        if not fits and kind in _TYPES:
            raise PlanError(f"{value!r} cannot be a value of a column of type {kind}")

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        return {"n": (value == self._value).sum().cast(pl.Int64)}
