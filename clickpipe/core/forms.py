"""Sketches in the bytes of other libraries: what a form of a kind can do. Each form has a file: core/apache_hll.py and others.

Values are written and read one by one: this is for values that leave or come, not for merging.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import polars as pl

if TYPE_CHECKING:
    from clickpipe.core.sketch import Sketch


class Form(ABC):
    """Rows are a sketch's, of one value: SUB_KEY and the pieces by their names."""

    says_parameter: ClassVar[bool] = True  # so that it need not be given

    @abstractmethod
    def is_one(self, data: bytes) -> bool:
        """Whether the bytes seem to be of this form and kind: several kinds may have a form of one name."""

    @abstractmethod
    def written(self, sketch: Sketch, rows: pl.DataFrame) -> bytes:
        """Raises DataError for what the other library cannot hold."""

    @abstractmethod
    def read(self, data: bytes) -> tuple[float | None, pl.DataFrame]:
        """The sketch's parameter, if the bytes say it, and its rows. Raises DataError."""
