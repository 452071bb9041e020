"""Keep freed memory for the next batch.

Every batch needs a few blocks of some MiB. Left to itself, the C library gives each back to the kernel
and asks for it again, and the kernel fills it with zeros page by page: a third of a `window` process's
time, measured. Memory in use stays the same; what was used once stays with the process.
"""

from __future__ import annotations

import contextlib

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def keep_freed_memory() -> None:
    """Does nothing where the C library is not glibc."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_TRIM_THRESHOLD, 512 << 20)
        libc.mallopt(_ARENA_MAX, 1)
