"""Grids of instants by a zone's calendar, through daylight saving.

    size 1h                 size 1d, Europe/Berlin, 2026-10-25 (25 hours)
    … 01:00 02:00 02:00 …   | 22:00Z                            23:00Z |

A boundary stands where the zone's clock shows a multiple of the size. A clock that is set back shows some of them twice:
both are boundaries where the size fits into the hour that is repeated, else the first. One that is set forward skips some:
they all fall on the moment of the change.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from clickpipe.errors import PlanError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STRETCH = 5 * 86_400_000  # within which a clock is changed at most twice, and not by the same amount
_FIRST, _LAST = -62_135_596_800_000 + _STRETCH, 253_402_300_800_000 - _STRETCH  # what datetime can hold, in any zone


def check_zone(name: str) -> None:
    """Raises PlanError for a zone that there is not."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise PlanError(f'no time zone "{name}"', hint="as in Europe/Berlin", word=name) from None


class Regime(NamedTuple):
    """From `start` on the zone's clock shows UTC plus `offset`. Unit: milliseconds."""

    start: int
    offset: int


class ZoneGrid:
    """Adjoining stretches of `size`, shifted by `offset`, by the calendar of a zone. Unit: milliseconds."""

    def __init__(self, size: int, offset: int, zone: str) -> None:
        self._size, self._shift, self._zone = size, offset, zone

    def before(self, times: pl.Series) -> pl.Series:
        """The last boundary at or before each instant."""
        return self._bounds(times)[0]

    def after(self, times: pl.Series) -> pl.Series:
        """The first boundary after each instant."""
        return self._bounds(times)[1]

    def holding(self, time: int, length: int) -> list[tuple[int, int]]:
        """The windows that begin at a boundary, last until the clock shows `length` more, and hold an instant. Newest first."""
        regimes = self._regimes(pl.Series(range(time - length, time + length + _STRETCH, _STRETCH)))
        start, found = self._last(time, regimes), []
        furthest = max(offset for _, offset in regimes) - min(offset for _, offset in regimes)
        while start > time - length - furthest:
            end = _first_showing(start, length, regimes)
            found += [(start, end)] if end > time else []
            start = self._last(start - 1, regimes)
        return found

    def _bounds(self, times: pl.Series) -> tuple[pl.Series, pl.Series]:
        """One division where no clock is changed nearby; the few stretches where one is are looked at one by one."""
        regimes = self._regimes(times)
        frame = times.alias("time").to_frame()
        changes = pl.DataFrame(regimes, schema={"start": pl.Int64, "offset": pl.Int64}, orient="row")
        if len(regimes) == 1:
            frame = frame.with_columns(start=pl.lit(regimes[0].start), offset=pl.lit(regimes[0].offset))
        else:
            at = changes["start"].search_sorted(times, side="right").cast(pl.Int64) - 1
            frame = frame.with_columns(changes["start"].gather(at.clip(0)), changes["offset"].gather(at.clip(0)))
        local = pl.col("time") + pl.col("offset") - self._shift
        frame = frame.select("start", low=local // self._size * self._size + self._shift - pl.col("offset"))
        cells = frame.filter(self._is_near(frame["low"], regimes)).unique()
        frame = frame.with_columns(high=pl.col("low") + self._size)
        if cells.height:
            rows = [(start, low, *self._around(max(start, low), regimes)) for start, low in cells.iter_rows()]
            exact = pl.DataFrame(rows, schema=dict.fromkeys(("start", "low", "exact_low", "exact_high"), pl.Int64), orient="row")
            frame = frame.join(exact, on=["start", "low"], how="left", maintain_order="left").select(
                low=pl.coalesce("exact_low", "low"), high=pl.coalesce("exact_high", "high")
            )
        return frame["low"], frame["high"]

    def _is_near(self, bounds: pl.Series, regimes: list[Regime]) -> pl.Series:
        """Whether a clock is changed so near that a boundary may be another one than division gives."""
        reaches = [(after.start, self._size + abs(after.offset - before.offset)) for before, after in pairwise(regimes)]
        if not reaches:
            return pl.repeat(value=False, n=len(bounds), dtype=pl.Boolean, eager=True)
        begins = pl.Series([start - reach for start, reach in reaches]).cum_max()
        ends = pl.Series([start + reach for start, reach in reaches]).cum_max()
        at = begins.search_sorted(bounds, side="right").cast(pl.Int64) - 1
        return (at >= 0) & (ends.gather(at.clip(0)) >= bounds)

    def _around(self, time: int, regimes: list[Regime]) -> tuple[int, int]:
        return self._last(time, regimes), self._next(time, regimes)

    def _last(self, time: int, regimes: list[Regime]) -> int:
        at = _regime_at(time, regimes)
        while True:
            bound = self._floor(time, regimes[at].offset)
            if at == 0 or (bound >= regimes[at].start and not self._is_repeated(bound, at, regimes)):
                return bound
            if bound < regimes[at].start and self._has_skipped(at, regimes):
                return regimes[at].start
            time, at = regimes[at].start - 1, at - 1

    def _next(self, time: int, regimes: list[Regime]) -> int:
        at = _regime_at(time, regimes)
        while True:
            end = regimes[at + 1].start if at + 1 < len(regimes) else None
            bound = self._floor(time, regimes[at].offset) + self._size
            while self._is_repeated(bound, at, regimes):
                bound += self._size
            if end is None or bound < end:
                return bound
            at += 1
            if self._has_skipped(at, regimes):
                return end
            time = end - 1

    def _floor(self, time: int, offset: int) -> int:
        return (time + offset - self._shift) // self._size * self._size + self._shift - offset

    def _is_repeated(self, bound: int, at: int, regimes: list[Regime]) -> bool:
        """Whether the clock has shown this boundary before it was set back, and both would be too many."""
        if at == 0 or bound < regimes[at].start:
            return False
        back = regimes[at - 1].offset - regimes[at].offset
        return back > 0 and bound < regimes[at].start + back and self._size > back

    def _has_skipped(self, at: int, regimes: list[Regime]) -> bool:
        """Whether the clock was set forward over a boundary, or onto one."""
        start, offset = regimes[at]
        before = regimes[at - 1].offset
        first_shown = self._floor(start, offset)  # at or before the change, as the new clock has it
        return offset > before and first_shown + offset >= start + before

    def _regimes(self, times: pl.Series) -> list[Regime]:
        """Those in force around these instants, with some before and after them."""
        around = self._size // _STRETCH + 2
        held = times.drop_nulls().clip(_FIRST, _LAST) // _STRETCH
        near = sorted({stretch + step for stretch in held.unique().to_list() for step in range(-around, around + 1)})
        found: list[Regime] = []
        for stretch in near:
            for regime in _changes(self._zone, stretch):
                if not found or found[-1].offset != regime.offset:
                    found.append(regime)
        return found or [Regime(0, 0)]


def _first_showing(start: int, length: int, regimes: list[Regime]) -> int:
    """The first instant after `start` at which the clock shows `length` more than it did there."""
    at = _regime_at(start, regimes)
    shown = start + regimes[at].offset + length
    ends = [*(regime.start for regime in regimes[at + 1 :]), None]
    for regime, end in zip(regimes[at:], ends, strict=True):
        found = max(shown - regime.offset, regime.start)
        if end is None or found < end:
            return found
    raise AssertionError("the last regime has no end")


def _regime_at(time: int, regimes: list[Regime]) -> int:
    return max(0, bisect_right(regimes, time, key=lambda regime: regime.start) - 1)


@lru_cache(1 << 17)
def _changes(zone: str, stretch: int) -> tuple[Regime, ...]:
    """The regime at the start of a stretch, and those that begin in it."""
    begin = stretch * _STRETCH
    return (Regime(begin, _offset(zone, begin)), *_found(zone, begin, begin + _STRETCH, halvings=3))


def _found(zone: str, low: int, high: int, halvings: int) -> tuple[Regime, ...]:
    """The changes in (low, high]. Some halves are searched even if both ends agree: a clock may be changed back."""
    before, after = _offset(zone, low), _offset(zone, high)
    if high - low == 1:
        return (Regime(high, after),) if before != after else ()
    if before == after and halvings <= 0:
        return ()
    middle = (low + high) // 2
    return _found(zone, low, middle, halvings - 1) + _found(zone, middle, high, halvings - 1)


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _offset(zone: str, time: int) -> int:
    """What the zone's clock shows more than UTC. Unit: milliseconds."""
    when = (_EPOCH + timedelta(milliseconds=min(max(time, _FIRST), _LAST))).astimezone(_zone(zone))
    offset = when.utcoffset()
    assert offset is not None
    return offset // timedelta(milliseconds=1)
