"""Files that are whole or not there. The only module that may fsync or rename.

out.ndjson.7f3a.part   written, synced           out.ndjson   after one rename, then the directory is synced

What a failed call means
    open, mkdir, write   the disk is full: tried again by those who have patience (space.py); else a failure
    fsync                this file is never trusted again. What is still in memory may go into a new one
    rename, directory    unknown: it may have happened. Nothing is deleted, and the next run looks at what is there
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import blake2b

from clickpipe.errors import ClickpipeError, OutsideError, PlanError, ReaderGone, StateError
from clickpipe.faults import kill_point, may_fail
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.state.trust import link_refused
from clickpipe.stopping import forget, on_stop
from clickpipe.wire.pump import failure, write_all


class AtomicFile:
    """A file that appears under its name when it is complete. A device or pipe is written to as it is."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._part = path if is_special(path) else f"{os.path.realpath(path)}.{secrets.token_hex(2)}.part"
        flags = os.O_WRONLY if self._part == path else os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            self.descriptor = _open(self._part, flags, 0o666)
        except OSError as error:
            raise PlanError(f"{path}: {error.strerror}", word=path) from None
        self._is_open = True
        on_stop(self.discard)

    def commit(self) -> None:
        """Make it durable, then visible. Raises DiskError."""
        try:
            if self._part != self.path:
                _fsync(self.descriptor)
            self._is_open = False
            _close(self.descriptor)
            if self._part != self.path:
                may_fail("replace")
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


def write_whole(path: str, data: bytes, kind: str, patience: Patience = NO_PATIENCE) -> None:
    """A file that is durable before it is seen under its name. `kind` names it to kill points. Raises DiskError."""
    part = f"{path}.{os.getpid()}.part"
    try:
        patience(path, lambda: _write_new(part, data, kind))
    except OSError as error:
        raise outside(error, path) from None
    kill_point(f"before-{kind}-rename")
    rename(part, path)
    kill_point(f"after-{kind}-rename")


def write_fleeting(path: str, data: bytes, mode: int = 0o600) -> None:
    """A file that is seen whole under its name, and need not survive. Raises DiskError."""
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode), "wb", buffering=0) as file:
            write_all(file.fileno(), data)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise outside(error, path) from None


def _write_new(path: str, data: bytes, kind: str) -> None:
    """A new file, durable. What fails leaves none behind: after a failed fsync it must not be found."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = _open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            kill_point(f"before-{kind}-write")
            _write(path, descriptor, data)
            kill_point(f"before-{kind}-fsync")
            _fsync(descriptor)
        finally:
            _close(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


class StagedFile:
    """A file that is written under a name that nobody looks for, until it is published.

    `bytes` and `hash` (see state/manifest.py) are those of what was written so far.
    """

    def __init__(self, part: str, patience: Patience = NO_PATIENCE, *, mode: int = 0o666) -> None:
        self._part, self._hash, self._patience = part, blake2b(digest_size=16), patience
        self.bytes = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        try:
            self._descriptor = patience(part, lambda: _open(part, flags, mode))
        except OSError as error:
            raise outside(error, part) from None

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Raises DiskError."""
        try:
            _write(self._part, self._descriptor, data, self._patience)
        except OSError as error:
            raise outside(error, self._part) from None
        self._hash.update(data)
        self.bytes += len(data)

    def publish(self, path: str, kind: str) -> None:
        """Make it durable, then seen under its name. Raises DiskError."""
        try:
            kill_point(f"before-{kind}-fsync")
            _fsync(self._descriptor)
            _close(self._descriptor)
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
        may_fail("replace")
        os.replace(path, to)
        sync_directory(os.path.dirname(to))
        if os.path.dirname(path) != os.path.dirname(to):
            sync_directory(os.path.dirname(path))
    except OSError as error:
        raise outside(error, to) from None


def rename_all(pairs: Mapping[str, str]) -> None:
    """Each to a name in the same folder, durably; a folder is synced once. Raises DiskError or OutsideError."""
    for path, to in pairs.items():
        try:
            may_fail("replace")
            os.replace(path, to)
        except OSError as error:
            raise outside(error, to) from None
    for folder in dict.fromkeys(map(os.path.dirname, pairs.values())):
        sync_folder(folder)


def sync_file(path: str) -> None:
    """What a library has written there survives from here. Raises DiskError."""
    try:
        descriptor = _open(path, os.O_RDONLY | os.O_NOFOLLOW, 0o600)
        try:
            _fsync(descriptor)
        finally:
            _close(descriptor)
    except OSError as error:
        raise outside(error, path) from None


def copy_file(path: str, to: str) -> None:
    """Durable under its new name, for its owner only. Raises StateError for one that is gone, DiskError."""
    try:
        with open(path, "rb") as file:
            staged = StagedFile(f"{to}.{os.getpid()}.part", mode=0o600)
            while chunk := file.read(1 << 20):
                staged.write(chunk)
    except FileNotFoundError:
        raise StateError(f"{path} is gone") from None
    except OSError as error:
        raise outside(error, path) from None
    staged.publish(to, "copy")


