"""A sketch of the bytes of another library, in base64: sketch_from(text, 'apache'), 'datasketch' or 'ddsketch'.

What export gives is read back; and what those libraries wrote, if they were given values as text and hashed them as here (see
clickpipe-sketch.5). A theta sketch does not say how many hashes it keeps: sketch_from(text, 'apache', 4096) does, and drops
those that are more; without a number it is 4,096, or the next power of 2 if there are more.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from clickpipe.core.exchange import check_form, check_parameter, imported
from clickpipe.core.functions import Function


class SketchFrom(Function):
    takes = ("text", "form", "[k]")
    column_types, column_word = ("str",), "text"
    gives = "sketch"

    def __init__(self, form: Any, k: Any = None) -> None:
        self._form = check_form(form)
        self._k = check_parameter(self._form, k)

    def values(self, *columns: pl.Series) -> pl.Series:
        return imported(columns[0], self._form, self._k)
