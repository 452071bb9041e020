"""Named places at which a test can kill this process. They stand where checkpoints are, not on the way of records.

CLICKPIPE_KILL_POINT=after-manifest-rename     dies there at the first pass
CLICKPIPE_KILL_POINT=before-commit:3           dies there at the third
"""

from __future__ import annotations

import os
import signal

_passes = 0


def kill_point(name: str) -> None:
    """Die here, as if by kill -9, if this is the place that was asked for."""
    global _passes
    wanted, _, number = os.environ.get("CLICKPIPE_KILL_POINT", "").partition(":")
    if name != wanted:
        return
    _passes += 1
    if _passes == int(number or 1):
        os.kill(os.getpid(), signal.SIGKILL)
