"""How many files a process may have open: one for each client, and for each file that is followed or waits for its turn."""

from __future__ import annotations

import resource
from contextlib import suppress

_WANTED = 1 << 16
_RESERVED = 100  # for all else that a pipeline has open


def allowed() -> int:
    """The soft limit, raised as far as a process may raise it by itself, since nothing here uses select with descriptors that it
    could be too small for. Source: systemd.exec(5), LimitNOFILE."""
    soft, hard = (_WANTED if one == resource.RLIM_INFINITY else one for one in resource.getrlimit(resource.RLIMIT_NOFILE))
    wanted = min(hard, _WANTED)
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            return wanted
    return soft


def spare() -> int:
    """How many of them files may take that wait for their turn."""
    return max(0, allowed() - _RESERVED)
