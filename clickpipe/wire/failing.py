"""The last word of a process that fails: whoever reads its stream fails too, and need not guess at the reason."""

from __future__ import annotations

import contextlib
import os
import select
import stat

from clickpipe.wire import codec
from clickpipe.wire.frames import Failed


def pass_on_failure(descriptor: int) -> None:
    """Into a pipe, if it can be written to at once. A reader that is not ready sees an early end."""
    with contextlib.suppress(OSError, ValueError):
        ready = select.poll()
        ready.register(descriptor, select.POLLOUT)
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode) and ready.poll(0):
            os.write(descriptor, codec.encode(Failed()))
