"""The late and the dead-letter stream: files of records that left a pipeline, and why.

late.ndjson   the record, its newest window, _mark, _late_by (ms), _reason
dead.ndjson   {"raw":"…","error":"…","source":"…","offset":…,"time":…}
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import orjson
import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.core.operator import Late
from clickpipe.core.render import unmarked
from clickpipe.core.time import instants
from clickpipe.engine.checkpoints import Checkpoints, Place
from clickpipe.state.directory import StateDirectory
from clickpipe.state.files import AppendFile, StagedFile, is_special
from clickpipe.state.manifest import Entry

_RAW_SHOWN = 64 << 10  # bytes of a bad line that are kept


class SideFiles:
    """Writes both streams; a file is made when it is needed. `files`: where they lead, a person's links followed."""

    first_reason = ""  # of the first dead letter

    def __init__(self, state: str, late: str | None, dead: str | None) -> None:
        self.late_path = late or os.path.join(state, "late.ndjson")
        self.dead_path = dead or os.path.join(state, "dead.ndjson")
        self.files = _followed(late) or self.late_path, _followed(dead) or self.dead_path
        self._late, self._dead = self._file("late", self.files[0]), self._file("dead", self.files[1])

    def _file(self, kind: str, path: str) -> AppendFile | _Staging:
        return AppendFile(path)

    def add_late(self, late: Late) -> None:
        self._late.append(_late_lines(late))

    def add_dead(self, dead: Dead) -> None:
        self.first_reason = self.first_reason or dead.reason[0]
        self._dead.append(b"".join(_letter(dead, number) for number in range(len(dead))))

    def close(self) -> None:
        for file in (self._late, self._dead):
            file.close()


class StagedSides(SideFiles):
    """With checkpoints: what leaves between two of them is staged, and appended by whoever completes the second."""

    def __init__(self, checkpoints: Checkpoints, place: Place, late: str | None, dead: str | None) -> None:
        """`place`: the first step of this process."""
        self._checkpoints, self._place = checkpoints, place
        super().__init__(checkpoints.directory.path, late, dead)

    def _file(self, kind: str, path: str) -> AppendFile | _Staging:
        if is_special(path):  # what a device or pipe was given cannot be taken back
            return AppendFile(path)
        return _Staging(self._checkpoints.directory, f"{self._place.label}-{kind}.ndjson", os.path.abspath(path))

    def entries(self, epoch: int) -> list[Entry]:
        """What goes into the barrier. The files follow in the background."""
        entries: list[Entry] = []
        for file in (self._late, self._dead):
            if isinstance(file, _Staging) and (taken := file.take(epoch)):
                entry, publish = taken
                entries.append({"hop": self._place.hop, "append": entry})
                self._checkpoints.in_background(publish)
        return entries


class _Staging:
    """The lines since the last checkpoint, on their way to the file `to`."""

    def __init__(self, directory: StateDirectory, name: str, to: str) -> None:
        self._directory, self._name, self._to = directory, name, to
        self._file: StagedFile | None = None

    def append(self, lines: bytes) -> None:
        if self._file is None:
            part = os.path.join(self._directory.path, f".{self._name}.{os.getpid()}-{time.monotonic_ns()}.part")
            self._file = StagedFile(part, self._directory.patience(self._to))
        self._file.write(lines)

    def take(self, epoch: int) -> tuple[dict[str, Any], Callable[[], None]] | None:
        """Its entry and what makes it durable, if there is anything."""
        file, self._file = self._file, None
        if file is None:
            return None
        entry = {"file": self._name, "bytes": file.bytes, "hash": file.hash, "to": self._to}
        return entry, lambda: file.publish(self._directory.place(epoch, self._name), "append")

    def close(self) -> None:
        if self._file:
            self._file.discard()


def _followed(path: str | None) -> str | None:
    """A person may have chosen a link; what we choose ourselves must not be one."""
    return os.path.realpath(path) if path and not is_special(path) else path


def _letter(dead: Dead, number: int) -> bytes:
    raw, source = dead.raw[number], dead.sources[number] if dead.sources else dead.source
    letter = {
        "raw": raw if len(raw) <= _RAW_SHOWN else raw[:_RAW_SHOWN],
        "error": dead.reason[number],
        "source": source and source.encode("utf-8", "replace").decode(),
        "offset": dead.offset[number],
        "time": dead.time[number] if number < len(dead.time) else None,
    }
    return orjson.dumps(letter) + b"\n"


def _late_lines(late: Late) -> bytes:
    batch = late.batch.with_text()
    mark = batch.frame["_mark"] if "_mark" in batch.frame.columns else pl.Series("_mark", [None] * batch.height, pl.Int64)
    time = batch.columns.time
    window = batch.columns.window
    if window and window.kind == "session":  # a record's own stretch begins with it
        instant = batch.frame["window_start"]
    elif time and time.name in batch.frame.columns:
        instant = _instant(batch)
    else:
        instant = pl.Series([None] * batch.height, dtype=pl.Int64)
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
