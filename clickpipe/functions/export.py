"""A sketch in the bytes of another library, as text in base64: export(s, 'apache'), 'datasketch' or 'ddsketch'.

apache: of Apache DataSketches; a set as a compact theta sketch, distinct as HLL_8. datasketch: distinct as the
HyperLogLogPlusPlus, similarity as the LeanMinHash of that Python library. ddsketch: quantiles as the
protocol buffer of that one.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from clickpipe.core.exchange import check_form, exported
from clickpipe.core.functions import Function


class Export(Function):
    takes = ("s", "form")
    gives = "str"
    most_rows = 128  # of up to 350 KB each, made of a register

    def __init__(self, form: Any) -> None:
        self._form = check_form(form)

    def values(self, *columns: pl.Series) -> pl.Series:
        return exported(columns[0], self._form)
