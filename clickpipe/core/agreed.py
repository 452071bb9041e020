"""Keys of one type. A column of integers may become one of floats in any batch, and what is kept by it must then follow.

    kept by 1, 2      comes 0.5       from here on kept by 1.0, 2.0, and all that comes is a float

So 1 and 1.0 are one key however the records were batched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl


class Agreed:
    def __init__(self, keys: Iterable[str], saved: Mapping[str, pl.DataFrame]) -> None:
        self._keys, self._floats = set(keys), set[str]()
        for table in saved.values():
            self.learns(table)

    def learns(self, frame: pl.DataFrame) -> bool:
        """Whether a key is one of floats that was none before."""
        new = {name for name in self._keys & set(frame.columns) if frame.schema[name].is_float()} - self._floats
        self._floats |= new
        return bool(new)

    def tables(self, saved: Mapping[str, pl.DataFrame]) -> Mapping[str, pl.DataFrame]:
        """What was saved, to go on from it with the keys as they are by now."""
        return {name: self.wide(table) for name, table in saved.items()}

    def wide(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame with its keys as they are by now."""
        floats = sorted(self._floats & set(frame.columns))
        return frame.with_columns(pl.col(name).cast(pl.Float64) for name in floats) if floats else frame


def with_one_zero(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with 0.0 for -0.0. (Adding 0.0 does nothing in Polars 2.1.)"""
    floats = [name for name, type_ in frame.schema.items() if type_.is_float()]
    zeros = (pl.when(pl.col(name) == 0).then(0.0).otherwise(pl.col(name)).alias(name) for name in floats)
    return frame.with_columns(zeros) if floats else frame
