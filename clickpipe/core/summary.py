"""Aggregation state: tables of pieces that grow by appending and are merged now and then.

    batch --partial--> rows -> appended ... appended --merge--> one row per group --final--> result

Each batch is reduced to its partial rows; merging waits until the appended rows outnumber the
merged ones, so a record's cost does not depend on the number of groups. One table holds the pieces
that are kept per group, and each aggregate with a sub-key has one of its own.

Memory: one row per open group (and sub-key), twice that before a merge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

import polars as pl

from clickpipe.columns import HIDDEN
from clickpipe.core.aggregate import SUB_KEY, Aggregate

_WORTH_MERGING = 50_000  # rows


@dataclass(frozen=True)
class Call:
    """A named aggregate over an argument. `mask`: where the FILTER clause holds."""

    name: str
    aggregate: Aggregate
    value: pl.Expr
    mask: pl.Expr | None = None

    def masked(self) -> pl.Expr:
        """The argument, null where the FILTER clause does not hold."""
        return self.value if self.mask is None else pl.when(self.mask).then(self.value)

    def wide(self) -> Call:
        """The same call over floats."""
        return replace(self, aggregate=type(self.aggregate)("float"))

    def input(self) -> pl.Expr:
        """Where the frames that are added hold the masked argument."""
        return pl.lit(True) if self.aggregate.kind == "*" else pl.col(f"\0{self.name}")


class Pieces:
    """The pieces of some aggregates, as expressions."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = list(calls)

    def sub_key(self) -> pl.Expr | None:
        return self._calls[0].aggregate.sub_key(self._calls[0].input()) if self._calls else None

    def partials(self, time: pl.Expr) -> list[pl.Expr]:
        """Records of a group -> pieces."""
        exprs = ((call, call.aggregate.partial(call.input(), time)) for call in self._calls)
        return [expr.alias(column_of(call.name, name)) for call, pieces in exprs for name, expr in pieces.items()]

    def merges(self) -> list[pl.Expr]:
        """Pieces of a group -> pieces."""
        exprs = ((call, call.aggregate.merge(_pieces(call))) for call in self._calls)
        return [expr.alias(column_of(call.name, name)) for call, pieces in exprs for name, expr in pieces.items()]

    def finals(self) -> list[pl.Expr]:
        """Pieces -> values."""
        return [call.aggregate.final(_pieces(call)).alias(call.name) for call in self._calls]

    def widen(self, name: str) -> list[pl.Expr]:
        """The argument of this call has turned out to hold floats: what makes its pieces those of floats."""
        for at, call in enumerate(self._calls):
            if call.name == name:
                self._calls[at] = call.wide()
                return [piece.alias(column_of(call.name, key)) for key, piece in call.aggregate.widened(_pieces(call)).items()]
        return []


class Table:
    """Pieces of some aggregates by the same key."""

    def __init__(self, keys: Sequence[str], calls: Sequence[Call], saved: pl.DataFrame | None = None) -> None:
        self._keys, self._pieces = list(keys), Pieces(calls)
        self._subs = [] if self._pieces.sub_key() is None else [SUB_KEY]
        self._parts: list[pl.DataFrame] = [] if saved is None else [saved]
        self._merged_rows = 0  # rows of the first part, one per key; 0 if it may hold several
        self._new_rows = 0 if saved is None else saved.height

    def add(self, frame: pl.DataFrame, time: pl.Expr) -> None:
        sub = self._pieces.sub_key()
        part = grouped(frame, [*self._keys, *([] if sub is None else [sub.alias(SUB_KEY)])], self._pieces.partials(time))
        self._parts.append(part)
        self._new_rows += part.height
        if self._new_rows > max(_WORTH_MERGING, 2 * self._merged_rows):
            self.merged()

    def widen(self, name: str) -> None:
        """The argument of this call has turned out to hold floats."""
        if wide := self._pieces.widen(name):
            self._parts = [part.with_columns(*wide) for part in self._parts]

    def merged(self) -> pl.DataFrame:
        """All pieces, one row per key."""
        if self._new_rows:
            self._parts = [grouped(self.rows(), [*self._keys, *self._subs], self._pieces.merges())]
            self._merged_rows, self._new_rows = self._parts[0].height, 0
        return self._parts[0] if self._parts else pl.DataFrame()

    def rows(self) -> pl.DataFrame:
        """All pieces as they are, several rows per key: free to take."""
        if len(self._parts) < 2:
            return self._parts[0] if self._parts else pl.DataFrame()
        names = self._parts[-1].columns
        return pl.concat([part.select(names) for part in self._parts], how="vertical_relaxed", rechunk=False)

    def take(self) -> pl.DataFrame:
        """All pieces, one row per key; they are gone then."""
        rows, self._parts, self._merged_rows = self.merged(), [], 0
        return rows

    def replace(self, rows: pl.DataFrame, *, are_merged: bool) -> None:
        """Other rows in place of all that there are."""
        self._parts = [rows]
        self._merged_rows, self._new_rows = (rows.height, 0) if are_merged else (0, rows.height)

    def values(self, rows: pl.DataFrame, keys: Sequence[str], *, are_merged: bool) -> pl.DataFrame:
        """Pieces -> values, one row per group. `are_merged`: there is one row per group (and sub-key)."""
        if not are_merged:
            rows = grouped(rows, [*keys, *self._subs], self._pieces.merges())
        if not self._subs:
            return rows.select(*keys, *self._pieces.finals())
        return grouped(rows, keys, self._pieces.finals())


