"""State that several workers saved -> that of one worker of another number of them.

    workers before   0: users a, b     1: users c, d     2: users e         (each its key groups)
    workers now      0: users a, b, c  1: users d, e

A row of a table goes where the key group of its key has gone. What is kept per session stands under numbers that each worker
has given out by itself: they are moved apart first, and go where their session goes. What all workers know alike, such as how
far the watermark has come, is known to all again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from clickpipe.core.apart import ID, moved, of_those
from clickpipe.core.held import alike
from clickpipe.core.keygroups import worker_of
from clickpipe.core.step import Tables
from clickpipe.wire.frames import Worker

_FACTS = frozenset({"reached", "fired", "watermark", "ids"})  # tables that have no keys; what is greatest is newest
_SETS = frozenset({"widened", "form"})  # and those of which all different rows count


def redivided(saved: Mapping[int, Tables], before: int, worker: Worker | None) -> Tables:
    """`saved`: by the number of the worker; of so many `before`. `worker` None: there was one, and is one."""
    if worker is None or before == worker.of:
        return saved.get(worker.number if worker else 0, {})
    parts = alike(moved([saved[one] for one in sorted(saved)]))
    names = dict.fromkeys(name for tables in parts for name in tables)
    found = {name: [tables[name] for tables in parts if name in tables] for name in names}
    keyed = [name for name in names if name not in _FACTS | _SETS and set(worker.by) <= set(found[name][0].columns)]
    tables = {name: _of_worker(pl.concat(found[name], how="diagonal_relaxed"), worker) for name in keyed}
    others = {name: _alike(name, frames) for name, frames in found.items() if name not in keyed}
    return of_those({**tables, **others}, [name for name in keyed if ID in tables[name].columns])


def _of_worker(rows: pl.DataFrame, worker: Worker) -> pl.DataFrame:
    return rows.filter(worker_of(worker.by, worker.of) == worker.number)


def _alike(name: str, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    rows = pl.concat(frames, how="diagonal_relaxed")
    return rows.max() if name in _FACTS else rows.unique() if name in _SETS else rows
