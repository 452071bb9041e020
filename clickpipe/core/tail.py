"""A path that is followed: the records of its file, then of the file that takes its place, and so on.

    app.log      generation 3     what has the path now
    app.log.1    generation 2     renamed between two looks: found by its name and because nobody knows it
    app.log.2    generation 1     being read, to its end, through its descriptor

A file is left for the next one when it has given nothing for a second: its writer may go on for a moment.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from clickpipe.core.beside import Beside, Listing, has_packing, inode_at, opened_regular, without
from clickpipe.core.eventtime import EventTime
from clickpipe.core.format import Format
from clickpipe.core.generation import Generation, fits, has_mark, mark
from clickpipe.core.packing import MAGIC_BYTES
from clickpipe.core.watched import WatchedSplit
from clickpipe.errors import StateError
from clickpipe.lines import Block

QUIET = 1.0  # seconds
SCAN = 1.0  # seconds between two looks for other files, while none has the path


class Known(Protocol):
    """What is read already, by any of the followed paths."""

    def knows(self, file: int) -> bool: ...


Met = dict[int, list["Tail"]]  # by the inodes of files that are read or were, and perhaps of others by now: who may know them


class Tail(WatchedSplit):
    """One split. `say`: what a person should know."""

    def __init__(self, name: str, form: Format, time: EventTime, say: Callable[[str], None], met: Met) -> None:
        """`met`: shared by all; the inodes of its files are added."""
        self.name, self._format, self._say, self._met = name, form, say, met
        self.clock = time.clock(is_live=True)
        self.generations: deque[Generation] = deque()
        self.past: list[Mapping[str, Any]] = []  # files beside it that are not to be read again
        self._said: set[str] = set()
        self._next_scan = 0.0
        self._beside = Beside(name)

    @property
    def is_done(self) -> bool:
        """Whether it has no file, and so holds nothing back."""
        return not self.generations

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    # What has the path.

    def open(self, known: Known) -> None:
        """Begin with the file that has the path now, if there is one."""
        self._succeed(known, has_predecessors=False)

    def ignore_others(self, known: Known, listing: Listing) -> None:
        """What stands beside the path by now, and is not followed, is not of it."""
        files = self._beside.files(listing)
        self._pass([mark(file) for file in files if not known.knows(file)])
        without(files, files)

    def _pass(self, marked: Iterable[Mapping[str, Any]]) -> None:
        """Files that are not to be read again."""
        for one in marked:
            self.past.append(one)
            self._meet(one["inode"])

    def _meet(self, inode: int) -> None:
        if self not in (tails := self._met.setdefault(inode, [])):
            tails.append(self)

    def look(self, known: Known) -> None:
        """See what has the path now, and what had it since the last look."""
        newest = self.generations[-1] if self.generations else None
        inode = inode_at(self.name)
        if inode is not None and newest is not None and inode == newest.inode:
            return
        if inode is not None:
            self._succeed(known)
        elif time.monotonic() >= self._next_scan:
            self._next_scan = time.monotonic() + SCAN
            self._take_missed(known)
        if newest is not None and newest.left is None and newest.is_removed:
            newest.left = time.monotonic()

    def _succeed(self, known: Known, *, has_predecessors: bool = True) -> None:
        """Another file has the path, if it has not gone again."""
        file = opened_regular(self.name)
        if file is None:
            return
        if self._is_no_successor(file, known):
            os.close(file)
            return
        if has_predecessors:
            self._take_missed(known, os.fstat(file).st_ino)
        self._append(file)
        if self.past:  # what is gone need not be remembered
            inodes = self._beside.inodes()
            self.past = [marked for marked in self.past if marked["inode"] in inodes]

    def _is_no_successor(self, file: int, known: Known) -> bool:
        if known.knows(file):
            return True
        is_packed = has_packing(file)
        if is_packed:
            self._pass_over()
        return is_packed

    def _pass_over(self) -> None:
        self._say_once(f"{self.name} is packed, and is passed over: packed files do not grow")

    def _take_missed(self, known: Known, inode: int | None = None) -> None:
        for file in self._missed(known, inode):
            self._append(file)

    def _append(self, file: int, offset: int = 0, *, has_records: bool = False) -> None:
        self._insert(len(self.generations), file, offset, has_records=has_records)

    def _insert(self, place: int, file: int, offset: int = 0, *, has_records: bool = False) -> None:
        """All files but the last have been left."""
        self.generations.insert(place, Generation(file, self.name, self._format, offset, has_records=has_records))
        self._meet(self.generations[place].inode)
        for generation in [*self.generations][:-1]:
            generation.left = generation.left or time.monotonic()
        self.changes += 1

    def _missed(self, known: Known, inode: int | None) -> list[int]:
        """Files that had the path between two looks, the oldest first. `inode`: of the one that has it now."""
        files = self._beside.files()
        old = [file for file in files if os.fstat(file).st_ino == inode or known.knows(file) or self.is_copied_in(file)]
        return sorted(without(files, old), key=lambda file: os.fstat(file).st_mtime_ns)

    def is_copied_in(self, file: int) -> bool:
        """Whether a file is a copy of one that is read here."""
        return any(generation.is_copied_in(file) for generation in self.generations)

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
                self._pass_over()
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
        if now.size and not now.is_removed:
            self._pass([mark(now.file)])
        now.close()
        self.generations.popleft()
        self.changes += 1

    def _cut(self, now: Generation, known: Known) -> None:
        """It was truncated. What had not been read stands in the copy that was made before, if there is one."""
        self._say_of_loss()
        identity = now.identity()
        copy = self._beside.copy(identity)
        now.restart()
        if copy is not None:
            self._insert(0, copy, identity["offset"], has_records=True)
        for file in reversed(self._missed(known, now.inode)):
            self._insert(int(copy is not None), file)

    def _say_of_loss(self) -> None:
        self._say_once(
            f"{self.name} was truncated, and is read from its beginning: "
            "what was written between its copying and its truncation may be lost"
        )

    # Where it is, and how to go on from there.

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "generations": [one.identity() | {"gone": one.is_removed, "bytes": one.size} for one in self.generations],
            "past": self.past,
            "given": self.has_given,
            "greatest": self.clock.greatest,
            "done": self.is_done,
        }

    def restore(self, said: Mapping[str, Any]) -> None:
        """Find the files again that were being read. Raises StateError if one is gone before it was read to its end."""
        self._pass(said["past"])
        self.has_given, self.clock.greatest = said["given"], said["greatest"]
        self.clock.restore(said)
        for identity in said["generations"]:
            if not self._is_found(identity) and not (identity["gone"] and identity["offset"] >= identity["bytes"]):
                raise StateError(
                    f"{self.name}: the file that was being read is not beside it any more; {identity['offset']:,} bytes of it "
                    f"had been read, and what came behind them cannot be found",
                    notes=[
                        f"put it back unpacked, as {self.name}.1 or as rotation has called it",
                        "--reset at ingest starts anew, and keeps what there is aside",
                    ],
                )

    def _is_found(self, identity: Mapping[str, Any]) -> bool:
        """Under any name; or as a copy of what was truncated since."""
        paths = self._beside.paths(identity["inode"])
        files = [file for path in paths if (file := opened_regular(path)) is not None]
        found = [file for file in files if fits(file, identity)][:1]
        without(files, [file for file in files if file not in found])
        is_cut = not found and any(self._beside.has_had(path) for path in paths)
        if is_cut:
            self._say_of_loss()
        if not found and (copy := self._beside.copy(identity)) is not None:
            found = [copy]
        for file in found:
            self._append(file, identity["offset"], has_records=identity["records"])
        return bool(found) or is_cut

    @property
    def unfinished(self) -> int:
        """Bytes of a last line that has no newline yet."""
        return self.generations[-1].unfinished if self.generations else 0

    # One that is bounded.

    def bound(self) -> None:
        """It is read as far as it goes now."""
        for generation in self.generations:
            generation.limit = generation.size

    @property
    def is_caught_up(self) -> bool:
        """Whether that has been read. A file that was left may be written to for a moment, and is read to its end for that long;
        if its writer does not stop, another run goes on in it."""
        if not self.generations:
            return True
        first = self.generations[0]
        return first.is_beyond if len(self.generations) > 1 else not first.take(MAGIC_BYTES)

    def silence(self) -> float | None:
        return self.generations[-1].silence if self.generations else None

    def close(self) -> None:
        for generation in self.generations:
            generation.close()
