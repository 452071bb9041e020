"""Live input as a test of a recipe gives it: a file of records, and of lines that say what time it is.

    {"@clock":1772355900000}                      it is 09:05
    {"ts":"2026-03-01T09:04:58Z","page":"/a"}     arrives at 09:05
    {"@clock":1772355960000}                      a minute goes by in which nothing comes, and nobody waits

The clock goes in steps, as it does for whoever looks at live input now and then: of a second, later of a hundredth of what has
gone by. Guarantee: replayable; the clock stands where it stood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from clickpipe.core import clock as wall
from clickpipe.core.eventtime import EventTime
from clickpipe.core.format import Format
from clickpipe.core.source import Source, Split
from clickpipe.core.watched import Watched, WatchedSplit
from clickpipe.errors import PlanError, failed_call
from clickpipe.faults import stop_at_the_end
from clickpipe.lines import Block

CLOCK = b'{"@clock":'
_STEP = 1_000  # milliseconds
_PART = 100


class Given(Source):
    is_divided = True  # so that its splits are watched, also where it ends

    def splits(self) -> list[Split]:
        raise PlanError(f"given:{self.address} is for tests of recipes: its records and its clock come in turn")

    def watched(self, form: Format, time: EventTime, say: Callable[[str], None], *, is_bounded: bool) -> Watched | None:
        return GivenWatch(self.address, form, time)


class GivenWatch(Watched):
    look = 0.0

    def __init__(self, path: str, form: Format, time: EventTime) -> None:
        self._tail = GivenTail(path, form, time)
        self.tails = [self._tail]
        self._is_sampled = False

    def begin(self) -> None:
        self._tail.begin(0)

    def restore(self, splits: list[Mapping[str, Any]]) -> None:
        self._tail.restore(splits[0])

    def blocks(self, at_most: int) -> Iterator[tuple[GivenTail, Block]]:
        block = self._tail.read(at_most)
        self.taken = self._tail.taken
        if block:
            yield self._tail, block

    def sample(self, at_most: int) -> Iterator[Block]:
        """All that will come: what the columns are must not depend on when."""
        found, self._is_sampled = iter(()) if self._is_sampled else self._tail.whole(), True
        return found

    def rewind(self) -> None:
        self._is_sampled = False

    @property
    def is_over(self) -> bool:
        return self._is_sampled or (self._tail.has_ended() and not stop_at_the_end())

    def left(self) -> int:
        return self._tail.left()

    def close(self) -> None:
        """The file was read at once."""


class GivenTail(WatchedSplit):
    def __init__(self, path: str, form: Format, time: EventTime) -> None:
        self.name, self._form, self._time = path, form, time
        try:
            with open(path, "rb") as file:
                self._lines: list[bytes] = [*file]
        except OSError as error:
            raise failed_call(path, error) from None
        self._offset = self._next = 0  # of the next line: bytes, and its number
        self._moves: list[int] = []  # of the clock, still to be made
        self._stands: int | None = None
        self.clock = time.clock(is_live=True)

    def begin(self, offset: int) -> None:
        """Go on from there, at the time that it was."""
        while self._offset < offset or (not self._offset and self._is_clock()):
            if self._is_clock():
                self._stand_at(self._clock())
            self._pass()

    def read(self, at_most: int) -> Block | None:
        """Some records; None: the clock has gone on, and nothing has come."""
        self.taken = 0
        if not self._moves and self._is_clock():
            self._moves = [*_steps(self._stands, self._clock())]
            self._pass()
        if self._moves:
            self._stand_at(self._moves.pop(0))
            return None
        begin, taken = self._offset, b""
        while not self.has_ended() and not self._is_clock() and (not taken or len(taken) < at_most):
            taken += self._pass()
        self.taken = len(taken)
        return self._begun(Block(taken, begin)) if taken else None

    def whole(self) -> Iterator[Block]:
        records = [line for line in self._lines if not line.startswith(CLOCK)]
        if records:
            yield self._form.begin(Block(b"".join(records), 0))

    def has_ended(self) -> bool:
        return self._next >= len(self._lines) and not self._moves

    def left(self) -> int:
        return sum(map(len, self._lines[self._next :]))

    def _begun(self, block: Block) -> Block:
        """Without its header line."""
        first = next((number for number, line in enumerate(self._lines) if not line.startswith(CLOCK)), 0)
        return self._form.begin(block) if block.offset == sum(map(len, self._lines[:first])) else block

    def _is_clock(self) -> bool:
        return self._next < len(self._lines) and self._lines[self._next].startswith(CLOCK)

    def _clock(self) -> int:
        return int(orjson.loads(self._lines[self._next])["@clock"])

    def _pass(self) -> bytes:
        line = self._lines[self._next]
        self._offset, self._next = self._offset + len(line), self._next + 1
        return line

    def _stand_at(self, time: int) -> None:
        self._stands = time
        wall.stand_at(time)

    @property
    def is_done(self) -> bool:
        return False

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "offset": self._offset,
            "given": self.has_given,
            "greatest": self.clock.greatest,
            "done": False,
        }

    def restore(self, said: Mapping[str, Any]) -> None:
        self.begin(said["offset"])
        self.has_given = said["given"]
        self.clock = self._time.clock(is_live=True, greatest=said["greatest"])
        self.clock.restore(said)


def _steps(begin: int | None, end: int) -> Iterator[int]:
    """The times at which somebody looks; the last one twice, since what comes then comes behind a look."""
    if begin is not None:
        now = begin
        while (now := now + max(_STEP, (now - begin) // _PART // _STEP * _STEP)) < end:
            yield now
    yield end
    yield end
