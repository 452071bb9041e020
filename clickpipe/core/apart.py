"""Pieces of sessions that stand apart from them, in tables: by more columns than the session's, or by a finer key.

    sessions    u1 [0, 40)  number 3        pieces   (3, /a) (5, /a) (5, /b)        alias   5 -> 3

They are kept under numbers, one for each stretch of a batch, since sessions come together and their pieces need not: when 5
has become part of 3, an alias says so until the pieces are renamed.

Memory: a row per session and finer group; a row of the alias per two of those at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Literal

import polars as pl

from clickpipe.columns import HIDDEN
from clickpipe.core.summary import Call, Summary

ID = HIDDEN + "session"  # the number of a session, of its own and of each that has become part of it
_INTO = HIDDEN + "label"
_NOW = HIDDEN + "now"
_ALIAS, _IDS = "alias", "ids"
_WORTH_RENAMING = 50_000  # rows


def moved(parts: Sequence[Mapping[str, pl.DataFrame]]) -> list[Mapping[str, pl.DataFrame]]:
    """The tables of several processes, with numbers that no two have in common."""
    first = 0
    found: list[Mapping[str, pl.DataFrame]] = []
    for tables in parts:
        found.append({name: _moved(table, first) for name, table in tables.items()})
        first += int(tables[_IDS].item()) if _IDS in tables else 0
    return found


def _moved(table: pl.DataFrame, first: int) -> pl.DataFrame:
    return table.with_columns(pl.col(name) + first for name in (ID, _INTO, _IDS) if name in table.columns)


def of_those(tables: Mapping[str, pl.DataFrame], sessions: Sequence[str]) -> Mapping[str, pl.DataFrame]:
    """The tables, with what belongs to the sessions that are in some of them and to no others."""
    if _ALIAS not in tables:
        return tables
    own = pl.concat([tables[name].select(ID) for name in sessions]).unique()
    alias = tables[_ALIAS].join(own.rename({ID: _INTO}), on=_INTO, how="semi")
    known = pl.concat([own, alias.select(ID)])
    pieces = [name for name, table in tables.items() if ID in table.columns and name not in (*sessions, _ALIAS)]
    return {**tables, _ALIAS: alias, **{name: tables[name].join(known, on=ID, how="semi") for name in pieces}}


class Apart:
    """`is_ordered`: some aggregate asks which of two records came first."""

    def __init__(
        self, finer: Sequence[str], calls: Sequence[Call], saved: Mapping[str, pl.DataFrame], *, is_ordered: bool
    ) -> None:
        self._keys, self._is_ordered = [ID, *finer], is_ordered
        self._summary = Summary(self._keys, calls, saved)
        self._numbers = count(int(saved[_IDS].item()) if _IDS in saved else 0)
        self._alias = saved.get(_ALIAS, pl.DataFrame(schema={ID: pl.Int64, _INTO: pl.Int64}))

    def widen(self, name: str) -> None:
        self._summary.widen(name)

    def add(self, frame: pl.DataFrame, part: pl.DataFrame, keys: list[str], time: pl.Expr) -> pl.DataFrame:
        """The sessions that a batch's records were reduced to, with their numbers. `keys`: by which records are of one."""
        first = next(self._numbers)
        part = part.with_columns(pl.int_range(first, first + pl.len(), dtype=pl.Int64).alias(ID))
        self._numbers = count(first + part.height)
        self._summary.add(frame.join(part.select(*keys, ID), on=keys, how="left", maintain_order="left"), time)
        return part

    def merged(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Sessions with a list of numbers -> with the least of them; the others are its aliases from here on."""
        numbers = rows[ID]
        rows = rows.with_columns(pl.col(ID).list.min())
        pairs = pl.DataFrame([numbers, rows[ID].alias(_INTO)]).explode(ID).filter(pl.col(ID) != pl.col(_INTO))
        old = self._alias.join(pairs.rename({ID: _INTO, _INTO: _NOW}), on=_INTO, how="left")
        self._alias = pl.concat([old.select(ID, pl.coalesce(_NOW, _INTO).alias(_INTO)), pairs])
        if self._alias.height > 2 * rows.height + _WORTH_RENAMING:
            alias, self._alias = self._alias, self._alias.clear()
            self._summary.rename(lambda pieces: self._renamed(pieces, alias, how="left"))
        return rows

    def values(self, sessions: pl.DataFrame) -> pl.DataFrame:
        """Of these sessions, by their numbers and what is finer."""
        names = self._names(sessions)
        return self._summary.values(lambda pieces: self._renamed(pieces, names, how="inner"), self._keys)

    def forget(self, sessions: pl.DataFrame) -> None:
        names = self._names(sessions)
        self._summary.keep(lambda pieces: pieces.join(names, on=ID, how="anti", maintain_order="left"))
        self._alias = self._alias.join(names, on=ID, how="anti")

    def _names(self, sessions: pl.DataFrame) -> pl.DataFrame:
        """The numbers under which pieces of these sessions are kept, and the sessions' own."""
        own = sessions.select(ID, pl.col(ID).alias(_INTO))
        return pl.concat([own, self._alias.join(own, on=_INTO, how="semi")])

    def _renamed(self, pieces: pl.DataFrame, names: pl.DataFrame, how: Literal["inner", "left"]) -> pl.DataFrame:
        """Pieces under the numbers of their sessions. Numbers rise in the order of arrival."""
        pieces = pieces.sort(ID) if self._is_ordered else pieces
        joined = pieces.join(names, on=ID, how=how, maintain_order="left")
        return joined.with_columns(pl.coalesce(_INTO, ID).alias(ID)).drop(_INTO)

    def snapshot(self) -> Mapping[str, pl.DataFrame]:
        first = next(self._numbers)
        self._numbers = count(first)
        return {_ALIAS: self._alias, _IDS: pl.DataFrame({_IDS: [first]}), **self._summary.snapshot()}
