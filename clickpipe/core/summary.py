"""Aggregation state: tables of pieces that grow by appending and are merged now and then.

    batch --partial--> rows -> appended ... appended --merge--> one row per group --final--> result

Each batch is reduced to its partial rows; merging waits until the appended rows outnumber the
merged ones, so a record's cost does not depend on the number of groups. One table holds the pieces
that are kept per group; aggregates with a sub-key have others, one for all that keep the same.

Memory: one row per open group (and sub-key), and before a merge twice that or a million rows.
Error: groups by several columns are told apart as surely as core/keys.py says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from clickpipe.columns import HIDDEN
from clickpipe.core.aggregate import SUB_KEY, VALUE, Aggregate
from clickpipe.core.keys import number

Select = Callable[["pl.DataFrame"], "pl.DataFrame"]
_WORTH_MERGING = 1_000_000  # numbers: rows by pieces
_LOOSE = 0.7
_SMALL = 20_000  # rows: parts that have fewer are put together
_NUMBER = HIDDEN + "number"


@dataclass(frozen=True)
class Call:
    """A named aggregate over an argument. `mask`: where the FILTER clause holds; `by`: what else its records are ordered by;
    `more`: its constants; `said`: argument and FILTER clause, as they were typed; `most_rows`: of how many records these are to
    be computed at once."""

    name: str
    aggregate: Aggregate
    value: pl.Expr
    mask: pl.Expr | None = None
    by: pl.Expr | None = None
    more: tuple[Any, ...] = ()
    said: tuple[str, str] = ("", "")
    most_rows: int | None = None

    def inputs(self) -> list[pl.Expr]:
        """What it reads of each record: the argument, null where the FILTER clause does not hold, and what it is ordered by."""
        if self.aggregate.kind == "*":
            return []
        masked = self.value if self.mask is None else pl.when(self.mask).then(self.value)
        return [
            self.aggregate.prepared(masked).alias(self.column),
            *([] if self.by is None else [self.by.alias(self.column + HIDDEN)]),
        ]

    @property
    def column(self) -> str:
        """Where the frames that are added hold the argument."""
        return HIDDEN + self.name

    def wide(self) -> Call:
        """The same call over floats."""
        return self._over("float")

    def narrow(self) -> Call:
        """The same call over integers: what it was before it turned out to be one of floats."""
        return self._over("int")

    def _over(self, kind: str) -> Call:
        aggregate = type(self.aggregate)(kind, *self.more)
        return replace(self, aggregate=aggregate.settled() if self.aggregate.by_value else aggregate)

    def settled(self) -> Call:
        """The same call where nobody knows which of two records came first."""
        return replace(self, aggregate=self.aggregate.settled())

    def partial(self, time: pl.Expr) -> Mapping[str, pl.Expr]:
        """Pieces of a group of the frames that are added."""
        return self.aggregate.partial(*self._read(time))

    def alone(self, time: pl.Expr) -> Mapping[str, pl.Expr]:
        """Pieces of each record of the frames that are added, or nothing."""
        return self.aggregate.alone(*self._read(time))

    def sub_key(self, time: pl.Expr) -> pl.Expr | None:
        """Of the frames that are added."""
        return self.aggregate.sub_key(*self._read(time))

    def _read(self, time: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
        argument = pl.lit(True) if self.aggregate.kind == "*" else pl.col(self.column)
        return argument, time if self.by is None else pl.col(self.column + HIDDEN)

    def shares(self) -> Hashable:
        """Calls that are equal in this keep the same pieces."""
        kept = self.aggregate.shares()
        return self.name if kept is None else (self.aggregate.kind, kept, *self.said)


class Pieces:
    """The pieces of some aggregates, as expressions."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = list(calls)

    def sub_key(self, time: pl.Expr) -> pl.Expr | None:
        return self._calls[0].sub_key(time) if self._calls else None

    def partials(self, time: pl.Expr) -> list[pl.Expr]:
        """Records of a group -> pieces."""
        exprs = ((call, call.partial(time)) for call in self._calls)
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
                return _widened(call)
        return []

    def widened(self, names: Collection[str]) -> list[pl.Expr]:
        """What makes pieces that these calls have made of integers those of floats."""
        return [expr for call in self._calls if call.name in names for expr in _widened(call.narrow())]


