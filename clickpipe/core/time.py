"""Event time: what a time field says, and which records are late.

Instants are integers, epoch milliseconds, UTC. Lateness is decided once, per record, at the
source, from the watermark just before that record:

    record     t=1  t=9  t=3  t=12        max_out_of_orderness = 4
    W before    -   -3    5     5         W = greatest time so far - 4
    late?       no   no  yes    no        the third carries _mark 5

Decided per batch instead, the answer would change with the batch size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from clickpipe.core.lateness import Lateness

YEAR_1 = -62_135_596_800_000
YEAR_9999_END = 253_402_300_800_000
UNITS = ("s", "ms", "us", "ns")

# Told apart by magnitude: in milliseconds these bounds are the years 1973 to 5138, and each other
# unit reads its own numbers of that size as years the same way.
_S, _MS, _US = 10**11, 10**14, 10**17


def to_milliseconds(value: pl.Expr, kind: str, unit: str = "auto", zone: str = "UTC") -> pl.Expr:
    """A time field -> Int64 epoch milliseconds; null where it is no instant between the years 1 and 9999."""
    if kind == "str":
        instant = _from_text(value, zone)
    elif kind == "float":
        finite = pl.when(value.is_finite()).then(value)
        instant = _scaled(finite, unit).floor().cast(pl.Int64, strict=False)
    else:
        instant = _scaled(value, unit).cast(pl.Int64)
    return pl.when((instant >= YEAR_1) & (instant < YEAR_9999_END)).then(instant)


def instants(values: pl.Series, kind: str, unit: str = "auto", zone: str = "UTC") -> pl.Series:
    """The same for a whole column, quickly where it holds milliseconds of our time already."""
    if kind == "time":
        return values
    if kind == "int" and unit in ("auto", "ms") and not values.null_count() and len(values):
        least, greatest = values.min(), values.max()
        if least >= _S and greatest < _MS:  # type: ignore[operator]  # an Int64 series
            return values
    frame = values.alias("value").to_frame()
    return frame.select(
        to_milliseconds(pl.col("value"), "int" if kind == "time" else kind, unit, zone).alias(values.name)
    ).to_series()


def _scaled(value: pl.Expr, unit: str) -> pl.Expr:
    factor = {"s": value * 1_000, "ms": value, "us": value // 1_000, "ns": value // 1_000_000}
    if unit != "auto":
        # A product that leaves 64 bits would wrap round into the allowed years.
        return pl.when(_is_below(value, 10**15)).then(factor[unit]) if unit == "s" else factor[unit]
    return (
        pl.when(_is_below(value, _S))
        .then(factor["s"])
        .when(_is_below(value, _MS))
        .then(factor["ms"])
        .when(_is_below(value, _US))
        .then(factor["us"])
        .otherwise(factor["ns"])
    )


def _is_below(value: pl.Expr, bound: int) -> pl.Expr:
    return value.is_between(-bound, bound, closed="none")  # the least integer is its own absolute value


def _from_text(value: pl.Expr, zone: str) -> pl.Expr:
    """RFC 3339 with a zone; ISO without one is in `zone`."""
    text = value.str.strip_chars().str.replace(r"^(\d{4}-\d\d-\d\d)[ t]", "${1}T").str.replace("[zZ]$", "+00:00")
    zoned = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False)
    bare = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    day = text.str.to_datetime("%Y-%m-%d", time_unit="us", strict=False)
    local = pl.coalesce(bare, day).dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return pl.coalesce(zoned.dt.epoch("us"), local.dt.epoch("us")).floordiv(1_000)


def parse_instant(text: str, zone: str = "UTC") -> int:
    """A time that a person typed: RFC 3339 or epoch. Raises ValueError."""
    if text.removeprefix("-").isdecimal():
        number = int(text)
        size = abs(number)
        return number * 1_000 if size < _S else number if size < _MS else number // 1_000 if size < _US else number // 10**6
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'"{text}" is not a time; times look like 2026-03-01T09:00:00Z or 1772355600') from None
    when = when if when.tzinfo else when.replace(tzinfo=ZoneInfo(zone))
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def rfc3339(value: pl.Expr) -> pl.Expr:
    """Epoch milliseconds -> `2026-03-01T09:00:00Z`, with milliseconds only where there are any."""
    instant = pl.from_epoch(value, time_unit="ms")
    whole = instant.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return pl.when(value % 1_000 == 0).then(whole).otherwise(instant.dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))


def instant_text(milliseconds: int) -> str:
    """The same of one instant."""
    return str(pl.select(rfc3339(pl.lit(milliseconds))).item())


@dataclass
class Judged:
    """What a split's clock says of some records: one value a record, None where all are in order."""

    mark: pl.Series | None  # the watermark just before the record if the record is late, else null
    future: pl.Series | None  # whether the record's time is too far ahead to be believed


