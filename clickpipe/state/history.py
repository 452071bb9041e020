"""When the watermark moved: a line per checkpoint that moved it, for `why`.

    watermarks.ndjson    {"epoch":42,"at":"2026-03-01T09:00:05Z","watermark":1772355600000,"ended":false}

A note, and no part of what is promised: nothing is synced, and a line that cannot be written is left out.
Memory and disk: at most 100,000 lines; then the older half goes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import orjson

from clickpipe.errors import ClickpipeError
from clickpipe.state.files import remove, rename

_MOST = 100_000
_LONGEST = 1_000  # bytes of a line; what is longer is none of ours


@dataclass(frozen=True)
class Moment:
    """A checkpoint, when it was complete, and the watermark in it. `ended`: the input too, so no window is open any more."""

    epoch: int
    at: str
    watermark: int
    ended: bool = False

    def has_passed(self, instant: int) -> bool:
        return self.ended or self.watermark >= instant


class History:
    """Of one pipeline, written by the process that completes its checkpoints."""

    def __init__(self, directory: str, *, anew: bool) -> None:
        """`anew`: what earlier runs noted is of other results."""
        self._path = path_of(directory)
        self._last: tuple[int, bool] | None = None
        self._lines = 0
        with suppress(OSError, ClickpipeError):
            if anew:
                remove(self._path)
            else:
                self._lines = len(_read(self._path))

    def note(self, epoch: int, watermark: int | None, now: float, *, ended: bool) -> None:
        """Unit of `now`: seconds since 1970."""
        if watermark is None or (watermark, ended) == self._last:
            return
        at = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with suppress(OSError, ClickpipeError):
            with open(self._path, "ab") as file:
                file.write(_spelled([Moment(epoch, at, watermark, ended)]))
            self._last, self._lines = (watermark, ended), self._lines + 1
            if self._lines > _MOST:
                self._halve()

    def _halve(self) -> None:
        kept = _read(self._path)[-_MOST // 2 :]
        part = f"{self._path}.{os.getpid()}.part"
        with open(part, "wb") as file:
            file.write(_spelled(kept))
        rename(part, self._path)
        self._lines = len(kept)


def path_of(directory: str) -> str:
    return os.path.join(directory, "watermarks.ndjson")


def moments(directory: str) -> list[Moment]:
    """What was noted, the watermark rising. Going back to a savepoint takes back what was noted after it."""
    rising: list[Moment] = []
    for moment in _read(path_of(directory)):
        while rising and (rising[-1].ended or rising[-1].watermark > moment.watermark):
            rising.pop()
        rising.append(moment)
    return rising


def _read(path: str) -> list[Moment]:
    """Whole lines of ours; others were torn by a crash."""
    try:
        with open(path, "rb") as file:
            lines = file.read(_MOST * _LONGEST).splitlines(keepends=True)
    except OSError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError, TypeError, KeyError):
            if line.endswith(b"\n"):
                said = orjson.loads(line)
                found.append(Moment(int(said["epoch"]), str(said["at"]), int(said["watermark"]), bool(said["ended"])))
    return found


def _spelled(moments: Iterable[Moment]) -> bytes:
    return b"".join(orjson.dumps(asdict(moment)) + b"\n" for moment in moments)
