"""What happens when a signal asks this process to end: it ends by itself soon, or what must not stay is cleared away.

A signal may come in the middle of an import or inside Polars, where an exception does harm; so its
handler asks `ends_by_itself`, else calls `clean_up` and leaves. Nothing here may block or raise.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_CLEANUPS: list[Callable[[], None]] = []
_ASKED: list[Callable[[int], bool]] = []
_KEPT: list[int] = []  # signals that came before there was anybody to ask
AGAIN = "CLICKPIPE_AGAIN"  # tells it that it is not the first that the supervisor has started: --reset has been done
WORKERS = "CLICKPIPE_WORKERS"  # tells it how many workers each partition has: 3,1
RESCALE = signal.SIGUSR2  # asks a pipeline to stop at a checkpoint, to go on with another number of workers …
RESCALED = 79  # … and by this exit code it says that it has, and that nothing else has ended it
PARENT = "CLICKPIPE_PARENT"  # tells a process which supervisor it belongs to: it dies with that one


def on_stop(clean: Callable[[], None]) -> None:
    """Call this if a signal ends the process."""
    _CLEANUPS.append(clean)


def forget(clean: Callable[[], None]) -> None:
    """There is nothing to clear away any more."""
    with contextlib.suppress(ValueError):
        _CLEANUPS.remove(clean)


def clean_up() -> None:
    for clean in list(_CLEANUPS):
        with contextlib.suppress(Exception):
            clean()


def parent() -> int | None:
    """The supervisor that this process belongs to: it decides what a second request means, and ends who does not end."""
    told = os.environ.get(PARENT)
    return int(told) if told else None


def die_with_parent(number: int) -> None:
    """From here on the death of the process that started this one sends it this signal. Where that cannot be had, it does not."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def on_ask(take: Callable[[int], bool]) -> None:
    """Ask this first, with the signal's number. True: the process will end by itself."""
    _ASKED.append(take)
    while _KEPT:
        take(_KEPT.pop(0))


def keep(number: int) -> None:
    """For whoever will be asked: the process has only just begun."""
    if not _ASKED:
        _KEPT.append(number)


def ends_by_itself(number: int) -> bool:
    return any(take(number) for take in _ASKED)