def cut(path: str, length: int) -> None:
    """The file ends there, durably. Raises DiskError."""
    try:
        descriptor = _open(path, os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        try:
            may_fail("ftruncate")
            os.ftruncate(descriptor, length)
            _fsync(descriptor)
        finally:
            _close(descriptor)
    except OSError as error:
        raise outside(error, path) from None


def hold(path: str, patience: Patience = NO_PATIENCE) -> int:
    """A descriptor while which is open no other pipeline may write there. Raises OutsideError while another one does."""
    try:
        patience(path, lambda: _make_folders(os.path.dirname(path)))
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = patience(path, lambda: _open(path, flags, 0o600))
    except OSError as error:
        raise outside(error, path) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OutsideError(f"{path} is written by another pipeline", hint="give each one a file of its own") from None
    return descriptor


def hold_patiently(path: str, patience: Patience = NO_PATIENCE) -> int:
    """A descriptor while which is open nobody else holds this lock; others are waited for."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = patience(path, lambda: _open(path, flags, 0o600))
    except OSError as error:
        raise outside(error, path) from None
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def make_folder(path: str, patience: Patience = NO_PATIENCE) -> None:
    """Raises DiskError or OutsideError."""
    try:
        patience(path, lambda: _make_folders(path))
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


def append_at(path: str, at: int, data: bytes, patience: Patience = NO_PATIENCE) -> int:
    """Make `data` what stands in the file from `at` on, durably; repeating it is harmless. The length after it.

    What is beyond `at` is of an append that was cut short, and goes. A file that is shorter was cut by someone else.
    """
    try:
        patience(path, lambda: _make_folders(os.path.dirname(path)))
        descriptor = patience(path, lambda: _open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        try:
            at = min(at, os.fstat(descriptor).st_size)
            may_fail("ftruncate")
            os.ftruncate(descriptor, at)
            kill_point("after-append-truncate")
            os.lseek(descriptor, at, os.SEEK_SET)
            _write(path, descriptor, data, patience)
            kill_point("before-append-fsync")
            _fsync(descriptor)
        finally:
            _close(descriptor)
        sync_directory(os.path.dirname(path))
    except OSError as error:
        raise outside(error, path) from None
    if at == 0:  # its folder may be new
        sync_way(os.path.dirname(path))
    return at + len(data)


class GrowingFile:
    """A file that is appended to by one process, in pieces that are there whole or not at all.

    `at`: its length; what is beyond it is of an append that was cut short, and goes.
    """

    def __init__(self, path: str, at: int, patience: Patience = NO_PATIENCE) -> None:
        self.path, self.at, self._patience = path, at, patience
        self._durable = at
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = patience(path, lambda: _open(path, flags, 0o600))
            if os.fstat(self._descriptor).st_size != at:
                self._cut()
            _fsync(self._descriptor)  # it is taken for what is there, and whoever wrote it may have died before it was durable
            sync_directory(os.path.dirname(path))  # whoever made it may have died before
        except OSError as error:
            raise outside(error, path) from None

    def append(self, data: bytes) -> None:
        """Not durable yet. Raises DiskError, and then nothing of it is there."""
        try:
            os.lseek(self._descriptor, self.at, os.SEEK_SET)
            _write(self.path, self._descriptor, data, self._patience)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._cut()
            raise outside(error, self.path) from None
        self.at += len(data)

    def sync(self) -> None:
        """All that was appended survives from here. Raises DiskError; then nothing more may be appended, and what has failed is
        taken away: after a failed fsync it looks as if it were on the disk."""
        try:
            _fsync(self._descriptor)
        except OSError as error:
            self.at = self._durable
            with contextlib.suppress(OSError):
                self._cut()
            raise outside(error, self.path) from None
        self._durable = self.at

    def close(self) -> None:
        _close(self._descriptor)

    def _cut(self) -> None:
        may_fail("ftruncate")
        os.ftruncate(self._descriptor, self.at)


class AppendFile:
    """A file that lines are added to; it is made when the first line comes. Several processes may share it.

    A link is followed to a device or pipe only.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if is_special(path) else os.O_NOFOLLOW)
        self._descriptor: int | None = None

    def append(self, lines: bytes) -> None:
        """Whole lines, in one piece. Raises DiskError or OutsideError."""
        try:
            if self._descriptor is None:
                _make_folders(os.path.dirname(os.path.abspath(self.path)))
                self._descriptor = _open(self.path, self._flags, 0o600)
            _write(self.path, self._descriptor, lines)
        except OSError as error:
            raise outside(error, self.path) from None

    def close(self) -> None:
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            if not is_special(self.path):
                _fsync(descriptor)
            _close(descriptor)
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
            _fsync(descriptor)
    except OSError as error:
        raise outside(error, name) from None


def sync_directory(path: str) -> None:
    descriptor = os.open(path or ".", os.O_RDONLY)
    try:
        _fsync(descriptor)
    finally:
        os.close(descriptor)


def outside(error: OSError, path: str) -> ClickpipeError:
    if error.errno == errno.ELOOP:
        return link_refused(path)
    kind = failure(error, path)
    return OutsideError(f"{path}: {error.strerror}") if isinstance(kind, ReaderGone) else kind


def is_special(path: str) -> bool:
    """Whether it is there and no regular file: a device, a pipe."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


# The calls themselves, each of which a test can make fail.


def _make_folders(path: str) -> None:
    if not os.path.isdir(path):
        may_fail("mkdir")
    os.makedirs(path, mode=0o700, exist_ok=True)


def _open(path: str, flags: int, mode: int) -> int:
    may_fail("open")
    return os.open(path, flags, mode)


def _write(path: str, descriptor: int, data: bytes, patience: Patience = NO_PATIENCE) -> None:
    """All of it. Where the disk was full it goes on with the rest."""
    view = memoryview(data)
    while view:
        view = view[patience(path, partial(_write_some, descriptor, view)) :]


def _write_some(descriptor: int, data: memoryview) -> int:
    may_fail("write")
    return os.write(descriptor, data)


def _fsync(descriptor: int) -> None:
    may_fail("fsync", descriptor)
    os.fsync(descriptor)


def _close(descriptor: int) -> None:
    os.close(descriptor)
    may_fail("close")
