"""How far a split has been read: what a checkpoint keeps of it, and how a later run goes on from there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clickpipe.core.eventtime import EventTime
from clickpipe.core.source import Split
from clickpipe.core.time import SplitClock
from clickpipe.errors import StateError
from clickpipe.lines import Block


class Progress:
    """Of one split. Unit of `offset`: bytes of text; of `start`, the first event time in it: milliseconds."""

    def __init__(self, split: Split, time: EventTime) -> None:
        self.split, self._time = split, time
        self.clock: SplitClock = time.clock(is_live=split.is_live or split.keeps_arrivals)
        self.offset = split.begin
        self.start: int | None = None
        self.is_done = False
        self.stays_open = True  # while it waits for its turn
        self.opened: Iterator[Block] | None = None  # blocks that were looked at, and those behind them
        self._identity: Mapping[str, Any] | None = None  # once it was read to its end
        self._unread: Mapping[str, Any] | None = None  # and before it is read

    def finish(self, *, is_saved: bool) -> None:
        """It was read to its end. `is_saved`: checkpoints will ask which file it was."""
        self._identity = self.split.identity(self.offset) if is_saved else {}
        self.split.close()
        self.is_done = not self.split.left(self.offset)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.split.name,
            "offset": self.offset,
            "identity": self._known(),
            "done": self.is_done,
            "start": self.start,
            "greatest": self.clock.greatest,
        }

    def _known(self) -> Mapping[str, Any]:
        """Which file it is, as far as it was read. What does not change is not asked of thousands of files each time."""
        if self._identity is not None:
            return self._identity
        if self.offset != self.split.begin or not self.split.can_be_read_again:
            return self.split.identity(self.offset)
        self._unread = self._unread or self.split.identity(self.offset)
        return self._unread

    def restore(self, said: Mapping[str, Any]) -> str | None:
        """Go on from there. What a person should know, if anything. Raises StateError if it is another file by now."""
        now = self.split.identity(said["offset"])
        if now.get("at_least", said["offset"]) < said["identity"].get("at_least", 0):
            raise StateError(
                f"{self.split.name} has shrunk: {said['offset']:,} bytes of it had been read, and it has {now['at_least']:,}",
                hint="--reset starts anew, and keeps what there is aside",
            )
        if now != said["identity"] and (said["offset"] or not self.split.left(0)):  # of an empty file nothing had been read
            what = f"is not the {self.split.noun} that was read before"
            raise StateError(
                f"{self.split.name} {what}: its first {said['offset']:,} bytes have changed",
                hint="--reset starts anew, and keeps what there is aside",
            )
        self.offset, self.start = said["offset"] if now else 0, said["start"]
        self.is_done = said["done"] and not self.split.left(self.offset)
        self._identity = said["identity"] if self.is_done else None
        if self.is_done:
            self.split.close()
        self.clock = self._time.clock(is_live=self.split.is_live or self.split.keeps_arrivals, greatest=said["greatest"])
        self.clock.restore(said)
        if now or self.is_done:
            return None
        return f"{self.split.name} cannot be read again: what had come since the last checkpoint is lost"
