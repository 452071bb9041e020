"""How unequally records are spread over keys: the hottest keys, and what each key group has had.

    a batch -> its keys with their counts -> those that stand out -> as JSON, added to those of the batches before

Memory: 128 counters, and 1,000 for keys.
Error: a key's count is too low by one in 1,000 of all records at most (core/counters.py), and in batches of more than 8,192
records it is of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from clickpipe.core.aggregate import SUB_KEY, VALUE
from clickpipe.core.compute import json_of
from clickpipe.core.counters import Counters
from clickpipe.core.keygroups import GROUPS, worker_of
from clickpipe.core.step import Tables

_GROUPS, _KEYS = "groups", "keys"  # tables
_GROUP, _N = "group", "n"
_SHOWN = 5
_LOOKED_AT = 8_192  # records of a batch: one in so many of a larger one, that stands for those between


class Skew:
    def __init__(self, by: Sequence[str], saved: Tables) -> None:
        self._by = list(by)
        self._groups = saved.get(_GROUPS, pl.DataFrame(schema={_GROUP: pl.UInt32, _N: pl.Int64}))
        self._keys = saved.get(_KEYS, pl.DataFrame(schema={SUB_KEY: pl.String, _N: pl.Int64}))

    def add(self, frame: pl.DataFrame) -> None:
        """Shape: the key columns, and others."""
        stands_for = frame.height // _LOOKED_AT + 1
        some = frame.select(self._by).gather_every(stands_for)
        counted = some.group_by(self._by).agg(pl.len().cast(pl.Int64).alias(_N) * stands_for)
        found = counted.select(worker_of(self._by, GROUPS).alias(_GROUP), _N)
        self._groups = pl.concat([self._groups, found]).group_by(_GROUP).agg(pl.col(_N).sum())
        keys = _trimmed(counted.select(pl.struct(self._by).alias(SUB_KEY), _N))
        keys = keys.with_columns(pl.when(pl.col(SUB_KEY).is_not_null()).then(self._said()).alias(SUB_KEY))
        self._keys = _trimmed(pl.concat([self._keys, keys]).group_by(SUB_KEY).agg(pl.col(_N).sum()))

    def _said(self) -> pl.Expr:
        """A key as JSON, a null too; of several columns an object."""
        key = pl.col(SUB_KEY)
        return json_of(key.struct.field(self._by[0])).fill_null("null") if len(self._by) == 1 else json_of(key)

    def snapshot(self) -> Tables:
        return {_GROUPS: self._groups, _KEYS: self._keys}


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
    groups = saved[_GROUPS].with_columns(pl.col(_GROUP) * workers // GROUPS)
    counts = dict(groups.group_by(_GROUP).agg(pl.col(_N).sum()).iter_rows())
    (top,) = _counters().values(saved[_KEYS], [], {_N: _N})[VALUE].to_list()
    hottest = [(one["value"], one["count"]) for one in top or () if one["value"] is not None]
    return Spread([counts.get(number, 0) for number in range(workers)], hottest)


def _trimmed(keys: pl.DataFrame) -> pl.DataFrame:
    return _counters().trimmed(keys, [], {_N: _N})


def _counters() -> Counters:
    return Counters("str", _SHOWN)
