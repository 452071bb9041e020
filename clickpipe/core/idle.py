"""The stream's watermark, of those of its splits: the least, but for splits that give nothing. It never goes back.

    a split gives records           the stream waits for its watermark
    … none for --idle-timeout       not any more: it is idle
    … one again                     again; by then its clock stands where the stream does (SplitClock.lift)
    all splits are idle             hold: the watermark stays; advance: it moves on as fast as the wall clock,
                                    from where it stood when the last one became idle

No clock is seen here: `now` is told, in milliseconds, and must not go back. A split is idle by the last look at it that
found nothing, not by the time of the decision: who was not looked at for a while, because a disk was full, may have
records waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

STEP = 1_000  # milliseconds by which the watermark moves at least while all splits are idle
_SLOWER = 60  # and this part of the time since: a quiet night must not cost a checkpoint a second


@dataclass(frozen=True)
class IdleRule:
    """When a split is idle, and what happens when all are. Unit of `timeout`: milliseconds; 0: no split ever is."""

    timeout: int = 0
    advances: bool = True

    @property
    def moves_by_clock(self) -> bool:
        return self.timeout > 0 and self.advances


class Watermark:
    """`reached`: where it stands, None before the first record."""

    def __init__(self, rule: IdleRule) -> None:
        self._rule = rule
        self.reached: int | None = None
        self._heard: dict[str, int] = {}  # when a split gave its last record
        self._looked: dict[str, int] = {}  # when it was looked at
        self._stood: tuple[int, int] | None = None  # since when all are idle, and where the watermark stood then

    def look(self, split: str, now: int, *, has_given: bool) -> None:
        """What a look at a split has found. Before the first one it is not waited for, nor is it idle."""
        self._looked[split] = now
        if has_given or split not in self._heard:
            self._heard[split] = now

    def rest(self, split: str, now: int, silence: int) -> None:
        """It is known otherwise for how long it has given nothing."""
        self._looked[split], self._heard[split] = now, now - silence

    def has_seen(self, split: str) -> bool:
        return split in self._looked

    def silence(self, split: str) -> int | None:
        """For how long a split has given nothing, if it is idle."""
        silence = self._looked.get(split, 0) - self._heard.get(split, 0)
        return silence if 0 < self._rule.timeout <= silence else None

    def is_idle(self, split: str) -> bool:
        return self.silence(split) is not None

    def idle(self) -> frozenset[str]:
        return frozenset(filter(self.is_idle, self._looked))

    def advance(self, marks: Mapping[str, int | None], now: int) -> bool:
        """Whether it has moved. `marks`: of the splits that are waited for unless they are idle; None: no record yet."""
        held = [mark for split, mark in marks.items() if not self.is_idle(split)]
        to = min((mark for mark in held if mark is not None), default=None)
        if held or self.reached is None or not self._are_all_idle():
            self._stood = None
            to = None if None in held else to
        else:
            to = self._by_clock(self.reached, now)
        if to is None or (self.reached is not None and to <= self.reached):
            return False
        self.reached = to
        return True

    def _are_all_idle(self) -> bool:
        return bool(self._looked) and all(map(self.is_idle, self._looked))

    def _by_clock(self, reached: int, now: int) -> int | None:
        """Where it moves to while all splits are idle. Not at each look: a little at a time."""
        if not self._rule.advances:
            return None
        self._stood = self._stood or (now, reached)
        since, stood = self._stood
        to = stood + now - since
        return to if to - reached >= max(STEP, (now - since) // _SLOWER) else None