class Table:
    """Pieces of some aggregates by the same key: of those without a sub-key, or of those that share one."""

    def __init__(self, keys: Sequence[str], calls: Sequence[Call], saved: pl.DataFrame | None = None) -> None:
        self._keys, self._calls = list(keys), list(calls)
        is_fine = Pieces(calls).sub_key(pl.lit(0)) is not None
        self._pieces = Pieces(calls[:1] if is_fine else calls)
        self._subs = [SUB_KEY] if is_fine else []
        self._has_pieces = any(call.aggregate.has_pieces for call in calls)
        width = max((call.aggregate.width for call in calls), default=1)
        self._worth_merging = _WORTH_MERGING // width // max(1, len(self._pieces.partials(pl.lit(0))))
        self._parts: list[pl.DataFrame] = [] if saved is None else [saved]
        self._merged_rows = 0  # rows of the first part, one per key; 0 if it may hold several
        self._new_rows = 0 if saved is None else saved.height
        self._is_loose = False  # a partial has as many rows as records, almost

    def add(self, frame: pl.DataFrame, time: pl.Expr, implied: Sequence[str] = ()) -> None:
        """`implied`: keys that the others decide, in these records; grouping by fewer is faster."""
        is_merged = not self._parts and not self._is_loose
        self._append(self._part(frame, time, implied))
        if is_merged:
            self._merged_rows, self._new_rows = self._parts[0].height, 0

    def absorb(self, rows: pl.DataFrame, narrow: Collection[str] = ()) -> None:
        """Pieces that another such table has made. `narrow`: calls that were of integers there, and are of floats here."""
        self._append(rows.with_columns(*self._pieces.widened(narrow)))

    def _append(self, part: pl.DataFrame) -> None:
        self._parts.append(part)
        self._new_rows += part.height
        if self._new_rows > max(self._worth_merging, 2 * self._merged_rows):
            self.merged()
        else:
            self._put_together()

    def _put_together(self) -> None:
        """Small parts, as many small batches give: so that there are few."""
        first = 1 if self._merged_rows else 0
        while len(self._parts) > first + 1:
            older, newer = self._parts[-2:]
            if older.height > 2 * newer.height or older.height + newer.height > _SMALL:
                return
            self._parts[-2:] = [stacked([older, newer]).rechunk()]

    def _part(self, frame: pl.DataFrame, time: pl.Expr, implied: Sequence[str]) -> pl.DataFrame:
        """Records -> pieces."""
        if self._has_pieces:
            return self._combined(frame.select(*self._keys, *self._pieces.partials(time)), self._keys)
        if self._subs and self._calls[0].aggregate.explodes:
            frame = frame.explode(self._calls[0].column, empty_as_null=True)
        sub = self._pieces.sub_key(time)
        if sub is not None:
            frame = frame.with_columns(sub.alias(SUB_KEY))
        alone = self._calls[0].alone(time) if self._is_loose else {}
        if alone:
            pieces = [expr.alias(column_of(self._calls[0].name, name)) for name, expr in alone.items()]
            return frame.select(*self._keys, SUB_KEY, *pieces)
        keys = [name for name in self._keys if name not in implied]
        firsts = [pl.col(name).first() for name in implied]
        part = self._trimmed(grouped(frame, [*keys, *self._subs], [*firsts, *self._pieces.partials(time)]))
        self._is_loose = bool(self._subs) and part.height > _LOOSE * frame.height
        return part

    def _combined(self, rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        """Pieces -> pieces, one row per key."""
        if self._has_pieces:
            (column,) = _columns(self._calls[0]).values()
            return self._calls[0].aggregate.combined(rows, keys, column)
        return self._trimmed(grouped(rows, [*keys, *self._subs], self._pieces.merges()), keys)

    def widen(self, name: str) -> None:
        """The argument of this call has turned out to hold floats."""
        if wide := self._pieces.widen(name):
            self._parts = [part.with_columns(*wide) for part in self._parts]
        self._calls = [call.wide() if call.name == name else call for call in self._calls]

    def merged(self) -> pl.DataFrame:
        """All pieces, one row per key."""
        if self._new_rows:
            self._parts = [self._combined(self.rows(), self._keys)]
            self._merged_rows, self._new_rows = self._parts[0].height, 0
        return self._parts[0] if self._parts else pl.DataFrame()

    def _trimmed(self, rows: pl.DataFrame, keys: Sequence[str] | None = None) -> pl.DataFrame:
        if not self._subs:
            return rows
        return self._calls[0].aggregate.trimmed(rows, self._keys if keys is None else keys, _columns(self._calls[0]))

    def rows(self) -> pl.DataFrame:
        """All pieces as they are, several rows per key: free to take."""
        if len(self._parts) < 2:
            return self._parts[0] if self._parts else pl.DataFrame()
        return stacked(self._parts)

    def take(self) -> pl.DataFrame:
        """All pieces, one row per key; they are gone then."""
        rows, self._parts, self._merged_rows = self.merged(), [], 0
        self._is_loose = False  # what comes may be otherwise
        return rows

    def keep(self, kept: Select) -> None:
        """Let go of all other rows."""
        self._is_loose = False  # what comes may be otherwise
        parts = [kept(part) for part in self._parts]
        self._merged_rows = parts[0].height if self._merged_rows else 0
        self._parts = [part for part in parts if part.height] or parts[:1]
        self._new_rows = sum(part.height for part in self._parts) - self._merged_rows

    def rename(self, renamed: Select) -> None:
        """Rows under other keys."""
        self._parts = [renamed(part) for part in self._parts]
        self._merged_rows, self._new_rows = 0, sum(part.height for part in self._parts)

    def values(self, rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        """Pieces -> values, one row per group."""
        rows = self._combined(rows, keys)
        if not self._subs:
            return rows.select(*keys, *self._pieces.finals())
        piece = _columns(self._calls[0])
        found = [call.aggregate.values(rows, keys, piece).rename({VALUE: call.name}) for call in self._calls]
        # No records and no key: a row all the same.
        return beside([values if keys or values.height else values.clear(1) for values in found], keys)


class Summary:
    """All tables of one aggregate step. `keys`: the grouping columns, window included."""

    def __init__(self, keys: Sequence[str], calls: Sequence[Call], saved: Mapping[str, pl.DataFrame]) -> None:
        self._keys = list(keys)
        self._order = [call.name for call in calls]
        plain, fine = apart(calls)
        groups = ({"groups": plain} if plain or not fine else {}) | {f"sub-{some[0].name}": some for some in fine}
        self._tables = {name: Table(self._keys, some, saved.get(name)) for name, some in groups.items()}

    def add(self, frame: pl.DataFrame, time: pl.Expr, implied: Sequence[str] = ()) -> None:
        for table in self._tables.values():
            table.add(frame, time, implied)

    def absorb(self, pieces: Mapping[str, pl.DataFrame], narrow: Collection[str] = ()) -> None:
        """What another such summary has taken out. `narrow`: see Table."""
        for name, rows in pieces.items():
            self._tables[name].absorb(rows, narrow)

    def take(self) -> Mapping[str, pl.DataFrame]:
        """All pieces by their tables, one row per key; they are gone then."""
        taken = {name: table.take() for name, table in self._tables.items()}
        return {name: rows for name, rows in taken.items() if rows.height}

    def widen(self, name: str) -> None:
        """The argument of this call has turned out to hold floats: from here on it is one of floats."""
        for table in self._tables.values():
            table.widen(name)

    def values(self, select: Select, keys: Sequence[str] | None = None) -> pl.DataFrame:
        """The results of the groups that `select` makes of the rows.

        `keys`: by which they are to be merged again, where `select` gives the rows other keys.
        """
        by = self._keys if keys is None else list(keys)
        # What is selected is merged, and not all: a window's pieces are, as a rule, when it is given out.
        found = [(table, select(rows)) for table in self._tables.values() if (rows := table.rows()).width]
        values = beside([table.values(rows, by) for table, rows in found], by)
        return values.select(*by, *self._order) if values.width else values

    def merge(self) -> None:
        """What will be read several times is merged first."""
        for table in self._tables.values():
            table.merged()

    def keep(self, kept: Select) -> None:
        """Let go of all other rows."""
        for table in self._tables.values():
            table.keep(kept)

    def rename(self, renamed: Select) -> None:
        """Rows under other keys."""
        for table in self._tables.values():
            table.rename(renamed)

    def groups(self) -> pl.DataFrame:
        """The rows of one table; each group has some, and may have several."""
        return next(iter(self._tables.values())).rows()

    def snapshot(self) -> Mapping[str, pl.DataFrame]:
        """Not merged first: that could take longer than a checkpoint may hold up the stream."""
        return {name: rows for name, table in self._tables.items() if (rows := table.rows()).width}


def stacked(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Frames of the same columns, one under the other; integers may have become floats in one of them."""
    names = parts[-1].columns
    same = [part if part.columns == names else part.select(names) for part in parts]
    return pl.concat(same, how="vertical_relaxed", rechunk=False)


def apart(calls: Sequence[Call]) -> tuple[list[Call], list[list[Call]]]:
    """Those whose pieces are kept per group, and those that are kept apart: by a finer key, with others of the same."""
    plain: list[Call] = []
    fine: dict[Hashable, list[Call]] = {}
    for call in calls:
        is_fine = call.aggregate.has_pieces or call.sub_key(pl.lit(0)) is not None
        (fine.setdefault(call.shares(), []) if is_fine else plain).append(call)
    return plain, list(fine.values())


def beside(frames: Sequence[pl.DataFrame], keys: Sequence[str]) -> pl.DataFrame:
    """Values of the same groups."""
    first, *others = frames or [pl.DataFrame()]
    for other in others:
        first = first.join(other, on=keys, how="left", nulls_equal=True, maintain_order="left") if keys else first.hstack(other)
    return first


def grouped(frame: pl.DataFrame, by: Sequence[str], exprs: Iterable[pl.Expr]) -> pl.DataFrame:
    """Several columns by their number, which takes half the time."""
    if not by:
        return frame.select(*exprs)
    if len(by) == 1:
        return frame.group_by(by).agg(*exprs)
    return frame.group_by(number(by).alias(_NUMBER)).agg(pl.col(by).first(), *exprs).drop(_NUMBER)


def column_of(call: str, piece: str) -> str:
    """Where a piece of a call is kept."""
    return f"{HIDDEN}{call}.{piece}"


def _pieces(call: Call) -> Mapping[str, pl.Expr]:
    return {name: pl.col(column) for name, column in _columns(call).items()}


def _widened(call: Call) -> list[pl.Expr]:
    """Pieces of this call, which is one of integers -> those of floats."""
    return [piece.alias(column_of(call.name, key)) for key, piece in call.aggregate.widened(_pieces(call)).items()]


def _columns(call: Call) -> Mapping[str, str]:
    """Where its pieces are kept, by their names."""
    return {name: column_of(call.name, name) for name in call.aggregate.partial(pl.lit(0), pl.lit(0))}
