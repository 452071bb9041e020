"""What is followed: splits that grow, files (watch.py) or the partitions of a log (sources/log.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from clickpipe.core.source import Arrived
from clickpipe.core.time import SplitClock
from clickpipe.lines import Block


class WatchedSplit:
    """One of them. `has_given`: records, so that the others wait for its watermark; `taken`: bytes of the last look; `changes`:
    of what it is read from, which a checkpoint must know of."""

    name: str
    clock: SplitClock
    has_given = False
    taken = 0
    changes = 0

    @property
    def is_done(self) -> bool:
        """Whether it gives nothing for now, and so holds nothing back."""
        raise NotImplementedError

    @property
    def unfinished(self) -> int:
        """Bytes of a last line that has no newline yet."""
        return 0

    def silence(self) -> float | None:
        """For how many seconds nothing has been added to it; None: nobody knows."""
        return None

    def arrived(self, block: Block) -> Sequence[Arrived]:
        """When the pieces of a block had arrived, in order; none: just now."""
        return ()

    def to_json(self) -> dict[str, Any]:
        """Where it is."""
        raise NotImplementedError


class Watched:
    """All of them. `taken`: bytes of the last round; `look`: seconds between two looks."""

    tails: Sequence[WatchedSplit]
    taken = 0
    look = 0.1
    has_ended: Callable[[], bool] = staticmethod(lambda: False)  # whether nobody writes what is followed any more

    def begin(self) -> None:
        """Without an earlier run."""
        raise NotImplementedError

    def restore(self, splits: list[Mapping[str, Any]]) -> None:
        """Go on from these positions. Raises StateError."""
        raise NotImplementedError

    def blocks(self, at_most: int) -> Iterator[tuple[Any, Block]]:
        """One round: of each split that has something new, the next records."""
        raise NotImplementedError

    def sample(self, at_most: int) -> Iterator[Block]:
        """The same, as often and as much of it as one likes; `rewind` gives it all back."""
        raise NotImplementedError

    def rewind(self) -> None:
        raise NotImplementedError

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return False

    def left(self) -> int:
        """How much there is that was not read, of what `drained` counts."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
