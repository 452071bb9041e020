"""Faults that a test asks for. They stand where checkpoints are, not on the way of records.

CLICKPIPE_KILL_POINT=after-manifest-rename     dies there at the first pass
CLICKPIPE_KILL_POINT=before-commit:3           dies there at the third
CLICKPIPE_KILL_ONCE=FILE                       only the first of all processes, in all their lives: it makes FILE, then dies

CLICKPIPE_FAIL=fsync:7:EIO                     the seventh fsync of state fails
CLICKPIPE_FAIL=write:7-9:ENOSPC                so do three writes; write:7+:EIO: the seventh and all later
"""

from __future__ import annotations

import errno
import os
import signal
import stat
from itertools import count

_passes = 0
_calls = count(1)


def kill_point(name: str) -> None:
    """Die here, as if by kill -9, if this is the place that was asked for."""
    global _passes
    wanted, _, number = os.environ.get("CLICKPIPE_KILL_POINT", "").partition(":")
    if name != wanted:
        return
    _passes += 1
    if _passes == int(number or 1) and _is_the_first():
        os.kill(os.getpid(), signal.SIGKILL)


def _is_the_first() -> bool:
    path = os.environ.get("CLICKPIPE_KILL_ONCE")
    if not path:
        return True
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True


def may_fail(call: str, descriptor: int | None = None) -> None:
    """Raise what was asked for in place of this system call, and say on standard error that it struck."""
    wanted = os.environ.get("CLICKPIPE_FAIL", "").split(":")
    if call != wanted[0]:
        return
    number = next(_calls)
    first, _, last = wanted[1].rstrip("+").partition("-")
    if number < int(first) or (number > int(last or first) and not wanted[1].endswith("+")):
        return
    os.write(2, f"fault: {call} {number}\n".encode())
    if descriptor is not None:
        _lose(descriptor)
    code = getattr(errno, wanted[2])
    raise OSError(code, os.strerror(code))


def _lose(descriptor: int) -> None:
    """What was written last: after a failed fsync a kernel drops it, and takes the file for clean from then on."""
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        os.pwrite(descriptor, b"\0", status.st_size - 1)
