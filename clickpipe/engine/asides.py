"""The late and the dead-letter stream: files of records that left a pipeline, and why.

late.ndjson   the record, its newest window, _mark, _late_by (ms), _reason
dead.ndjson   {"raw":"…","error":"…","source":"…","offset":…,"time":…}
"""

from __future__ import annotations

import os

import orjson
import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.core.operator import Late
from clickpipe.core.render import unmarked
from clickpipe.core.time import instants
from clickpipe.state.files import AppendFile

_RAW_SHOWN = 64 << 10  # bytes of a bad line that are kept


class SideFiles:
    """Writes both streams; a file is made when it is needed. `state` None: they need names of their own."""

    def __init__(self, state: str | None, late: str | None, dead: str | None) -> None:
        self.late_path = late or (os.path.join(state, "late.ndjson") if state else None)
        self.dead_path = dead or (os.path.join(state, "dead.ndjson") if state else None)
        self._late = AppendFile(self.late_path) if self.late_path else None
        self._dead = AppendFile(self.dead_path) if self.dead_path else None

    def add_late(self, late: Late) -> None:
        if self._late:
            self._late.append(_late_lines(late))

    first_reason = ""  # of the first dead letter

    def add_dead(self, dead: Dead) -> None:
        self.first_reason = self.first_reason or dead.reason[0]
        if self._dead:
            self._dead.append(b"".join(_letter(dead, number) for number in range(len(dead))))

    def close(self) -> None:
        for file in (self._late, self._dead):
            if file:
                file.close()


def _letter(dead: Dead, number: int) -> bytes:
    raw = dead.raw[number]
    letter = {
        "raw": raw if len(raw) <= _RAW_SHOWN else raw[:_RAW_SHOWN],
        "error": dead.reason[number],
        "source": dead.source and dead.source.encode("utf-8", "replace").decode(),
        "offset": dead.offset[number],
        "time": dead.time[number] if number < len(dead.time) else None,
    }
    return orjson.dumps(letter) + b"\n"


def _late_lines(late: Late) -> bytes:
    batch = late.batch.with_text()
    mark = batch.frame["_mark"] if "_mark" in batch.frame.columns else pl.Series("_mark", [None] * batch.height, pl.Int64)
    time = batch.columns.time
    instant = _instant(batch) if time and time.name in batch.frame.columns else pl.Series([None] * batch.height, dtype=pl.Int64)
    added = pl.DataFrame(
        {
            "_mark": mark,
            "_late_by": mark - instant,
            "_reason": pl.Series([late.reason] * batch.height, dtype=pl.String),
        }
    )
    columns = batch.columns.add({"_mark": "int", "_late_by": "int", "_reason": "str"})
    return unmarked(batch).add(added, columns).to_ndjson()


def _instant(batch: Batch) -> pl.Series:
    assert batch.columns.time is not None
    name, unit = batch.columns.time.name, batch.columns.time.unit
    return instants(batch.frame[name], batch.columns.types[name], unit)
