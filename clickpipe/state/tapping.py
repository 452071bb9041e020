"""Taps: whoever wants to see the records behind a step asks here, and is given them in a pipe.

    …/run/clicks/tap-4711-2-90.json     process 4711 is asked for what leaves step 2, by process 90
    …/run/clicks/tap-4711-2-90.fifo     and writes it there: lines of NDJSON, and signals that count

    \\t{"@":"tap","passed":1200,"given":1000,"lost":200}\\n

Both go when whoever asked leaves. What one that was killed has left goes when the pipe has no reader.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from clickpipe.errors import ClickpipeError, OutsideError
from clickpipe.state.files import write_fleeting
from clickpipe.state.home import run_directories
from clickpipe.state.trust import read_own

_NAME = re.compile(r"tap-([0-9]+)-[0-9]+-[0-9]+\.json")


@dataclass(frozen=True)
class Asked:
    """`stem`: of both files; `share`: of the records that are wanted, from 0 to 1."""

    stem: str
    hop: int
    share: float

    def opened(self) -> int | None:
        """The pipe, to write to; None: nobody reads it any more, and nothing of it is left."""
        try:
            descriptor = os.open(f"{self.stem}.fifo", os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            remove(self.stem)
            return None
        os.set_blocking(descriptor, True)
        return descriptor


def asked(pipeline: str, process: int) -> list[Asked]:
    """What is asked of this process."""
    found = []
    for folder in filter(os.path.isdir, run_directories(pipeline)):
        for name in os.listdir(folder):
            match = _NAME.fullmatch(name)
            if match and int(match[1]) == process:
                with suppress(OSError, ValueError, KeyError, TypeError, ClickpipeError):
                    path = os.path.join(folder, name)
                    said = orjson.loads(read_own(path))
                    found.append(Asked(path.removesuffix(".json"), int(said["hop"]), float(said["share"])))
    return found


class Asking:
    """The end of whoever asks. `descriptor`: of the pipe, to read. Raises OutsideError."""

    def __init__(self, folder: str, process: int, hop: int, share: float) -> None:
        self.process = process
        self._stem = os.path.join(folder, f"tap-{process}-{hop}-{os.getpid()}")
        remove(self._stem)
        try:
            os.mkfifo(f"{self._stem}.fifo", 0o600)
            self.descriptor = os.open(f"{self._stem}.fifo", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise OutsideError(f"{self._stem}.fifo: {error.strerror}") from None
        write_fleeting(f"{self._stem}.json", orjson.dumps({"hop": hop, "share": share}) + b"\n")

    def close(self) -> None:
        """May be called in a signal handler, and twice."""
        remove(self._stem)


def remove(stem: str) -> None:
    for suffix in (".json", ".fifo"):
        with suppress(OSError):
            os.unlink(f"{stem}{suffix}")


def counted(passed: int, given: int, lost: int) -> bytes:
    return b"\t" + orjson.dumps({"@": "tap", "passed": passed, "given": given, "lost": lost}) + b"\n"


def count_of(line: bytes) -> dict[str, Any] | None:
    """What a signal counts; None for one of another kind."""
    said = orjson.loads(line)
    return said if said.get("@") == "tap" else None
