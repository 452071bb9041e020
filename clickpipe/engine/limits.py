"""What a process must be allowed before it begins, and how much it takes."""

from __future__ import annotations

import os

from clickpipe.core import openfiles
from clickpipe.core.cores import cores
from clickpipe.errors import OutsideError

FILES = 20  # Python, Polars, the streams, a state file and its directory; with fewer Polars panics in its threads


def need_open_files() -> None:
    """Raises OutsideError where too few files may be open at once."""
    openfiles.raise_limit()
    if (most := openfiles.allowed()) < FILES:
        raise OutsideError(f"only {most} files may be open at once", hint="ulimit -n raises the limit of this shell")


def share_the_cores(processes: int) -> None:
    """Of so many that compute at once each takes its part of the cores, so that they do not fight. Before Polars is loaded."""
    os.environ.setdefault("POLARS_MAX_THREADS", str(max(1, cores() // processes)))
