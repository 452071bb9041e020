"""What must be cleared away when a signal ends this process at once.

A signal may come in the middle of an import or inside Polars, where an exception does harm; so its
handler calls `clean_up` and leaves. Nothing here may block or raise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

_CLEANUPS: list[Callable[[], None]] = []


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
