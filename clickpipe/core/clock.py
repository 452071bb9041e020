"""The wall clock, as sources ask for it: when records arrive, and for how long nothing has come.

A test of a recipe says what time it is (sources/given.py); nobody else does, and nothing waits for that clock.
"""

from __future__ import annotations

import time

_said: int | None = None


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1_000) if _said is None else _said


def ticks() -> int:
    """Milliseconds of a clock that never goes back."""
    return time.monotonic_ns() // 1_000_000 if _said is None else _said


def stand_at(milliseconds: int) -> None:
    """From here on it is this time, until it is another."""
    global _said
    _said = milliseconds
