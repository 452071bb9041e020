"""What merges: partial, merge, final.

One code path combines batches, workers, panes and corrections. An aggregate's pieces are named
columns; merging takes pieces and gives pieces, in any order and grouping. An aggregate whose
pieces need a finer key than the group (the values of an exact distinct count) names it as its
sub-key: its pieces are then rows of their own.

Every aggregate skips nulls, so `FILTER (WHERE p)` is: null where p is not true.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import polars as pl

from clickpipe.errors import Unsupported

Exprs = Mapping[str, "pl.Expr"]
SUB_KEY = "\0sub"


class Aggregate:
    """One call of an aggregate function.

    `value` is its argument, `time` the record's event time (a constant where there is none). `kind` is
    the argument's type. Pieces go by the names that `partial` gives them.
    """

    takes_star: ClassVar[bool] = False
    takes_numbers_only: ClassVar[bool] = False

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def result(self) -> str:
        """The type of the value."""
        return self.kind

    def sub_key(self, value: pl.Expr) -> pl.Expr | None:
        """A finer key that the pieces are kept by."""
        return None

    def partial(self, value: pl.Expr, time: pl.Expr) -> Exprs:
        """Records of a group -> pieces."""
        raise NotImplementedError

    def merge(self, piece: Mapping[str, pl.Expr]) -> Exprs:
        """Pieces -> pieces."""
        raise NotImplementedError

    def widened(self, piece: Mapping[str, pl.Expr]) -> Exprs:
        """Pieces of integers -> pieces of floats: the argument has turned out to be one."""
        return piece

    def final(self, piece: Mapping[str, pl.Expr]) -> pl.Expr:
        """Pieces -> the value. With a sub-key: the pieces of all its values -> the value."""
        raise NotImplementedError

    def flink(self) -> Any:
        raise Unsupported("notimpl", "Flink SQL", "this version runs plans on one machine only")
