"""A folder on the file system where state lies, for trying things out. Nothing of it stays."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from clickpipe.stopping import forget, on_stop


def standing(path: str) -> str:
    """The folder itself, or the nearest above it that there is: it would be made there."""
    path = os.path.realpath(path)
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


@contextmanager
def trial(home: str) -> Iterator[str]:
    """Raises OSError where none can be made."""
    folder = tempfile.mkdtemp(prefix=".doctor-", dir=standing(home))

    def clean() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    on_stop(clean)
    try:
        yield folder
    finally:
        forget(clean)
        clean()
