"""Threads that keep a file descriptor busy while batches are computed.

    descriptor -> Inbox thread -> bounded queue -> the one thread that computes
    the one thread that computes -> bounded queue -> Outbox thread -> descriptor

Reading and writing release the interpreter's lock, and so does Polars: the three overlap.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import queue
import select
import stat
import threading
from collections.abc import Callable, Iterator

from clickpipe.errors import ClickpipeError, DiskError, OutsideError, ReaderGone, failed_call
from clickpipe.lines import Overlong
from clickpipe.spent import BACKPRESSURED, IDLE, waiting

CHUNK = 1 << 20
_PIPE = 1 << 20
_LOOK = 200  # milliseconds
_QUEUED_IN = 16  # chunks
_QUEUED_OUT = 3  # batches


class Arriving:
    """Chunks of bytes that a thread reads ahead. Memory: 16 MiB. `can_pause`: it is no file that has all there is."""

    can_pause = True
    received = 0  # bytes that have come
    _held = b""  # bytes that were looked at and put back
    _is_at_end = False
    is_trusted = True  # who writes it could read and write our files anyway

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.Queue[bytes | OSError | tuple[Overlong, ...]] = queue.Queue(_QUEUED_IN)
        self._given_up: tuple[Overlong, ...] = ()

    def get(self, timeout: float | None = None) -> bytes | None:
        """The next chunk; empty at the end of the input; None when `timeout` seconds passed without one, and for lines that
        were given up."""
        if self._held:
            held, self._held = self._held, b""
            return held
        if self._is_at_end:
            return b""
        try:
            with waiting(IDLE):
                chunk = self._queue.get(timeout=timeout) if timeout is None or timeout > 0 else self._queue.get_nowait()
        except queue.Empty:
            return None
        if isinstance(chunk, tuple):
            self._given_up += chunk
            return None
        if isinstance(chunk, OSError):
            raise ReaderGone if chunk.errno == errno.EPIPE else OutsideError(f"{self._name}: {chunk.strerror}")
        self._is_at_end = not chunk
        self.received += len(chunk)
        return chunk

    @property
    def has_given_up(self) -> bool:
        """Whether lines wait for `take_given_up`."""
        return bool(self._given_up)

    def take_given_up(self) -> tuple[Overlong, ...]:
        """Lines that became no records, since the last call."""
        taken, self._given_up = self._given_up, ()
        return taken

    def gather(self, lines: int, quiet: float) -> None:
        """Wait until this many lines have come, or 16 MiB, or nothing for `quiet` seconds after the first bytes; all are read
        again."""
        held = [self.get() or b""]
        came, size = held[0].count(b"\n"), len(held[0])
        while came < lines and size < _QUEUED_IN * CHUNK and (chunk := self.get(quiet)):
            held.append(chunk)
            came, size = came + chunk.count(b"\n"), size + len(chunk)
        self.put_back(b"".join(held))

    @property
    def is_at_end(self) -> bool:
        """Whether the end of the input was seen by `get`."""
        return self._is_at_end

    def read_ahead(self) -> Iterator[bytes]:
        """What has come already, and nothing that would have to be waited for."""
        for _ in range(_QUEUED_IN + 1):
            chunk = self.get(0)
            if not chunk:
                return
            yield chunk

    def give_up(self) -> None:
        """Whoever waits for input hears that nobody wants what is made of it. One that has input finds out by itself."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(OSError(errno.EPIPE, "reader gone"))

    def put_back(self, data: bytes) -> None:
        """These bytes, which were looked at, are read again before all others."""
        self._held = data

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.get():
            yield chunk


class Inbox(Arriving):
    """Those of a descriptor."""

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(name)
        self._descriptor = descriptor
        self.can_pause = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        _widen(descriptor)
        threading.Thread(target=self._read, daemon=True, name="inbox").start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._descriptor, CHUNK)
            except OSError as error:
                self._queue.put(error)
                return
            self._queue.put(chunk)
            if not chunk:
                return


class Outbox:
    """Bytes to a descriptor, written behind. Memory: three batches. `sent`: how many were put."""

    sent = 0

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor, self._name = descriptor, name
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUED_OUT)
        self._failure: OSError | None = None
        _widen(descriptor)
        self._thread = threading.Thread(target=self._write, daemon=True, name="outbox")
        self._thread.start()

    def put(self, data: bytes) -> None:
        """Raises ReaderGone, DiskError or OutsideError for an earlier write too."""
        self._check()
        self.sent += len(data)
        if data:
            with waiting(BACKPRESSURED):
                self._queue.put(data)

    def flush(self) -> None:
        """Wait until all that was put has been written. Raises like `put`."""
        self._queue.join()
        self._check()

    def close(self) -> None:
        """Wait until everything is written."""
        with waiting(BACKPRESSURED):
            self._queue.put(None)
            self._thread.join()
        self._check()

    def _write(self) -> None:
        while (data := self._queue.get()) is not None:
            if self._failure is None:
                try:
                    write_all(self._descriptor, data)
                except OSError as error:
                    self._failure = error
            self._queue.task_done()

    def _check(self) -> None:
        if self._failure is not None:
            raise failure(self._failure, self._name)


def when_reader_leaves(descriptor: int, tell: Callable[[], None]) -> None:
    """Call `tell` when whoever reads a pipe of ours has left: a process that has nothing to write would not notice."""
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return

    def watch() -> None:
        poll = select.poll()
        poll.register(descriptor, 0)
        while not (found := poll.poll(_LOOK)):  # a wait without an end would hold the pipe open when we close it
            pass
        if found[0][1] & select.POLLERR:
            tell()

    threading.Thread(target=watch, daemon=True, name="reader-watch").start()


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def failure(error: OSError, name: str) -> ClickpipeError | ReaderGone:
    """What a failed write means."""
    if error.errno in (errno.EPIPE, errno.ECONNRESET):
        return ReaderGone()
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS):
        return DiskError(f"{name}: {error.strerror}")
    return failed_call(name, error)


def _widen(descriptor: int) -> None:
    """A pipe of 1 MiB instead of 64 KiB: fewer switches between processes."""
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE)
