"""What a process must be allowed before it begins."""

from __future__ import annotations

import resource

from clickpipe.errors import OutsideError

_FILES = 20  # Python, Polars, the streams, a state file and its directory; with fewer Polars panics in its threads


def need_open_files() -> None:
    """Raises OutsideError where too few files may be open at once."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= allowed < _FILES:
        raise OutsideError(f"only {allowed} files may be open at once", hint="ulimit -n raises the limit of this shell")
