"""A path that is followed: the records of its file, then of the file that takes its place, and so on.

    app.log      generation 3     what has the path now
    app.log.1    generation 2     renamed between two looks: found by its name and because nobody knows it
    app.log.2    generation 1     being read, to its end, through its descriptor

A file is left for the next one when it has given nothing for a second: its writer may go on for a moment.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from clickpipe.core.eventtime import EventTime
from clickpipe.core.format import Format
from clickpipe.core.generation import Generation, fits, has_mark, mark, opened
from clickpipe.core.packing import MAGIC_BYTES, is_packed
from clickpipe.errors import StateError
from clickpipe.lines import Block

QUIET = 1.0  # seconds
SCAN = 1.0  # seconds between two looks for other files, while none has the path
_ROTATED = re.compile(r"[.-](\d[\dT:_.+-]*Z?|old|prev)")  # app.log.1, app.log-20260301, app.log.2026-03-01T09


class Known(Protocol):
    """What is read already, by any of the followed paths."""

    def knows(self, file: int) -> bool: ...


class Tail:
    """One split. `say`: what a person should know."""

    def __init__(self, name: str, form: Format, time: EventTime, say: Callable[[str], None]) -> None:
        self.name, self._format, self._say = name, form, say
        self.clock = time.clock(is_live=True)
        self.has_given = False  # records, so that the others wait for its watermark
        self.generations: deque[Generation] = deque()
        self.past: list[Mapping[str, Any]] = []  # files beside it that are not to be read again
        self.taken = 0  # bytes
        self.changes = 0  # of its files, which a checkpoint must know of
        self._said: set[str] = set()
        self._next_scan = 0.0

    @property
    def is_done(self) -> bool:
        """Whether it has no file, and so holds nothing back."""
        return not self.generations

    def say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    # What has the path.

    def open(self, known: Known) -> None:
        """Begin with the file that has the path now, if there is one."""
        with suppress(FileNotFoundError):
            self._succeed(known, has_predecessors=False)

    def ignore_others(self, known: Known) -> None:
        """What stands beside the path by now, and is not followed, is not of it."""
        for file in self._beside(known):
            self.past.append(mark(file))
            os.close(file)

    def look(self, known: Known) -> None:
        """See what has the path now, and what had it since the last look."""
        newest = self.generations[-1] if self.generations else None
        status = _status(self.name)
        if status is not None and newest is not None and status.st_ino == newest.inode:
            newest.left = None
            return
        if status is not None and stat.S_ISREG(status.st_mode):
            with suppress(FileNotFoundError):  # gone again
                self._succeed(known)
        elif time.monotonic() >= self._next_scan:
            self._next_scan = time.monotonic() + SCAN
            self._take_missed(known)
        if newest is not None and newest.left is None and (newest is not self.generations[-1] or _is_removed(newest)):
            newest.left = time.monotonic()

    def _succeed(self, known: Known, *, has_predecessors: bool = True) -> None:
        """Another file has the path. Raises FileNotFoundError if it has gone again."""
        file = opened(self.name)
        if not _is_regular(file) or _closed_if(known.knows(file), file):
            return
        if _closed_if(_is_packed(file), file):
            self.say_once(f"{self.name} is packed, and is passed over: packed files do not grow")
            return
        if has_predecessors:
            self._take_missed(known, os.fstat(file).st_ino)
        self._append(file)
        self._forget()

    def _take_missed(self, known: Known, inode: int | None = None) -> None:
        for file in self._missed(known, inode):
            self._append(file)

    def _append(self, file: int, offset: int = 0, *, has_records: bool = False) -> None:
        for generation in self.generations:
            generation.left = generation.left or time.monotonic()
        self.generations.append(Generation(file, self.name, self._format, offset, has_records=has_records))
        self.changes += 1

    def _missed(self, known: Known, inode: int | None) -> list[int]:
        """Files that had the path between two looks, the oldest first. `inode`: of the one that has it now."""
        found = [file for file in self._beside(known) if not _closed_if(os.fstat(file).st_ino == inode, file)]
        found = [file for file in found if not _closed_if(self.is_copied_in(file), file)]
        return sorted(found, key=lambda file: os.fstat(file).st_mtime_ns)

    def is_copied_in(self, file: int) -> bool:
        """Whether a file is a copy of one that is read here."""
        return any(generation.is_copied_in(file) for generation in self.generations)

    def _beside(self, known: Known) -> list[int]:
        """Descriptors of the files that may have had the path and that nobody knows."""
        found = []
        for entry in _entries(self.name):
            if not self._is_beside(entry.name):
                continue
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    found.append(opened(entry.path))
        return [file for file in found if not _closed_if(known.knows(file) or _is_packed(file), file)]

    def _is_beside(self, name: str) -> bool:
        base = os.path.basename(self.name)
        return name.startswith(base) and _ROTATED.fullmatch(name, len(base)) is not None

    def _forget(self) -> None:
        """Files that are gone need not be remembered."""
        inodes = {entry.inode() for entry in _entries(self.name)}
        self.past = [marked for marked in self.past if marked["inode"] in inodes]

    def knows(self, file: int) -> bool:
        """Whether this file is read here, or was."""
        inode = os.fstat(file).st_ino
        if any(generation.inode == inode for generation in self.generations):
            return True
        return any(marked["inode"] == inode and has_mark(file, marked) for marked in self.past)

    # What is in it.

    def read(self, at_most: int, known: Known) -> Block | None:
        """The next records, if there are any now."""
        self.taken = 0
        while self.generations:
            now = self.generations[0]
            if now.is_packed():
                self.say_once(f"{self.name} is packed, and is passed over: packed files do not grow")
                self._leave(now)
                continue
            chunk = now.take(at_most)
            if now.was_cut():
                self._cut(now, known)
                continue
            if chunk:
                self.taken = len(chunk)
                return now.feed(chunk)
            if not self._is_over(now):
                return None
            block = now.finish()
            self._leave(now)
            if block:
                return block
        return None

    def peek(self, at_most: int) -> Block | None:
        """The same, and no file is left; `rewind` gives it back."""
        for generation in self.generations:
            if chunk := generation.take(at_most):
                return generation.feed(chunk)
        return None

    def rewind(self) -> None:
        for generation in self.generations:
            generation.rewind()

    def _is_over(self, now: Generation) -> bool:
        """It has given nothing for a while, and its path is another's, or it has been removed."""
        return now.left is not None and time.monotonic() - max(now.left, now.last_growth) >= QUIET

    def _leave(self, now: Generation) -> None:
        if now.size and not _is_removed(now):
            self.past.append(mark(now.file))
        now.close()
        self.generations.popleft()
        self.changes += 1

    def _cut(self, now: Generation, known: Known) -> None:
        """It was truncated. What had not been read stands in the copy that was made before, if there is one."""
        self._say_of_loss()
        self.generations.popleft()
        copy = self._copy(now.identity())
        now.restart()
        before = [Generation(copy[0], self.name, self._format, copy[1], has_records=True)] if copy else []
        self.generations.extendleft(reversed([*before, now]))
        missed = [Generation(file, self.name, self._format) for file in self._missed(known, now.inode)]
        for number, one in enumerate(missed, len(before)):
            self.generations.insert(number, one)
        for one in [*before, *missed]:
            one.left = time.monotonic()
        self.changes += 1

    def _say_of_loss(self) -> None:
        self.say_once(
            f"{self.name} was truncated, and is read from its beginning: "
            "what was written between its copying and its truncation may be lost"
        )

    def _copy(self, identity: Mapping[str, Any]) -> tuple[int, int] | None:
        """A descriptor of the longest file beside the path that begins with what was read, and the offset."""
        if not identity["records"]:  # many files may begin with the same header line
            return None
        found = [file for file in self._beside(_Nobody()) if not _closed_if(not fits(file, identity), file)]
        found.sort(key=lambda file: os.fstat(file).st_size)
        for file in found[:-1]:
            os.close(file)
        return (found[-1], identity["offset"]) if found else None

    # Where it is, and how to go on from there.

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "generations": [one.identity() | {"gone": _is_removed(one), "bytes": one.size} for one in self.generations],
            "past": self.past,
            "given": self.has_given,
            "greatest": self.clock.greatest,
            "done": self.is_done,
        }

    def restore(self, said: Mapping[str, Any]) -> None:
        """Find the files again that were being read. Raises StateError if one is gone before it was read to its end."""
        self.past, self.has_given, self.clock.greatest = list(said["past"]), said["given"], said["greatest"]
        for identity in said["generations"]:
            if not self._is_found(identity) and not (identity["gone"] and identity["offset"] >= identity["bytes"]):
                raise StateError(
                    f"{self.name}: the file that was being read is not beside it any more; {identity['offset']:,} bytes of it "
                    f"had been read, and what came behind them cannot be found",
                    notes=[
                        f"put it back, unpacked, under any name in {os.path.dirname(self.name) or '.'}",
                        "--reset at ingest starts anew, and keeps what there is aside",
                    ],
                )

    def _is_found(self, identity: Mapping[str, Any]) -> bool:
        for path in self._paths_of(identity["inode"]):
            with suppress(FileNotFoundError):
                file = opened(path)
                if not _closed_if(not fits(file, identity), file):
                    self._append(file, identity["offset"], has_records=identity["records"])
                    return True
        copy = self._copy(identity)
        is_cut = any(self._has_had(path) for path in self._paths_of(identity["inode"]))
        if is_cut:
            self._say_of_loss()
        if copy:
            self._append(*copy, has_records=True)
        return is_cut or copy is not None

    def _paths_of(self, inode: int) -> list[str]:
        """Where a file is now: under the path, which may be a link, or beside it."""
        status = _status(self.name)
        is_here = status is not None and status.st_ino == inode
        return [self.name] * is_here + [entry.path for entry in _entries(self.name) if entry.inode() == inode]

    def _has_had(self, path: str) -> bool:
        """Whether a file of this name may have had our path."""
        return path == self.name or self._is_beside(os.path.basename(path))

    @property
    def unfinished(self) -> int:
        """Bytes of a last line that has no newline yet."""
        return self.generations[-1].unfinished if self.generations else 0

    def close(self) -> None:
        for generation in self.generations:
            generation.close()


class _Nobody:
    def knows(self, file: int) -> bool:
        return False


def _status(path: str) -> os.stat_result | None:
    with suppress(OSError):
        return os.stat(path)
    return None


def _entries(path: str) -> list[os.DirEntry[str]]:
    """Of the directory that a path is in."""
    with suppress(OSError), os.scandir(os.path.dirname(path) or ".") as entries:
        return [*entries]
    return []


def _is_removed(generation: Generation) -> bool:
    return os.fstat(generation.file).st_nlink == 0


def _is_regular(file: int) -> bool:
    return not _closed_if(not stat.S_ISREG(os.fstat(file).st_mode), file)


def _is_packed(file: int) -> bool:
    return is_packed(os.pread(file, MAGIC_BYTES, 0))


def _closed_if(is_no_use: bool, file: int) -> bool:
    if is_no_use:
        os.close(file)
    return is_no_use
