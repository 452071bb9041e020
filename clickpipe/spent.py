"""How the thread that computes spends its time: busy, idle (there is nothing to read), or backpressured (nobody takes what it
has written). Of this process, since `begin`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

IDLE, BACKPRESSURED = "idle", "backpressured"

_waited = {IDLE: 0.0, BACKPRESSURED: 0.0}
_began = time.monotonic()
_waits: tuple[str, float] | None = None  # for what just now, and since when


@dataclass(frozen=True)
class Spent:
    """Unit: seconds. They add up to the time since the beginning."""

    busy: float = 0.0
    idle: float = 0.0
    backpressured: float = 0.0


def begin() -> None:
    """Whatever was before does not count: what a process has from the one it was forked from, too."""
    global _began, _waits
    _began, _waits = time.monotonic(), None
    _waited.update(dict.fromkeys(_waited, 0.0))


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """In here the main thread, which is the one that computes, waits. What other threads wait for does not count."""
    global _waits
    if threading.get_ident() != threading.main_thread().ident:
        yield
        return
    since = time.monotonic()
    _waits = (what, since)
    try:
        yield
    finally:
        _waited[what] += time.monotonic() - since
        _waits = None


def spent() -> Spent:
    """Until now. Another thread may ask."""
    waited, waits, now = dict(_waited), _waits, time.monotonic()
    if waits:
        waited[waits[0]] += now - waits[1]
    return Spent(max(0.0, now - _began - sum(waited.values())), waited[IDLE], waited[BACKPRESSURED])
