"""A full disk is waited for: a checkpoint is delayed, not dropped.

    write --ENOSPC--> say so once, pause, try again …        in the thread that writes
                      meanwhile the stream goes on, until as many checkpoints as may be are on their way

A person frees space, and all goes on by itself. A signal ends the process at any time, since its handler leaves at once.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from clickpipe.errors import Caution, ReaderGone

T = TypeVar("T")

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHORTEST, _LONGEST = 0.01, 1.0  # seconds between two tries


class Space:
    """Waits for space on behalf of all threads of a process.

    `say`: tells a person. `output`: a descriptor; when its reader has left, nobody waits any longer.
    """

    def __init__(self, say: Callable[[str], None], output: int | None = None) -> None:
        self.say, self._output = say, output
        self._lock = threading.Lock()
        self._waiting: dict[str, int] = {}  # threads by the mount point that they wait for
        self._given_up = threading.Event()

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits now. For signal handlers too."""
        return any(list(self._waiting.values()))

    def give_up(self) -> None:
        """The run has failed: a full disk is a failure from here on."""
        self._given_up.set()

    def keep_trying(self, what: str, path: str, attempt: Callable[[], T]) -> T:
        """What `attempt` gives once the disk of `path` is not full. It must begin anew, or go on, each time that it is called.

        Raises what else `attempt` raises; ReaderGone.
        """
        try:
            return attempt()
        except OSError as error:
            if error.errno not in _FULL or self._given_up.is_set():
                raise
            full = _mount_point(path)
            self._begin(what, full, error)
        try:
            result = self._tried_again(attempt)
        except BaseException:
            self._end(full, "")
            raise
        self._end(full, what)
        return result

    def _tried_again(self, attempt: Callable[[], T]) -> T:
        pause = _SHORTEST
        while True:
            self._given_up.wait(pause)
            if self._output is not None and _reader_is_gone(self._output):
                raise ReaderGone
            try:
                return attempt()
            except OSError as error:
                if error.errno not in _FULL or self._given_up.is_set():
                    raise
            pause = min(2 * pause, _LONGEST)

    def _begin(self, what: str, full: str, error: OSError) -> None:
        with self._lock:
            self._waiting[full] = self._waiting.get(full, 0) + 1
            if self._waiting[full] == 1:
                self.say(Caution(f"{what} waits for space on {full}: {error.strerror}"))

    def _end(self, full: str, what: str) -> None:
        """One thread less. The last one tells: the others may have got what little space there was."""
        with self._lock:
            self._waiting[full] -= 1
            if what and not self._waiting[full]:
                self.say(f"there is space on {full} again: {what} goes on")


@dataclass(frozen=True)
class Patience:
    """For whom a write waits. Without `space` it does not: a full disk is a failure."""

    what: str = ""
    space: Space | None = None

    def __call__(self, path: str, attempt: Callable[[], T]) -> T:
        return self.space.keep_trying(self.what, path, attempt) if self.space else attempt()


NO_PATIENCE = Patience()


def _mount_point(path: str) -> str:
    """What `df` shows for it."""
    path = os.path.realpath(path)
    while not os.path.ismount(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _reader_is_gone(output: int) -> bool:
    poll = select.poll()
    poll.register(output, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
