"""Files that are whole or not there. The only module that may fsync or rename.

out.ndjson.7f3a.part   written, synced           out.ndjson   after one rename, then the directory is synced
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat

from clickpipe.errors import ClickpipeError, OutsideError, PlanError, ReaderGone
from clickpipe.stopping import forget, on_stop
from clickpipe.wire.pump import failure, write_all


class AtomicFile:
    """A file that appears under its name when it is complete. A device or pipe is written to as it is."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._part = path if _is_special(path) else f"{os.path.realpath(path)}.{secrets.token_hex(2)}.part"
        flags = os.O_WRONLY if self._part == path else os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            self.descriptor = os.open(self._part, flags, 0o666)
        except OSError as error:
            raise PlanError(f"{path}: {error.strerror}", word=path) from None
        on_stop(self.discard)

    def commit(self) -> None:
        """Make it durable, then visible. Raises DiskError."""
        try:
            if self._part != self.path:
                os.fsync(self.descriptor)
            os.close(self.descriptor)
            if self._part != self.path:
                os.replace(self._part, os.path.realpath(self.path))
                sync_directory(os.path.dirname(os.path.realpath(self.path)))
        except OSError as error:
            raise outside(error, self.path) from None
        forget(self.discard)

    def discard(self) -> None:
        forget(self.discard)
        with contextlib.suppress(OSError):
            os.close(self.descriptor)
        if self._part != self.path:
            with contextlib.suppress(OSError):
                os.unlink(self._part)


class AppendFile:
    """A file that lines are added to; it is made when the first line comes. Several processes may share it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor: int | None = None

    def append(self, lines: bytes) -> None:
        """Whole lines, in one piece. Raises DiskError or OutsideError."""
        try:
            if self._descriptor is None:
                os.makedirs(os.path.dirname(os.path.abspath(self.path)), mode=0o700, exist_ok=True)
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            write_all(self._descriptor, lines)
        except OSError as error:
            raise outside(error, self.path) from None

    def close(self) -> None:
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            if not _is_special(self.path):
                os.fsync(descriptor)
            os.close(descriptor)
        except OSError as error:
            raise outside(error, self.path) from None


def remove(path: str) -> None:
    """Begin a file anew."""
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise outside(error, path) from None


def sync_directory(path: str) -> None:
    descriptor = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def outside(error: OSError, path: str) -> ClickpipeError:
    kind = failure(error, path)
    return OutsideError(f"{path}: {error.strerror}") if isinstance(kind, ReaderGone) else kind


def _is_special(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
