"""How many files a process may have open: one for each client, and for each file that is followed or waits for its turn."""

from __future__ import annotations

import resource
from contextlib import suppress

_WANTED = 1 << 16
_RESERVED = 100  # for all else that a pipeline has open


def raise_limit() -> None:
    """The soft one, as far as a process may raise it by itself: nothing here uses select, for which descriptors may be too great.

    Source: systemd.exec(5), LimitNOFILE.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def allowed() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _WANTED if soft == resource.RLIM_INFINITY else soft


def spare() -> int:
    """How many of them files may take that wait for their turn."""
    return max(0, allowed() - _RESERVED)