class SplitClock:
    """The watermark of one split: the greatest event time so far, less the out-of-orderness.

    Unit: milliseconds. `max_future_skew`: a record further than this ahead of both the watermark
    and the time of arrival is not believed and moves nothing.
    """

    def __init__(self, out_of_orderness: int, max_future_skew: int | None = None, greatest: int | None = None) -> None:
        self._delay, self._skew, self.greatest = out_of_orderness, max_future_skew, greatest
        self.lateness = Lateness()
        self.ahead = self.furthest_ahead = 0  # records that were not believed, and by how much the worst was ahead

    @property
    def watermark(self) -> int | None:
        return None if self.greatest is None else self.greatest - self._delay

    def lift(self, watermark: int) -> None:
        """The stream has gone on to here without this split: what it gives from now on is judged by that."""
        greatest = watermark + self._delay
        self.greatest = greatest if self.greatest is None else max(greatest, self.greatest)

    def may_be_ahead(self, greatest: int, arrival: int) -> bool:
        """Whether records up to this time that arrived then or later can be too far ahead."""
        return self._skew is not None and greatest > arrival + self._skew

    def judge(self, times: pl.Series, arrival: int | None = None) -> Judged:
        """Shape: one instant a record, in the order of arrival."""
        future = self._too_far_ahead(times, arrival)
        believed = times if future is None else times.zip_with(~future, pl.Series([None], dtype=pl.Int64))
        mark = self._marks(times, believed)
        greatest = believed.max()
        if isinstance(greatest, int):
            self.greatest = greatest if self.greatest is None else max(greatest, self.greatest)
        return Judged(mark, future)

    def _marks(self, times: pl.Series, believed: pl.Series) -> pl.Series | None:
        """The watermark before each late record. One quick pass tells whether there is any."""
        if not len(times):
            return None
        first = believed[0] if self.greatest is None else self.greatest
        # The greatest time up to a record will do for that before it: a record that sets it is not late.
        greatest = pl.Series([first], dtype=pl.Int64).append(believed).cum_max().slice(1)
        if believed is not times:
            greatest = greatest.fill_null(strategy="forward")
        behind = greatest - times
        most = self._observed(behind, believed)
        if most <= self._delay:
            return None
        return (greatest - self._delay).zip_with(behind > self._delay, pl.Series([None], dtype=pl.Int64)).alias("_mark")

    def _observed(self, behind: pl.Series, believed: pl.Series) -> int:
        """How far the latest record is behind."""
        most = behind.max()
        if isinstance(most, int) and most > 0:
            self.lateness.add(behind.filter(believed.is_not_null()) if believed.null_count() else behind)
            return most
        self.lateness.add_in_order(len(believed) - believed.null_count())
        return 0

    def _too_far_ahead(self, times: pl.Series, arrival: int | None) -> pl.Series | None:
        """Which records are too far ahead; None when none is.

        One record that is not believed must not make the next one believable, so where any is in
        doubt the records are gone through one by one. That is rare: a clock has to be wrong.
        """
        if self._skew is None or not len(times):
            return None
        before = times.cum_max().forward_fill().shift(1)
        bound = (before.clip(lower_bound=self.greatest) if self.greatest is not None else before) - self._delay
        if self.greatest is not None:
            bound = bound.fill_null(self.greatest - self._delay)
        if arrival is not None:
            bound = bound.fill_null(arrival).clip(lower_bound=arrival)
        if not (times > bound + self._skew).any():
            return None
        return pl.Series([*self._one_by_one(times.to_list(), arrival)], dtype=pl.Boolean)

    def _one_by_one(self, times: list[int | None], arrival: int | None) -> list[bool]:
        assert self._skew is not None
        greatest, verdicts = self.greatest, []
        for time in times:
            bounds = [b for b in (None if greatest is None else greatest - self._delay, arrival) if b is not None]
            far = time is not None and bool(bounds) and time > max(bounds) + self._skew
            verdicts.append(far)
            if time is not None and far:
                self.ahead, self.furthest_ahead = self.ahead + 1, max(self.furthest_ahead, time - max(bounds))
            elif time is not None:
                greatest = time if greatest is None else max(greatest, time)
        return verdicts

    # For a checkpoint: what it has seen, besides the greatest time.

    def to_json(self, buckets: int) -> dict[str, Any]:
        ahead = {"ahead": {"records": self.ahead, "furthest": self.furthest_ahead}} if self.ahead else {}
        return ({"lateness": self.lateness.to_json(buckets)} if self.lateness.records else {}) | ahead

    def restore(self, said: Mapping[str, Any]) -> None:
        if "lateness" in said:
            self.lateness = Lateness.from_json(said["lateness"])
        if "ahead" in said:
            self.ahead, self.furthest_ahead = said["ahead"]["records"], said["ahead"]["furthest"]
