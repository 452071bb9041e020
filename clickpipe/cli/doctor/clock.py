"""The clock on the wall, which moves the watermark of input that is silent and says when records arrived; and the one that only
goes forward, by which the program waits.
"""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from clickpipe.cli.doctor.trial import trial
from clickpipe.cli.doctor.verdict import Verdict, bad, note, ok

_EARLIEST = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
_APART = 2.0  # seconds
_UNSYNCHRONISED, _FAILED = 0x40, -1  # STA_UNSYNC, see adjtimex(2)
_SAID = "/run/systemd/timesync/synchronized"
_SET = "timedatectl set-ntp true, or chrony; in a container the host's clock counts"


class _Timex(ctypes.Structure):
    _fields_ = [
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "frequency", "max_error", "estimated_error")),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    ]


@dataclass(frozen=True)
class Found:
    """`now`: seconds. `ahead`: of what the file system says of a file that was written just now. `is_synchronised`: None where
    nobody can tell."""

    now: float
    ahead: float | None
    is_synchronised: bool | None
    goes_back: bool


def look(home: str) -> Found:
    readings = [time.monotonic() for _ in range(1_000)]
    return Found(time.time(), _ahead(home), _is_synchronised(), readings != sorted(readings))


def _ahead(home: str) -> float | None:
    try:
        with trial(home) as folder:
            return time.time() - os.stat(folder).st_mtime
    except OSError:
        return None


def _is_synchronised() -> bool | None:
    if os.path.exists(_SAID):
        return True
    said = _Timex()
    try:
        code = ctypes.CDLL(None).adjtimex(ctypes.byref(said))
    except (OSError, AttributeError):
        return None
    return None if code == _FAILED else not said.status & _UNSYNCHRONISED


def verdict(found: Found) -> Verdict:
    text = datetime.fromtimestamp(found.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if found.now < _EARLIEST:
        return bad(f"{text}, which has long been: records would seem to come from the future, and be dead letters", _SET)
    if found.goes_back:
        return bad(f"{text}; the monotonic clock goes back", "another clock source of the kernel or the hypervisor")
    if found.ahead is not None and abs(found.ahead) > _APART:
        where = "ahead of" if found.ahead > 0 else "behind"
        return note(
            f"{text}, {abs(found.ahead):,.0f} s {where} that of the file system", "synchronise both with the same servers"
        )
    if found.is_synchronised is False:
        return note(f"{text}; nobody says that it is synchronised", _SET)
    return ok(text + (", synchronised" if found.is_synchronised else ""))
