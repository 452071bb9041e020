"""How far records come behind, kept for free: what another --max-out-of-orderness would lose.

A record is `behind` by how far its time is below the greatest time before it in its split. With an out-of-orderness of D
the records that are behind by more than D are late. They are counted in buckets that grow by 5 %:

    bucket k holds what is behind by more than 1.05 ** (k - 1) and at most 1.05 ** k milliseconds

The first 65,536 records of a split are all counted. Of each further 65,536 all are that belong to the latest fiftieth,
as it was known not long before, and of the others one in 32, which then stands for 32. So what counts is exact, and costs
little. Which records these are follows from their numbers: batches do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import floor, log
from typing import Any

import polars as pl

BASE = 1.05
STRETCH = 1 << 16  # records, of which it is decided before them which are counted one by one
ONE_IN = 32
_SHARE = 50
_MOST_HELD = 64
MOST = 128  # buckets that are written down


class Lateness:
    """Unit: milliseconds. `records`: all; `disordered`: those that are behind; `greatest`: the most that one was behind."""

    def __init__(self) -> None:
        self.records = self.disordered = self.greatest = 0
        self._counts: dict[int, int] = {}
        self._held: list[tuple[pl.Series, int]] = []  # not yet in buckets, and for how many each stands: many at once are quicker
        self._all_above = 0  # who is behind by more is counted one by one

    def add(self, behind: pl.Series) -> None:
        """Shape: one Int64 a record; 0 or less: not behind."""
        while len(behind):
            room = STRETCH - self.records % STRETCH
            self._count(behind.head(room))
            self._pass(min(room, len(behind)))
            behind = behind.slice(room)

    def add_in_order(self, count: int) -> None:
        """The same for records none of which is behind."""
        while count:
            some = min(count, STRETCH - self.records % STRETCH)
            self._pass(some)
            count -= some

    def _count(self, behind: pl.Series) -> None:
        self.disordered += int((behind > 0).sum())
        self.greatest = max(self.greatest, _greatest(behind))
        self._held.append((behind.filter(behind > self._all_above), 1))
        if self._all_above:
            some = behind.gather_every(ONE_IN, -self.records % ONE_IN)
            self._held.append((some.filter((some > 0) & (some <= self._all_above)), ONE_IN))
        if len(self._held) > _MOST_HELD:
            self._settle()

    @property
    def counts(self) -> Mapping[int, int]:
        """How many records are in each bucket."""
        self._settle()
        return self._counts

    def _settle(self) -> None:
        held, self._held = self._held, []
        for weight in {weight for _, weight in held}:
            behind = pl.concat([values for values, one in held if one == weight]).alias("behind")
            bucket = (pl.col("behind").log() / log(BASE)).ceil().cast(pl.Int32)
            for number, count in behind.to_frame().group_by(bucket).len().iter_rows():  # buckets, of which there are few
                self._counts[number] = self._counts.get(number, 0) + weight * count

    def _pass(self, count: int) -> None:
        self.records += count
        if self.records % STRETCH == 0 and _is_worth_a_look(self.records // STRETCH):
            self._all_above = self._latest_fiftieth()

    def _latest_fiftieth(self) -> int:
        counts, count = self.counts, 0
        for number in sorted(counts, reverse=True):
            count += counts[number]
            if _SHARE * count >= self.records:
                return upper(number - 1)
        return 0

    # What it says.

    def at_most_late(self, delay: int) -> float:
        """The share of records that are behind by more than `delay`, or a little more than that share."""
        if not self.records or delay >= self.greatest:
            return 0.0
        if delay <= 0:
            return self.disordered / self.records
        late = sum(count for number, count in self.counts.items() if upper(number) > delay)
        return min(late, self.disordered) / self.records

    def enough_for(self, share: float) -> int:
        """With this out-of-orderness at most that share of the records is late. At most 5 % more than it takes."""
        for delay in (0, *map(upper, sorted(self.counts))):
            if self.at_most_late(delay) <= share:
                return min(delay, self.greatest)
        return self.greatest

    @staticmethod
    def merged(some: Iterable[Lateness]) -> Lateness:
        """Of all their records."""
        whole = Lateness()
        for one in some:
            whole.records += one.records
            whole.disordered += one.disordered
            whole.greatest = max(whole.greatest, one.greatest)
            for number, count in one.counts.items():
                whole._counts[number] = whole._counts.get(number, 0) + count
        return whole

    # For a checkpoint.

    def to_json(self, most: int = MOST) -> dict[str, Any]:
        """`most`: buckets. What lies below those is said to be in the lowest of them."""
        counts = [number for pair in sorted(_raised(self.counts, most)) for number in pair]
        said = {"records": self.records, "disordered": self.disordered, "greatest": self.greatest}
        return said | {"all_above": self._all_above, "counts": counts}

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> Lateness:
        sketch = Lateness()
        sketch.records, sketch.disordered, sketch.greatest = said["records"], said["disordered"], said["greatest"]
        sketch._all_above = said["all_above"]
        sketch._counts = dict(zip(said["counts"][::2], said["counts"][1::2], strict=True))
        return sketch


def upper(number: int) -> int:
    """The most that a record in this bucket can be behind, in whole milliseconds. Rounding never makes it less."""
    return floor(BASE**number * (1 + 1e-9))


def _is_worth_a_look(stretches: int) -> bool:
    """Often in the beginning."""
    return stretches % 16 == 0 or stretches & (stretches - 1) == 0


def _raised(counts: Mapping[int, int], most: int) -> Iterator[tuple[int, int]]:
    lowest = max(counts, default=0) - most + 1
    low = sum(count for number, count in counts.items() if number <= lowest)
    if low:
        yield lowest, low
    yield from ((number, count) for number, count in counts.items() if number > lowest)


def _greatest(values: pl.Series) -> int:
    greatest = values.max()
    return greatest if isinstance(greatest, int) else 0