Select = Callable[["pl.DataFrame"], "pl.DataFrame"]


class Summary:
    """All tables of one aggregate step. `keys`: the grouping columns, window included."""

    def __init__(self, keys: Sequence[str], calls: Sequence[Call], saved: Mapping[str, pl.DataFrame]) -> None:
        self._keys = list(keys)
        self._order = [call.name for call in calls]
        plain, fine = apart(calls)
        groups = ({"groups": plain} if plain or not fine else {}) | {f"sub-{call.name}": [call] for call in fine}
        self._tables = {name: Table(self._keys, some, saved.get(name)) for name, some in groups.items()}

    def add(self, frame: pl.DataFrame, time: pl.Expr) -> None:
        for table in self._tables.values():
            table.add(frame, time)

    def widen(self, name: str) -> None:
        """The argument of this call has turned out to hold floats: from here on it is one of floats."""
        for table in self._tables.values():
            table.widen(name)

    def values(self, select: Select, keys: Sequence[str] | None = None) -> pl.DataFrame:
        """The results of the groups that `select` makes of the rows.

        `keys`: by which they are to be merged again, where `select` gives the rows other keys.
        """
        by = self._keys if keys is None else list(keys)
        found = [(table, select(table.merged())) for table in self._tables.values() if table.merged().width]
        first, *others = [table.values(rows, by, are_merged=keys is None) for table, rows in found] or [pl.DataFrame()]
        for other in others:
            first = _beside(first, other, by)
        return first.select(*by, *self._order) if first.width else first

    def keep(self, kept: Select) -> None:
        """Let go of all other rows."""
        for table in self._tables.values():
            if table.merged().width:
                table.replace(kept(table.merged()), are_merged=True)

    def rename(self, renamed: Select) -> None:
        """Rows under other keys."""
        for table in self._tables.values():
            if table.merged().width:
                table.replace(renamed(table.merged()), are_merged=False)

    def groups(self) -> pl.DataFrame:
        """The rows of one table; each group has some."""
        return next(iter(self._tables.values())).merged()

    def snapshot(self) -> Mapping[str, pl.DataFrame]:
        """Not merged first: that could take longer than a checkpoint may hold up the stream."""
        return {name: rows for name, table in self._tables.items() if (rows := table.rows()).width}


def apart(calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
    """Those whose pieces are kept per group, and those that need a finer key."""
    is_fine = [call.aggregate.sub_key(call.value) is not None for call in calls]
    return [call for call, fine in zip(calls, is_fine, strict=True) if not fine], list(compress(calls, is_fine))


def _beside(left: pl.DataFrame, right: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    if not keys:
        return left.hstack(right)
    return left.join(right, on=keys, how="left", nulls_equal=True, maintain_order="left")


def grouped(frame: pl.DataFrame, by: Sequence[str | pl.Expr], exprs: Iterable[pl.Expr]) -> pl.DataFrame:
    return frame.group_by(*by).agg(*exprs) if by else frame.select(*exprs)


def column_of(call: str, piece: str) -> str:
    """Where a piece of a call is kept."""
    return f"{HIDDEN}{call}.{piece}"


def _pieces(call: Call) -> Mapping[str, pl.Expr]:
    names = call.aggregate.partial(pl.lit(0), pl.lit(0))
    return {name: pl.col(column_of(call.name, name)) for name in names}
