"""Accounts per window: of each record that has reached its windows, in the newest that holds it.

    the window step     read                     a record is in the account of its window from here on
    steps behind it     filtered, aggregated …   what came in, less what went out, window by window

Memory: 10,000 windows; those before are one account. A dead letter does not say its window: its time does, since records of
one time stand in one window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from clickpipe.batch import Batch, Dead
from clickpipe.core.windows import FIXED

MOST = 10_000
NAMES = ("read", "aggregated", "filtered", "duplicate", "late", "dead", "written")


class ByWindow:
    """Counts by the start of a window. `folded`: windows that begin before are counted together, as `earlier`.

    `removed`: records that a tool between two processes took out; of which windows, what is left tells.
    """

    def __init__(self, counts: Mapping[int, list[int]] | None = None, folded: int | None = None, removed: int = 0) -> None:
        self.counts = {start: [*row] for start, row in (counts or {}).items()}
        self.earlier, self.folded, self.removed = [0] * len(NAMES), folded, removed

    def note(self, name: str, starts: Mapping[int, int]) -> None:
        """So many records of these windows."""
        place = NAMES.index(name)
        for start, count in starts.items():
            self._row(start)[place] += count
        self._fold()

    def _row(self, start: int) -> list[int]:
        if self.folded is not None and start < self.folded:
            return self.earlier
        return self.counts.setdefault(start, [0] * len(NAMES))

    def _fold(self) -> None:
        if len(self.counts) <= MOST:
            return
        self.folded = sorted(self.counts)[-MOST]
        for start in [start for start in self.counts if start < self.folded]:
            self.earlier = _sum(self.earlier, self.counts.pop(start))

    def __bool__(self) -> bool:
        return bool(self.counts or any(self.earlier) or self.removed)

    def __add__(self, other: ByWindow) -> ByWindow:
        """The accounts of two processes, or two runs."""
        folds = [one for one in (self.folded, other.folded) if one is not None]
        both = ByWindow(folded=max(folds, default=None), removed=self.removed + other.removed)
        both.earlier = _sum(self.earlier, other.earlier)
        for counts in (self.counts, other.counts):
            for start, row in counts.items():
                into = both._row(start)
                into[:] = _sum(into, row)
        both._fold()
        return both

    def rows(self) -> list[tuple[int | None, dict[str, int]]]:
        """The counts of each window, by its start; None first, for those before. What a tool took out was filtered."""
        found: list[tuple[int | None, list[int]]] = [(None, self.earlier)] if any(self.earlier) else []
        found += sorted(self.counts.items())
        return [(start, _completed(row) if self.removed else dict(zip(NAMES, row, strict=True))) for start, row in found]

    def left(self) -> int:
        """Records whose end is not known yet."""
        return sum(row[0] - sum(row[1:]) for row in [self.earlier, *self.counts.values()]) - self.removed

    def is_overdrawn(self) -> bool:
        """Whether more came out of a window than went in."""
        return any(row[0] < sum(row[1:]) or min(row) < 0 for row in [self.earlier, *self.counts.values()])

    def to_json(self) -> dict[str, Any]:
        """Rows change, and this may be written later."""
        return {
            "counts": {str(start): [*row] for start, row in self.counts.items()},
            "earlier": [*self.earlier],
            "folded": self.folded,
            "removed": self.removed,
        }

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> ByWindow:
        """Raises KeyError, TypeError, ValueError for what is none."""
        counts = {int(start): [*map(int, row)] for start, row in said["counts"].items()}
        found = ByWindow(counts, None if said["folded"] is None else int(said["folded"]), int(said["removed"]))
        found.earlier = [*map(int, said["earlier"])]
        if any(len(row) != len(NAMES) for row in [found.earlier, *counts.values()]):
            raise ValueError("a row of accounts has another length")
        return found


def _sum(one: list[int], other: list[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _completed(row: list[int]) -> dict[str, int]:
    counts = dict(zip(NAMES, row, strict=True))
    counts["filtered"] += row[0] - sum(row[1:])
    return counts


class Watch:
    """Sees what one step does with one batch; this one looks at nothing."""

    def out(self, batch: Batch) -> None:
        pass

    def late(self, batch: Batch) -> None:
        pass

    def dead(self, dead: Dead) -> None:
        pass

    def end(self, outcome: str) -> None:
        """What came in and was not seen to go out has met this outcome."""


class WindowWatch(Watch):
    """`batch`: what the step is given."""

    def __init__(self, windows: ByWindow, batch: Batch) -> None:
        self._windows, self._batch = windows, batch
        self._was_inside = is_windowed(batch)
        self._left = counted(batch) if self._was_inside else Counter[int]()

    def out(self, batch: Batch) -> None:
        if self._was_inside:
            self._left -= counted(batch)
        elif is_windowed(batch):
            self._windows.note("read", counted(batch))

    def late(self, batch: Batch) -> None:
        if not is_windowed(batch):
            return
        starts = counted(batch)
        if not self._was_inside:
            self._windows.note("read", starts)
        self._windows.note("late", starts)
        self._left -= starts

    def dead(self, dead: Dead) -> None:
        if not self._was_inside or self._batch.columns.time is None:
            return
        frame = self._batch.frame
        start = dict(zip(frame[self._batch.columns.time.name], frame["window_start"], strict=True))
        starts = Counter(start[time] for time in dead.time)
        self._windows.note("dead", starts)
        self._left -= starts

    def end(self, outcome: str) -> None:
        if outcome in NAMES and self._left:
            self._windows.note(outcome, self._left)


def needed(batch: Batch) -> tuple[str, ...]:
    """The columns by which records are told apart."""
    return ("window_start", batch.columns.time.name) if is_windowed(batch) and batch.columns.time else ()


def is_windowed(batch: Batch) -> bool:
    info = batch.columns.window
    return info is not None and info.kind in FIXED and "window_start" in batch.columns.types


def counted(batch: Batch) -> Counter[int]:
    """Records by the start of their newest window."""
    whole, _ = batch.need(["window_start"], set())
    return Counter(dict(whole.frame["window_start"].value_counts().rows()))
