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

# The beginning, idle, backpressured; what is waited for, and since when.
_Account = tuple[float, float, float, str, float]


@dataclass(frozen=True)
class Spent:
    """Unit: seconds. They add up to the time since the beginning."""

    busy: float = 0.0
    idle: float = 0.0
    backpressured: float = 0.0


def begin() -> None:
    """Whatever was before does not count: what a process has from the one it was forked from, too."""
    global _account
    _account = _opened()


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """In here the main thread, which is the one that computes, waits. What other threads wait for does not count."""
    global _account
    if threading.get_ident() != threading.main_thread().ident:
        yield
        return
    _account = (*_account[:3], what, time.monotonic())
    try:
        yield
    finally:
        _account = _until(_account, time.monotonic())


def spent() -> Spent:
    """Until now. Another thread may ask."""
    account, now = _account, time.monotonic()  # it is replaced, never changed
    began, idle, backpressured, _, _ = _until(account, now)
    return Spent(max(0.0, now - began - idle - backpressured), idle, backpressured)


def _opened() -> _Account:
    return time.monotonic(), 0.0, 0.0, "", 0.0


def _until(account: _Account, now: float) -> _Account:
    """With the wait that goes on, as far as it has come."""
    began, idle, backpressured, what, since = account
    idle += max(0.0, now - since) if what == IDLE else 0
    backpressured += max(0.0, now - since) if what == BACKPRESSURED else 0
    return began, idle, backpressured, "", 0.0


_account = _opened()
