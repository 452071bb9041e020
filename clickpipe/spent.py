"""How the thread that computes spends its time: busy, idle (there is nothing to read), or backpressured (nobody takes what it
has written). Of this process, since `begin`; what it is busy with is told apart by steps.

    step 0 ────┐     ┌ step 0 ────┐              ┌ step 0
               └ 1 ──┘            └ waiting ─────┘           at any moment one of them
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

IDLE, BACKPRESSURED = "idle", "backpressured"

# What time has gone into, as far as it has been counted: steps by number, waits by name; what it goes into now, and since when.
_Account = tuple[dict[int | str, float], int | str, float]


@dataclass(frozen=True)
class Spent:
    """Unit: seconds. They add up to the time since the beginning. `steps`: what it was busy with, by their numbers."""

    busy: float = 0.0
    idle: float = 0.0
    backpressured: float = 0.0
    steps: tuple[float, ...] = ()


def begin() -> None:
    """Whatever was before does not count: what a process has from the one it was forked from, too. Step 0 begins."""
    global _account
    _account = _opened()


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """In here the main thread, which is the one that computes, waits. What other threads wait for does not count."""
    with working(what):
        yield


@contextmanager
def working(step: int | str) -> Iterator[None]:
    """In here it is busy with this step."""
    if threading.get_ident() != threading.main_thread().ident:
        yield
        return
    before = _turn(step)
    try:
        yield
    finally:
        _turn(before)


def spent(steps: int = 1) -> Spent:
    """Until now, of this many steps. Another thread may ask."""
    account = _account  # it is replaced, never changed
    counted, now, since = account
    found = {**counted, now: counted.get(now, 0.0) + max(0.0, time.monotonic() - since)}
    busy = tuple(found.get(step, 0.0) for step in range(steps))
    all_busy = sum(value for what, value in found.items() if what not in (IDLE, BACKPRESSURED))
    return Spent(all_busy, found.get(IDLE, 0.0), found.get(BACKPRESSURED, 0.0), busy)


def _turn(to: int | str) -> int | str:
    """From here on time goes into this. What it went into before."""
    global _account
    counted, before, since = _account
    now = time.monotonic()
    _account = {**counted, before: counted.get(before, 0.0) + now - since}, to, now
    return before


def _opened() -> _Account:
    return {}, 0, time.monotonic()


_account = _opened()
