"""Files that are whole or not there. The only module that may fsync or rename.

out.ndjson.7f3a.part   written, synced           out.ndjson   after one rename, then the directory is synced
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from hashlib import blake2b

from clickpipe.errors import ClickpipeError, OutsideError, PlanError, ReaderGone
from clickpipe.faults import kill_point
from clickpipe.stopping import forget, on_stop
from clickpipe.wire.pump import failure, write_all


class AtomicFile:
    """A file that appears under its name when it is complete. A device or pipe is written to as it is."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._part = path if is_special(path) else f"{os.path.realpath(path)}.{secrets.token_hex(2)}.part"
        flags = os.O_WRONLY if self._part == path else os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            self.descriptor = os.open(self._part, flags, 0o666)
        except OSError as error:
            raise PlanError(f"{path}: {error.strerror}", word=path) from None
        self._is_open = True
        on_stop(self.discard)

    def commit(self) -> None:
        """Make it durable, then visible. Raises DiskError."""
        try:
            if self._part != self.path:
                os.fsync(self.descriptor)
            self._is_open = False
            os.close(self.descriptor)
            if self._part != self.path:
                os.replace(self._part, os.path.realpath(self.path))
                sync_directory(os.path.dirname(os.path.realpath(self.path)))
        except OSError as error:
            raise outside(error, self.path) from None
        forget(self.discard)

    def discard(self) -> None:
        forget(self.discard)
        if self._is_open:
            with contextlib.suppress(OSError):
                os.close(self.descriptor)
        if self._part != self.path:
            with contextlib.suppress(OSError):
                os.unlink(self._part)


def write_whole(path: str, data: bytes, kind: str) -> None:
    """A file that is durable before it is seen under its name. `kind` names it to kill points. Raises DiskError."""
    part = f"{path}.{os.getpid()}.part"
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            kill_point(f"before-{kind}-write")
            write_all(descriptor, data)
            kill_point(f"before-{kind}-fsync")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        kill_point(f"before-{kind}-rename")
        os.replace(part, path)
        kill_point(f"after-{kind}-rename")
        sync_directory(os.path.dirname(path))
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise outside(error, path) from None


class StagedFile:
    """A file that is written under a name that nobody looks for, until it is published.

    `bytes` and `hash` (see state/manifest.py) are those of what was written so far.
    """

    def __init__(self, part: str) -> None:
        self._part, self._hash = part, blake2b(digest_size=16)
        self.bytes = 0
        try:
            self._descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise outside(error, part) from None

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Raises DiskError."""
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            raise outside(error, self._part) from None
        self._hash.update(data)
        self.bytes += len(data)

    def publish(self, path: str, kind: str) -> None:
        """Make it durable, then seen under its name. Raises DiskError."""
        try:
            kill_point(f"before-{kind}-fsync")
            os.fsync(self._descriptor)
            os.close(self._descriptor)
        except OSError as error:
            raise outside(error, self._part) from None
        kill_point(f"before-{kind}-rename")
        rename(self._part, path)
        kill_point(f"after-{kind}-rename")

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        with contextlib.suppress(OSError):
            os.unlink(self._part)


def rename(path: str, to: str) -> None:
    """Durably. Raises DiskError or OutsideError."""
    try:
        os.replace(path, to)
        sync_directory(os.path.dirname(to))
        if os.path.dirname(path) != os.path.dirname(to):
            sync_directory(os.path.dirname(path))
    except OSError as error:
        raise outside(error, to) from None


def make_folder(path: str) -> None:
    """Raises DiskError or OutsideError."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise outside(error, path) from None


def sync_folder(path: str) -> None:
    """Its entries survive from here. Raises DiskError."""
    try:
        sync_directory(path)
    except OSError as error:
        raise outside(error, path) from None


def sync_way(path: str) -> None:
    """The folder survives from here, with every folder on the way to it. Raises DiskError."""
    try:
        for above in _where_ours_may_be(os.path.realpath(path)):
            sync_directory(above)
        sync_directory(path)
    except OSError as error:
        raise outside(error, path) from None


def _where_ours_may_be(path: str) -> Iterator[str]:
    """Folders above in which we may have made the one below: it is ours, and no other disk begins there.

    That it is there already says nothing: a run that made it may have died before it was safe.
    """
    while path != (above := os.path.dirname(path)):
        status = os.stat(path)
        if status.st_uid != os.geteuid() or status.st_dev != os.stat(above).st_dev:
            return
        if os.access(above, os.R_OK):  # else it cannot be synced
            yield above
        path = above


def length_of(path: str) -> int:
    """Bytes; 0 for a file that is not there."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def append_at(path: str, at: int, data: bytes) -> int:
    """Make `data` what stands in the file from `at` on, durably; repeating it is harmless. The length after it.

    What is beyond `at` is of an append that was cut short, and goes. A file that is shorter was cut by someone else.
    """
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            at = min(at, os.fstat(descriptor).st_size)
            os.ftruncate(descriptor, at)
            kill_point("after-append-truncate")
            os.lseek(descriptor, at, os.SEEK_SET)
            write_all(descriptor, data)
            kill_point("before-append-fsync")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(os.path.dirname(path))
    except OSError as error:
        raise outside(error, path) from None
    if at == 0:  # its folder may be new
        sync_way(os.path.dirname(path))
    return at + len(data)


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
            if not is_special(self.path):
                os.fsync(descriptor)
            os.close(descriptor)
        except OSError as error:
            raise outside(error, self.path) from None


def remove(path: str) -> None:
    """Begin a file anew."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise outside(error, path) from None


def sync_output(descriptor: int, name: str) -> None:
    """What was written to it survives, if it is a file. Raises DiskError."""
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)
    except OSError as error:
        raise outside(error, name) from None


def sync_directory(path: str) -> None:
    descriptor = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def outside(error: OSError, path: str) -> ClickpipeError:
    kind = failure(error, path)
    return OutsideError(f"{path}: {error.strerror}") if isinstance(kind, ReaderGone) else kind


def is_special(path: str) -> bool:
    """Whether it is there and no regular file: a device, a pipe."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
