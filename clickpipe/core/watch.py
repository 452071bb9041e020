"""Paths and globs that are followed: what has been appended, in which file, and which files are new.

A file is read once, whatever names it is found under.
"""

from __future__ import annotations

import glob
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from clickpipe.core.beside import Listing
from clickpipe.core.eventtime import EventTime
from clickpipe.core.format import Format
from clickpipe.core.generation import opened
from clickpipe.core.packing import MAGIC_BYTES, is_packed
from clickpipe.core.tail import Met, Tail
from clickpipe.core.watched import Watched
from clickpipe.errors import Caution, PlanError
from clickpipe.lines import Block

LOOK = 0.1  # seconds between two looks at a path
SCAN = 1.0  # and at a glob


class Watch(Watched):
    """`taken`: the bytes that the last round has read. Raises PlanError for what cannot be followed."""

    def __init__(
        self,
        addresses: tuple[str, ...],
        form: Format,
        time: EventTime,
        say: Callable[[str], None],
        *,
        is_bounded: bool = False,
    ) -> None:
        """`is_bounded`: no more than is there when reading begins."""
        self._addresses, self._format, self._time, self._say = addresses, form, time, say
        self._is_bounded = is_bounded
        self.tails: list[Tail] = []
        self._next_look = self._next_scan = 0.0
        self._passed: set[str] = set()
        self._met: Met = {}
        for address in addresses:
            if not is_glob(address):
                _check(address)

    def begin(self) -> None:
        self._add()
        self._bound()
        for tail in () if self._is_bounded else self.tails:
            if tail.is_done and tail.name in self._addresses:
                self._say(f"waiting for {tail.name}")
        for address in () if self._is_bounded else filter(is_glob, self._addresses):
            if not glob.glob(address, recursive=True):
                self._say(f"waiting for a file that matches {address}")

    def restore(self, splits: list[Mapping[str, Any]]) -> None:
        """All files that were being read are found before anything else is taken for new."""
        for said in splits:
            self.tails.append(self._tail(str(said["name"])))
            self.tails[-1].restore(said)
        for tail in self.tails:
            tail.look(self)
        self._add()
        self._bound()

    def _tail(self, path: str) -> Tail:
        return Tail(path, self._format, self._time, self._say, self._met)

    def _bound(self) -> None:
        for tail in self.tails if self._is_bounded else ():
            tail.bound()

    @property
    def is_over(self) -> bool:
        return self._is_bounded and all(tail.is_caught_up for tail in self.tails)

    def knows(self, file: int) -> bool:
        """Whether a file is read already, or was, under any name."""
        return any(tail.knows(file) for tail in self._met.get(os.fstat(file).st_ino, ()))

    def blocks(self, at_most: int) -> Iterator[tuple[Tail, Block]]:
        """One round: of each path that has something new, the next records."""
        self._look()
        self.taken = 0
        for tail in self.tails:
            block = tail.read(at_most, self)
            self.taken += tail.taken
            if block:
                yield tail, block

    def sample(self, at_most: int) -> Iterator[Block]:
        self._look()
        return (block for tail in self.tails if (block := tail.peek(at_most)))

    def rewind(self) -> None:
        for tail in self.tails:
            tail.rewind()

    def left(self) -> int:
        return sum(one.size - one.offset for tail in self.tails for one in tail.generations)

    def close(self) -> None:
        for tail in self.tails:
            tail.close()

    def _look(self) -> None:
        now = time.monotonic()
        if self._is_bounded or now < self._next_look:
            return
        self._next_look = now + LOOK
        for tail in self.tails:
            tail.look(self)
        if now >= self._next_scan:
            self._next_scan = now + SCAN
            self._add()

    def _add(self) -> None:
        """Paths that are not followed yet."""
        old = {tail.name: tail for tail in self.tails}
        new = [self._tail(path) for path in self._paths(old) if path not in old]
        for tail in new:
            tail.open(self)
            self.tails.append(tail)
        listing = Listing()
        for tail in new:
            tail.ignore_others(self, listing)

    def _paths(self, old: Mapping[str, Tail]) -> list[str]:
        found: list[str] = []
        for address in self._addresses:
            if is_glob(address):
                found += [path for path in sorted(glob.glob(address, recursive=True)) if self._is_new(path, old)]
            else:
                found.append(address)
        return list(dict.fromkeys(found))

    def _is_new(self, path: str, old: Mapping[str, Tail]) -> bool:
        """Whether a path that a glob matches has a file that nobody reads."""
        if path in self._passed or path in old or os.path.isdir(path):
            return False
        with suppress(FileNotFoundError):
            if reason := _unfit(path):
                self._passed.add(path)
                self._say(Caution(f"{path} {reason}, and is passed over"))
                return False
            file = opened(path)
            try:
                return not self.knows(file) and not _is_copy(path, file, old)
            finally:
                os.close(file)
        return False


def _is_copy(path: str, file: int, old: Mapping[str, Tail]) -> bool:
    """Whether it is a copy of what is read under a shorter name, or may become one."""
    of = [old[path[:at]] for at, sign in enumerate(path) if sign in ".-" and path[:at] in old]
    return any(not os.fstat(file).st_size or tail.is_copied_in(file) for tail in of)


def is_glob(address: str) -> bool:
    return glob.has_magic(address) and not os.path.lexists(address)


def _check(path: str) -> None:
    """Raises PlanError for a file that cannot be followed. One that is not there may come."""
    try:
        reason = _unfit(path)
    except FileNotFoundError:
        return
    if reason:
        raise PlanError(f"{path} {reason}: --follow is for plain files", word=path)


def _unfit(path: str) -> str:
    """Why a file cannot be followed, if it cannot."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        return "is a directory"
    if not stat.S_ISREG(mode):
        return "is a pipe or a device"
    file = opened(path)
    try:
        return "is packed" if is_packed(os.pread(file, MAGIC_BYTES, 0)) else ""
    finally:
        os.close(file)
