"""What merges: partial, merge, final.

One code path combines batches, workers, panes and corrections. An aggregate's pieces are named
columns; merging takes pieces and gives pieces, in any order and grouping. An aggregate whose
pieces need a finer key than the group (the values of an exact distinct count, the registers of a
sketch) names it as its sub-key: its pieces are then rows of their own.

Every aggregate skips nulls, so `FILTER (WHERE p)` is: null where p is not true.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Self

import polars as pl

from clickpipe.errors import Unsupported

Exprs = Mapping[str, "pl.Expr"]
SUB_KEY = "\0sub"
VALUE = "\0value"
ORDER, WEIGHT = "order", "weight"
Z95 = 1.96  # so many standard deviations off to both sides: 95 %


class Aggregate:
    """One call of an aggregate function.

    `value` is its argument, `order` what its records are ordered by: the second argument, or the event time (a constant
    where there is none); of those that are weighed a struct of ORDER and WEIGHT. `kind` is the argument's type. Pieces go by
    the names that `partial` gives them. What else a function takes are constants, which stand behind `kind` in its
    constructor; it raises PlanError for what cannot be.
    """

    takes_star: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ()  # the types of argument it is for; none: all
    ordered_by: ClassVar[str] = ""  # "time", or "argument": its second one
    is_weighed: ClassVar[bool] = False  # its last argument may be a weight
    per_second: ClassVar[bool] = False  # its value is divided by the length of the window
    has_pieces: ClassVar[bool] = False  # its argument is pieces already, which `combined` merges, and no expression
    explodes: ClassVar[bool] = False  # `prepared` gives a list: each value of it has a sub-key
    widens: ClassVar[bool] = False  # an integer that leaves 64 bits becomes a float, and is no error
    width: int = 1  # how many numbers a row of its pieces may hold, about
    rolled_up: ClassVar[str] = ""  # the function that makes one of the values of several; none: they cannot be merged
    kept: ClassVar[Mapping[str, str]] = {}  # functions of the same argument whose values, merged, make this one's: `again`
    keeps: ClassVar[str] = ""  # what a group has beside its row, in words: {x} is the argument
    grows: ClassVar[bool] = False  # and it is more for each different value, without bound
    sketched: ClassVar[str] = ""  # a sketch that says the same and can be merged
    by_value = False  # of records that are equal in their order the value decides, and not which came first

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def result(self) -> str:
        """The type of the value. A list or struct is of type json."""
        return self.kind

    def prepared(self, value: pl.Expr) -> pl.Expr:
        """What is computed of its argument, record by record, before anything else: `value` is this from there on."""
        return value

    def settled(self) -> Self:
        """The same where nobody knows which of two records came first."""
        other = copy(self)
        other.by_value = True
        return other

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        """Records of a group -> pieces."""
        raise NotImplementedError

    def merge(self, piece: Exprs) -> Exprs:
        """Pieces -> pieces."""
        raise NotImplementedError

    def widened(self, piece: Exprs) -> Exprs:
        """Pieces of integers -> pieces of floats: the argument has turned out to be one."""
        return piece

    def final(self, piece: Exprs) -> pl.Expr:
        """Pieces -> the value. With a sub-key: the pieces of all its values -> the value."""
        raise NotImplementedError

    def bounds(self, estimate: pl.Expr) -> tuple[pl.Expr, pl.Expr] | None:
        """Between which two the true value lies, at 95 %; None: it is no estimate."""
        return None

    def again(self, kept: Exprs) -> pl.Expr:
        """The merged values of what is `kept`, by its names there -> the value."""
        raise NotImplementedError

    # Of those with a sub-key.

    def sub_key(self, value: pl.Expr, order: pl.Expr) -> pl.Expr | None:
        """A finer key that the pieces are kept by."""
        return None

    def combined(self, rows: pl.DataFrame, keys: Sequence[str], column: str) -> pl.DataFrame:
        """Of those that have pieces: several rows of a group -> one, of `keys` and the column. A group may have nulls only."""
        raise NotImplementedError

    def shares(self) -> Hashable:
        """Calls over the same argument that are equal in this keep the same pieces; None: it has its own."""
        return None

    def alone(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        """One record -> its pieces, for those that a partial seldom makes fewer; nothing: of a partial always."""
        return {}

    def trimmed(self, rows: pl.DataFrame, keys: Sequence[str], piece: Mapping[str, str]) -> pl.DataFrame:
        """Merged pieces -> as many of them as are kept. `piece`: the columns they stand in, beside SUB_KEY."""
        return rows

    def values(self, rows: pl.DataFrame, keys: Sequence[str], piece: Mapping[str, str]) -> pl.DataFrame:
        """Merged pieces of groups -> `keys` and VALUE, a row per group."""
        final = self.final({name: pl.col(column) for name, column in piece.items()}).alias(VALUE)
        return rows.group_by(keys).agg(final) if keys else rows.select(final)

    def flink(self) -> Any:
        raise Unsupported("notimpl", "Flink SQL", "this version runs plans on one machine only")
