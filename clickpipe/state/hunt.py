"""The hunt for a record at which a pipeline always dies.

    life 4    batches as usual, a checkpoint behind each            dies in [0, 8 MiB)
    life 5    from there in batches of a 64th, a checkpoint each    dies in [384 KiB, 512 KiB)
    life 6    …                                                     dies in one record
    life 7    sets that record aside, and goes on as usual

What is about to be read stands in hunt.json, so that the next life knows where this one died. The supervisor begins a
hunt and decides on each life; the source process reads as it is told.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass

import orjson

from clickpipe.state.epochs import Epochs
from clickpipe.state.files import write_whole

HUNT = "CLICKPIPE_HUNT"  # to the source process, one of these two:
NARROWS, SETS_ASIDE = "narrow", "set-aside"
_PARTS = 64


@dataclass(frozen=True)
class Suspect:
    """A stretch of a split in which a life ended. Unit: bytes; `lines`: how many begin there."""

    split: str
    offset: int
    end: int
    lines: int


class Hunt:
    """Of one life. `sets_aside`: the suspect is one record, and becomes a dead letter."""

    def __init__(self, checkpoints: Epochs, *, sets_aside: bool) -> None:
        self._checkpoints, self.sets_aside = checkpoints, sets_aside
        self._batches = 0
        self.suspect = suspect(checkpoints)

    def batch_bytes(self, usual: int) -> int:
        if self.sets_aside:
            return 1
        return usual if self.suspect is None else max(1, (self.suspect.end - self.suspect.offset) // _PARTS)

    def begin(self, split: str, offset: int, end: int, lines: int) -> None:
        """This is read next."""
        self._batches += 1
        write_whole(_path(self._checkpoints), orjson.dumps(asdict(Suspect(split, offset, end, lines))), "hunt")

    def is_at(self, split: str, offset: int) -> bool:
        """Whether this is where the last life died."""
        return self.suspect is not None and (self.suspect.split, self.suspect.offset) == (split, offset)

    def is_over(self, split: str, offset: int) -> bool:
        """Whether the stretch in which the last life died has been passed."""
        if self.sets_aside or self.suspect is None:
            return self.sets_aside or self._batches >= _PARTS
        return split == self.suspect.split and offset >= self.suspect.end

    def end(self) -> None:
        forget(self._checkpoints)


def suspect(checkpoints: Epochs) -> Suspect | None:
    """Where the last life of a hunt ended."""
    try:
        with open(_path(checkpoints), "rb") as file:
            return Suspect(**orjson.loads(file.read()))
    except (OSError, ValueError, TypeError):
        return None


def forget(checkpoints: Epochs) -> None:
    """There is no hunt any more."""
    with suppress(FileNotFoundError):
        os.unlink(_path(checkpoints))


def _path(checkpoints: Epochs) -> str:
    return os.path.join(checkpoints.path, "hunt.json")
