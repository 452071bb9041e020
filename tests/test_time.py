"""Event time: what a time field says, and which records are late, one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from clickpipe.core.time import SplitClock, instants, parse_instant, rfc3339, to_milliseconds
from clickpipe.core.units import format_duration, parse_duration, parse_size


@given(
    st.lists(st.integers(-100, 100), max_size=40),
    st.integers(0, 30),
    st.integers(1, 10),
    st.none() | st.integers(0, 40),
    st.none() | st.integers(-100, 100),
)
@settings(max_examples=examples(400), deadline=None)
def test_lateness_is_decided_record_by_record(
    times: list[int], delay: int, batch: int, skew: int | None, arrival: int | None
) -> None:
    """However the records are batched, the answer is that of a loop over them."""
    clock = SplitClock(delay, skew)
    marks: list[int | None] = []
    future: list[bool] = []
    for first in range(0, len(times), batch):
        piece = pl.Series(times[first : first + batch], dtype=pl.Int64)
        judged = clock.judge(piece, arrival)
        marks += [None] * len(piece) if judged.mark is None else judged.mark.to_list()
        future += [False] * len(piece) if judged.future is None else judged.future.to_list()
    expected_marks, expected_future, watermark = _one_by_one(times, delay, skew, arrival)
    assert future == expected_future
    assert [mark for mark, far in zip(marks, future, strict=True) if not far] == [
        mark for mark, far in zip(expected_marks, expected_future, strict=True) if not far
    ]
    assert clock.watermark == watermark


def _one_by_one(
    times: list[int], delay: int, skew: int | None, arrival: int | None
) -> tuple[list[int | None], list[bool], int | None]:
    marks: list[int | None] = []
    future = []
    watermark: int | None = None
    for time in times:
        bounds = [bound for bound in (watermark, arrival) if bound is not None]
        far = skew is not None and bool(bounds) and time > max(bounds) + skew
        marks.append(watermark if watermark is not None and time < watermark else None)
        future.append(far)
        if not far:
            watermark = time - delay if watermark is None else max(watermark, time - delay)
    return marks, future, watermark


def test_one_wrong_clock_makes_no_other_believable() -> None:
    """Two records from 2038 in a row are both dead letters."""
    clock = SplitClock(0, 10)
    judged = clock.judge(pl.Series([0, 1_000, 1_001, 5], dtype=pl.Int64))
    assert judged.future is not None
    assert judged.future.to_list() == [False, True, True, False]
    assert clock.watermark == 5


def test_arrival_bounds_the_first_record() -> None:
    assert SplitClock(0, 10).judge(pl.Series([500], dtype=pl.Int64), arrival=100).future is not None
    assert SplitClock(0, 10).judge(pl.Series([105], dtype=pl.Int64), arrival=100).future is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01T09:00:00Z", "2026-03-01T09:00:00+00:00"),
        ("2026-03-01t09:00:00z", "2026-03-01T09:00:00+00:00"),
        ("2026-03-01T09:00:00.123456+05:30", "2026-03-01T03:30:00.123000+00:00"),
        ("2026-03-01 09:00:00", "2026-03-01T09:00:00+00:00"),
        ("2026-03-01", "2026-03-01T00:00:00+00:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999000+00:00"),
        ("10000-01-01T00:00:00Z", None),
        ("2026-13-01T00:00:00Z", None),
        ("2026-02-30", None),
        ("09:00", None),
        ("", None),
        ("soon", None),
    ],
)
def test_text_as_time(text: str, expected: str | None) -> None:
    seen = instants(pl.Series([text]), "str")[0]
    assert seen == (None if expected is None else _epoch(datetime.fromisoformat(expected)))


def test_a_zone_with_daylight_saving() -> None:
    """A time that comes twice is the earlier one; one that never came is no instant."""
    seen = instants(pl.Series(["2026-10-25T02:30:00", "2026-03-29T02:30:00"]), "str", zone="Europe/Berlin")
    assert seen.to_list() == [_epoch(datetime(2026, 10, 25, 0, 30, tzinfo=UTC)), None]


@pytest.mark.parametrize(("factor", "unit"), [(1, "s"), (10**3, "ms"), (10**6, "us"), (10**9, "ns")])
@given(st.integers(200_000_000, 90_000_000_000))
@settings(max_examples=examples(50), deadline=None)
def test_units_are_told_apart_by_magnitude(factor: int, unit: str, seconds: int) -> None:
    """From 1976 to 4821 in each of the four units (nanoseconds as far as 64 bits go)."""
    if seconds * factor >= 2**63:
        return
    values = pl.Series([seconds * factor], dtype=pl.Int64)
    assert instants(values, "int").to_list() == [seconds * 1_000]
    assert instants(values, "int", unit).to_list() == [seconds * 1_000]


def test_numbers_that_are_no_time() -> None:
    assert instants(pl.Series([float("nan"), float("inf"), 1e300, None]), "float").to_list() == [None] * 4
    assert instants(pl.Series([2**63 - 1, -(2**63)], dtype=pl.Int64), "int", "s").to_list() == [None, None]
    assert pl.select(to_milliseconds(pl.lit(-62_135_596_800_001), "int", "ms")).item() is None


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
@settings(max_examples=examples(200), deadline=None)
def test_rfc_3339_round_trip(milliseconds: int) -> None:
    text = pl.select(rfc3339(pl.lit(milliseconds))).item()
    assert parse_instant(text) == milliseconds
    assert instants(pl.Series([text]), "str").to_list() == [milliseconds]


@given(st.integers(0, 10**12))
def test_durations_round_trip(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds)) == milliseconds


@pytest.mark.parametrize("text", ["", "5", "-5s", "1.5s", "5 s", "1mo", "s", "1s1h", "1h1h", "999999999999d", "１s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|longer"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [("65536", 65_536), ("64KiB", 65_536), ("8MiB", 8 << 20), ("1MB", 10**6), ("7B", 7)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5MiB", "8 MiB", "8mib", "MiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


def _epoch(when: datetime) -> int:
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
