"""How unequally records are spread over keys: the hottest keys, and what each key group has had.

Memory: 128 counters, and 1,000 for keys.
Error: a key's count is too low by one in 1,000 of all records at most (core/counters.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from clickpipe.core.compute import json_of
from clickpipe.core.counters import Counters
from clickpipe.core.keygroups import GROUPS, worker_of
from clickpipe.core.step import Tables
from clickpipe.core.summary import Call, Summary

_GROUP, _N = "group", "n"
_KEYS = "keys"
_SHOWN = 5


class Skew:
    def __init__(self, by: Sequence[str], saved: Tables) -> None:
        self._by = list(by)
        self._groups = saved.get(_GROUP, pl.DataFrame(schema={_GROUP: pl.UInt32, _N: pl.Int64}))
        self._keys = _summary({name: table for name, table in saved.items() if name != _GROUP})

    def add(self, frame: pl.DataFrame) -> None:
        """Shape: the key columns, and others."""
        keys = json_of(pl.col(self._by[0])) if len(self._by) == 1 else json_of(pl.struct(self._by))
        found = frame.select(keys.alias(_KEYS), worker_of(self._by, GROUPS).alias(_GROUP))
        counted = found.group_by(_GROUP).agg(pl.len().cast(pl.Int64).alias(_N))
        self._groups = pl.concat([self._groups, counted]).group_by(_GROUP).agg(pl.col(_N).sum())
        call = _call()
        self._keys.add(found.select(call.inputs()), pl.lit(0))

    def snapshot(self) -> Tables:
        return {_GROUP: self._groups, **self._keys.snapshot()}


@dataclass(frozen=True)
class Spread:
    """`loads`: the records of each worker; `hottest`: keys as JSON with their counts, the most frequent first."""

    loads: Sequence[int]
    hottest: Sequence[tuple[str, int]]

    @property
    def records(self) -> int:
        return sum(self.loads)

    @property
    def factor(self) -> float:
        """How much more the busiest worker has than each would have of equal parts."""
        return max(self.loads) * len(self.loads) / self.records if self.records else 1.0


def spread(saved: Tables, workers: int) -> Spread:
    """Of what a snapshot holds."""
    groups = saved[_GROUP].with_columns(pl.col(_GROUP) * workers // GROUPS)
    counts = dict(groups.group_by(_GROUP).agg(pl.col(_N).sum()).iter_rows())
    value = _summary({name: table for name, table in saved.items() if name != _GROUP}).values(lambda rows: rows)[_KEYS]
    top: list[Any] = value.to_list()[0] if len(value) else []
    hottest = [(str(one["value"]), int(one["count"])) for one in top or ()]
    return Spread([counts.get(number, 0) for number in range(workers)], hottest)


def _call() -> Call:
    return Call(_KEYS, Counters("str", _SHOWN), pl.col(_KEYS))


def _summary(saved: Tables) -> Summary:
    return Summary([], [_call()], saved)
