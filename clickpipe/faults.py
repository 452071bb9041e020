"""Faults that a test asks for. They stand where checkpoints are, not on the way of records.

CLICKPIPE_KILL_POINT=after-manifest-rename     dies there at the first pass
CLICKPIPE_KILL_POINT=before-commit:3           dies there at the third
CLICKPIPE_KILL_ONCE=FILE                       only the first of all processes, in all their lives: it makes FILE, then dies

CLICKPIPE_FAIL=fsync:7:EIO                     the seventh fsync of state fails
CLICKPIPE_FAIL=write:7-9:ENOSPC                so do three writes; write:7+:EIO: the seventh and all later

CLICKPIPE_KILL_AFTER=3      the process that reads the input dies when all steps have had its third record
CLICKPIPE_STOP_AFTER=3      it is asked to stop then, as by SIGTERM; end: where the input ends, so that it goes on instead
"""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Callable, Iterator
from itertools import count
from typing import TypeVar

T = TypeVar("T")

_KILL_AFTER, _STOP_AFTER = "CLICKPIPE_KILL_AFTER", "CLICKPIPE_STOP_AFTER"
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


def strikes_input() -> bool:
    """Whether something is to happen after so many records."""
    return any(os.environ.get(name, "").isdigit() for name in (_KILL_AFTER, _STOP_AFTER))


def struck(pulls: Callable[[], Iterator[T]], read: Callable[[T], int]) -> Iterator[T]:
    """The same pulls. `read`: the records of one, which all steps have had when the next one is asked for."""
    records = 0
    for pull in pulls():
        yield pull
        before, records = records, records + read(pull)
        for name, number in ((_KILL_AFTER, signal.SIGKILL), (_STOP_AFTER, signal.SIGTERM)):
            after = os.environ.get(name, "")
            if after.isdigit() and before < int(after) <= records:
                os.kill(os.getpid(), number)


def stop_at_the_end() -> bool:
    """Ask this process to stop, as by SIGTERM, if its input is to go on where the given one ends."""
    is_wanted = os.environ.get(_STOP_AFTER) == "end"
    if is_wanted:
        os.kill(os.getpid(), signal.SIGTERM)
    return is_wanted


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
