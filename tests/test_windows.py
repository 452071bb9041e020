"""Windows of every kind give what plain loops give, however the records were batched, and wherever a run stopped and went on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resuming import collected

from clickpipe.columns import WindowInfo
from clickpipe.core.windows import Windows
from clickpipe.core.zone import ZoneGrid
from clickpipe.testing import Collected, collect

BEGIN = 1_700_000_000_000
_DECLARED = "--columns n:int,ts:int,user:str,v:int"
_SETTINGS = settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_EVENTS = st.lists(st.tuples(st.integers(-40, 90), st.sampled_from(["a", "b", None]), st.integers(0, 9)), min_size=1, max_size=50)
_CUTS = st.sampled_from([(1, 0), (1, 1), (1, 3), (120, 2), (300, 0), (1 << 20, 0)])  # bytes of a batch; resumed every so many
_CALLS = "n='count(*)' s='sum(v)' u='count(DISTINCT v)' f='first(n)' l='last(n)'"

Event = tuple[int, str | None, int]


def _run(events: list[Event], folder: Path, cut: tuple[int, int], steps: str, delay: int) -> Collected:
    """Seconds of event time, as records."""
    records = [{"ts": BEGIN + t * 1_000, "user": user, "v": v} for t, user, v in events]
    return collected(records, folder, cut, f"--max-out-of-orderness {delay}s {_DECLARED}", steps)


def _marks(events: list[Event], delay: int) -> list[int | None]:
    """The watermark just before each record that is late."""
    marks: list[int | None] = []
    greatest = None
    for t, _, _ in events:
        mark = None if greatest is None else greatest - delay
        marks.append(mark if mark is not None and t < mark else None)
        greatest = t if greatest is None else max(greatest, t)
    return marks


def _summary(members: list[tuple[int, Event]]) -> dict[str, Any]:
    by_time = sorted(members, key=lambda member: (member[1][0], member[0]))
    newest = max(t for _, (t, _, _) in members)
    return {
        "n": len(members),
        "s": sum(v for _, (_, _, v) in members),
        "u": len({v for _, (_, _, v) in members}),
        "f": by_time[0][0],
        "l": next(n for n, (t, _, _) in reversed(by_time) if t == newest and n == max(m for m, e in members if e[0] == newest)),
    }


def _latest(rows: list[dict[str, Any]], key: list[str]) -> list[dict[str, Any]]:
    """What a view would hold: of each key the last row, unless it was taken back. `rev` never goes down."""
    held: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        at = tuple(row[name] for name in key)
        before = held.get(at, {})
        assert row.get("rev", 0) >= before.get("rev", 0), f"rev goes down: {before} {row}"
        assert row != before, f"given again, and nothing has changed: {row}"
        held[at] = row
    kept = [{k: v for k, v in row.items() if k not in ("final", "deleted")} for row in held.values() if not row.get("deleted")]
    return sorted(kept, key=str)


def _at(second: int) -> int:
    return BEGIN + second * 1_000


# Fixed windows.


def _windows(kind: str, size: int, slide: int, t: int) -> Iterator[tuple[int, int]]:
    """All windows that hold an instant, by trying all that might. Aligned to BEGIN, which is a multiple of 20 s."""
    if kind == "cumulate":
        start = t - (t + _PHASE) % size
        yield from ((start, end) for end in range(start + slide, start + size + 1, slide) if t < end)
        return
    step = slide if kind == "hop" else size
    for start in range(t - size, t + 1):
        if (start + _PHASE) % step == 0 and start <= t < start + size:
            yield start, start + size


_PHASE = BEGIN // 1_000  # what the epoch is behind BEGIN


@given(
    events=_EVENTS,
    shape=st.sampled_from(
        [
            ("tumble", 10, 10),
            ("hop", 10, 5),
            ("hop", 12, 5),
            ("hop", 7, 1),
            ("hop", 10, 10),
            ("cumulate", 20, 5),
            ("cumulate", 12, 1),
        ]
    ),
    delay=st.integers(0, 60),
    lateness=st.sampled_from([0, 0, 5, 30]),
    emit=st.sampled_from(["final", "final", "update", "early=3s"]),
    cut=_CUTS,
)
@_SETTINGS
def test_fixed_windows(
    events: list[Event], shape: tuple[str, int, int], delay: int, lateness: int, emit: str, cut: tuple[int, int], tmp_path: Path
) -> None:
    """Each record counts in each of its windows that can still be corrected by its mark, and is late if there is none."""
    kind, size, slide = shape
    more = {"tumble": "", "hop": f"--slide {slide}s", "cumulate": f"--step {slide}s"}[kind]
    late = f"--allowed-lateness {lateness}s" if lateness else ""
    steps = f"window {kind} {size}s {more} {late} | aggregate --by user {_CALLS} --emit {emit}"
    seen = _run(events, tmp_path, cut, steps, delay)

    groups: dict[tuple[int, int, str | None], list[tuple[int, Event]]] = {}
    revs: dict[tuple[int, int, str | None], int] = {}
    expected_late = []
    for n, (event, mark) in enumerate(zip(events, _marks(events, delay), strict=True)):
        open_ = [w for w in _windows(kind, size, slide, event[0]) if mark is None or w[1] + lateness > mark]
        if not open_:
            expected_late.append(n)
        for window in open_:
            groups.setdefault((*window, event[1]), []).append((n, event))
            revs[*window, event[1]] = revs.get((*window, event[1]), 0) + (mark is not None and window[1] <= mark)
    expected = [
        {"window_start": _at(start), "window_end": _at(end), "user": user}
        | _summary(members)
        | ({"rev": revs[start, end, user]} if lateness else {})
        for (start, end, user), members in groups.items()
    ]
    assert _latest(seen.rows, ["window_start", "window_end", "user"]) == sorted(expected, key=str)
    assert [row["n"] for row in seen.late] == expected_late
    if emit == "final" and not lateness:
        assert len(seen.rows) == len(expected)


# Sessions.


def _sessions(
    events: list[Event], gap: int, delay: int, lateness: int
) -> tuple[list[tuple[str | None, list[tuple[int, Event]], int]], list[int]]:
    """Sets of records, one record after the other. With how many records corrected each."""
    done: list[tuple[str | None, list[tuple[int, Event]], int]] = []
    open_: list[tuple[str | None, list[tuple[int, Event]], int]] = []
    late = []
    for n, (event, mark) in enumerate(zip(events, _marks(events, delay), strict=True)):
        t, user, _ = event
        if mark is not None:
            over = [s for s in open_ if s[0] == user and max(e[0] for _, e in s[1]) + gap + lateness <= mark]
            done, open_ = done + over, [s for s in open_ if s not in over]
        near = [s for s in open_ if s[0] == user and any(abs(t - e[0]) < gap for _, e in s[1])]
        if mark is not None and not near and t + gap + lateness <= mark:
            late.append(n)
            continue
        ends = [max(e[0] for _, e in s[1]) + gap for s in near] or [t + gap]
        corrects = mark is not None and any(end <= mark for end in ends)
        joined = (user, [(n, event), *(m for s in near for m in s[1])], sum(s[2] for s in near) + corrects)
        open_ = [s for s in open_ if s not in near] + [joined]
    return done + open_, late


@given(
    events=_EVENTS,
    gap=st.sampled_from([1, 3, 10]),
    delay=st.integers(0, 60),
    lateness=st.sampled_from([0, 0, 4, 30]),
    emit=st.sampled_from(["final", "final", "update", "early=3s"]),
    cut=_CUTS,
)
@settings(_SETTINGS, max_examples=examples(150))
def test_sessions(
    events: list[Event], gap: int, delay: int, lateness: int, emit: str, cut: tuple[int, int], tmp_path: Path
) -> None:
    """Records less than a gap apart are one session; late ones join what is open by their mark, or may be corrected."""
    late = f"--allowed-lateness {lateness}s" if lateness else ""
    seen = _run(events, tmp_path, cut, f"window session {gap}s --by user {late} | aggregate {_CALLS} --emit {emit}", delay)
    sessions, expected_late = _sessions(events, gap, delay, lateness)
    expected = [
        {"window_start": _at(min(e[0] for _, e in members)), "window_end": _at(max(e[0] for _, e in members) + gap), "user": user}
        | _summary(members)
        | ({"rev": rev} if lateness else {})
        for user, members, rev in sessions
    ]
    assert [row["n"] for row in seen.late] == expected_late
    key = ["window_start", "user"] if lateness or emit != "final" else ["window_start", "window_end", "user"]
    if not lateness or len({(row["window_start"], row["user"]) for row in expected}) == len(expected):
        assert _latest(seen.rows, key) == sorted(expected, key=str)


@given(events=_EVENTS, gap=st.sampled_from([3, 10]), cut=_CUTS)
@_SETTINGS
def test_sessions_by_more_columns(events: list[Event], gap: int, cut: tuple[int, int], tmp_path: Path) -> None:
    """Whatever else is grouped by, the session is that of its own key."""
    seen = _run(events, tmp_path, cut, f"window session {gap}s --by user | aggregate --by v {_CALLS}", 200)
    expected = []
    for user, members, _ in _sessions(events, gap, 200, 0)[0]:
        start, end = min(e[0] for _, e in members), max(e[0] for _, e in members) + gap
        for v in {e[2] for _, e in members}:
            row = {"window_start": _at(start), "window_end": _at(end), "user": user, "v": v}
            expected.append(row | _summary([m for m in members if m[1][2] == v]))
    assert sorted(seen.rows, key=str) == sorted(expected, key=str)


@given(events=_EVENTS, gap=st.sampled_from([1, 3, 10]), longest=st.sampled_from([10, 15, 40]), cut=_CUTS)
@_SETTINGS
def test_no_session_is_longer_than_it_may_be(
    events: list[Event], gap: int, longest: int, cut: tuple[int, int], tmp_path: Path
) -> None:
    """The record that would make it so begins the next one: in the order of time, in whatever order they came."""
    steps = f"window session {gap}s --by user --max-duration {longest}s | aggregate {_CALLS}"
    seen = _run(events, tmp_path, cut, steps, 200)
    expected = []
    for user in {user for _, user, _ in events}:
        mine = sorted(((n, e) for n, e in enumerate(events) if e[1] == user), key=lambda member: member[1][0])
        members: list[tuple[int, Event]] = []
        for member in [*mine, (-1, (10**6, user, 0))]:
            t = member[1][0]
            if members and (t - members[-1][1][0] >= gap or t - members[0][1][0] >= longest):
                start = members[0][1][0]
                end = min(members[-1][1][0] + gap, start + longest)
                expected.append({"window_start": _at(start), "window_end": _at(end), "user": user} | _summary(members))
                members = []
            members.append(member)
    assert sorted(seen.rows, key=str) == sorted(expected, key=str)


@given(
    events=_EVENTS,
    gap=st.sampled_from([3, 10]),
    delay=st.integers(0, 60),
    longest=st.sampled_from([10, 15]),
    lateness=st.sampled_from([0, 6]),
)
@_SETTINGS
def test_late_records_and_bounded_sessions_do_not_depend_on_batches(
    events: list[Event], gap: int, delay: int, longest: int, lateness: int, tmp_path: Path
) -> None:
    late = f"--allowed-lateness {lateness}s" if lateness else ""
    steps = f"window session {gap}s --by user --max-duration {longest}s {late} | aggregate {_CALLS}"
    whole = _run(events, tmp_path, (1 << 20, 0), steps, delay)
    for cut in ((1, 0), (1, 1), (200, 1)):
        seen = _run(events, tmp_path, cut, steps, delay)
        assert [row["n"] for row in seen.late] == [row["n"] for row in whole.late]
        key = ["window_start", "user"]
        assert _latest(seen.rows, key) == _latest(whole.rows, key)
    assert sum(row["n"] for row in _latest(whole.rows, ["window_start", "user"])) + len(whole.late) <= len(events)


# Order, counts, calendars.


@given(
    events=_EVENTS,
    data=st.data(),
    kind=st.sampled_from(["tumble 7s", "hop 9s --slide 4s", "session 5s --by user", "cumulate 20s --step 5s"]),
)
@_SETTINGS
def test_order_within_the_bound_does_not_matter(events: list[Event], data: st.DataObject, kind: str, tmp_path: Path) -> None:
    """Any order in which no record is further behind than --max-out-of-orderness gives what sorted input gives."""
    delay = 10
    jittered = [(e, data.draw(st.integers(0, delay))) for e in sorted(events, key=lambda e: e[0])]
    shuffled = [e for e, jitter in sorted(jittered, key=lambda pair: pair[0][0] + pair[1])]
    steps = f"window {kind} | aggregate --by user n='count(*)' s='sum(v)' u='count(DISTINCT v)'"
    mine, theirs = (_run(some, tmp_path, (150, 2), steps, delay) for some in (shuffled, sorted(events, key=lambda e: e[0])))
    assert not mine.late
    assert mine.rows == theirs.rows or sorted(mine.rows, key=str) == sorted(theirs.rows, key=str)


@given(events=_EVENTS, size=st.integers(1, 5), by=st.booleans(), cut=_CUTS)
@_SETTINGS
def test_count_windows(events: list[Event], size: int, by: bool, cut: tuple[int, int], tmp_path: Path) -> None:
    """Every N records of a key, in the order of arrival; no record is late."""
    seen = _run(events, tmp_path, cut, f"window count {size} {'--by user' if by else ''} | aggregate {_CALLS}", 0)
    keys: dict[str | None, list[tuple[int, Event]]] = {}
    for n, event in enumerate(events):
        keys.setdefault(event[1] if by else None, []).append((n, event))
    expected = []
    for user, members in keys.items():
        for number in range(0, len(members), size):
            some = members[number : number + size]
            bounds = {"window_start": _at(min(e[0] for _, e in some)), "window_end": _at(max(e[0] for _, e in some)) + 1}
            expected.append(bounds | {"window_number": number // size} | ({"user": user} if by else {}) | _summary(some))
    assert not seen.late
    assert sorted(seen.rows, key=str) == sorted(expected, key=str)


_ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "UTC")


@given(
    zone=st.sampled_from(_ZONES),
    days=st.integers(-20_000, 30_000),
    seconds=st.lists(st.integers(0, 3 * 86_400), min_size=1, max_size=20),
)
@settings(max_examples=examples(300), deadline=None)
def test_days_of_a_calendar(zone: str, days: int, seconds: list[int]) -> None:
    """A day begins at midnight by zoneinfo, or with the first instant of the day where there is no midnight."""
    times = [(days * 86_400 + second) * 1_000 for second in seconds]
    grid = ZoneGrid(86_400_000, 0, zone)
    starts, ends = grid.before(pl.Series(times)), grid.after(pl.Series(times))
    tz = ZoneInfo(zone)
    for time, start, end in zip(times, starts, ends, strict=True):
        day = _clock(time, tz).date()
        assert start <= time < end
        assert _clock(start, tz).date() == day == _clock(end - 1, tz).date()
        assert _clock(start - 1, tz).date() < day < _clock(end, tz).date()


@given(
    zone=st.sampled_from(_ZONES),
    hours=st.integers(-400_000, 700_000),
    size=st.sampled_from([600, 900, 1_800, 3_600, 5_400, 7_200, 21_600]),
)
@settings(max_examples=examples(150), deadline=None)
def test_windows_of_a_calendar_adjoin(zone: str, hours: int, size: int) -> None:
    """They cover all instants once, and begin where the clock shows a multiple of their size, or was changed."""
    first = hours * 3_600_000
    times = pl.Series([first + step * 300_000 for step in range(24)])
    grid = ZoneGrid(size * 1_000, 0, zone)
    starts, ends = grid.before(times), grid.after(times)
    assert (starts <= times).all()
    assert (times < ends).all()
    assert grid.before(ends).to_list() == ends.to_list()
    assert grid.before(ends - 1).to_list() == starts.to_list()
    tz = ZoneInfo(zone)
    for start in starts.unique():
        clock = _clock(start, tz)
        shown = (clock.replace(tzinfo=None) - datetime(1970, 1, 1)) // timedelta(milliseconds=1)
        assert shown % (size * 1_000) == 0 or _clock(start - 1, tz).utcoffset() != clock.utcoffset()


def test_long_windows_over_a_change_of_the_clock() -> None:
    """A month of days, each of which begins at midnight."""
    tz = ZoneInfo("Europe/Berlin")
    at = [int(datetime(2026, 4, 10, 12, tzinfo=tz).timestamp() * 1_000)]
    windows = Windows(WindowInfo("hop", 30 * 86_400_000, 86_400_000, 0, "Europe/Berlin"))
    start = windows.starts(pl.Series(at))
    stretch = pl.DataFrame([start, windows.ends(start, pl.Series(at))])
    held = windows.spread(stretch, -(2**62), 2**62).select("\0start", "\0end").rows()
    days = [(_clock(a, tz).replace(tzinfo=None), _clock(b, tz).replace(tzinfo=None)) for a, b in sorted(held)]
    first = datetime(2026, 3, 12)
    assert days == [(first + timedelta(days=n), first + timedelta(days=n + 30)) for n in range(30)]


def test_times_of_ten_thousand_years() -> None:
    """Each of them costs some look-ups, and no more."""
    times = pl.Series(range(-62_000_000_000_000, 253_000_000_000_000, 315_000_000_000))
    grid = ZoneGrid(86_400_000, 0, "Europe/Berlin")
    assert (grid.before(times) <= times).all()
    assert (grid.after(times) - grid.before(times)).is_between(82_800_000, 90_000_000).all()


def test_the_hour_that_comes_twice() -> None:
    """Short windows come twice, and long ones take both hours in."""
    twice = int(
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp() * 1_000
    )  # 02:30 summer time; an hour later it is 02:30 again
    times = pl.Series([twice, twice + 3_600_000])
    hours, six = ZoneGrid(3_600_000, 0, "Europe/Berlin"), ZoneGrid(6 * 3_600_000, 0, "Europe/Berlin")
    assert hours.before(times).to_list() == [twice - 1_800_000, twice + 1_800_000]
    assert (six.after(times) - six.before(times)).to_list() == [7 * 3_600_000] * 2


@given(
    times=st.lists(st.integers(-(10**5), 10**5), min_size=1, max_size=10),
    size=st.integers(1, 40),
    slide=st.integers(1, 40),
    offset=st.integers(0, 50),
)
@settings(max_examples=examples(150), deadline=None)
def test_a_stretch_says_which_windows_hold_a_record(times: list[int], size: int, slide: int, offset: int) -> None:
    """Those that reach over it are all [start, start + size) with start = k * slide + offset that hold it, before 1970 too."""
    size, slide = max(size, slide), min(size, slide)
    windows = Windows(WindowInfo("hop", size, slide, offset))
    start = windows.starts(pl.Series(times))
    end = windows.ends(start, pl.Series(times))
    for time, one, other in zip(times, start, end, strict=True):
        stretch = pl.DataFrame({"window_start": [one], "window_end": [other]})
        spread = windows.spread(stretch, -(2**62), 2**62)
        held = sorted(spread.select("\0start", "\0end").rows())
        assert held == [(s, s + size) for s in range(time - size + 1, time + 1) if (s - offset) % slide == 0]


@pytest.mark.parametrize(
    "step", ["tumble 1d --tz Europe/Berlin", "hop 2d --slide 1d --tz Europe/Berlin", "cumulate 1d --step 6h --tz Europe/Berlin"]
)
def test_windows_through_daylight_saving(step: str, tmp_path: Path) -> None:
    """A record every 30 minutes over two changes of the clock: each window has the records that its clock shows."""
    tz = ZoneInfo("Europe/Berlin")
    begins = [datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 10, 23, tzinfo=UTC)]
    times = [begin + timedelta(minutes=30 * step) for begin in begins for step in range(5 * 48)]
    path = tmp_path / "in.ndjson"
    path.write_text("".join(f'{{"ts":{int(time.timestamp())}}}\n' for time in times))
    rows = collect(f"ingest {path} --time ts --batch-bytes 500 | window {step} | aggregate n='count(*)'", 3).rows
    kind = step.split()[0]
    expected: dict[tuple[datetime, datetime], int] = {}
    for time in times:
        midnight = time.astimezone(tz).replace(hour=0, minute=0, tzinfo=None)
        for start, end in _calendar_windows(kind, midnight):
            window = start.replace(tzinfo=tz).astimezone(UTC), end.replace(tzinfo=tz).astimezone(UTC)
            if window[0] <= time < window[1]:
                expected[window] = expected.get(window, 0) + 1
    seen = {(_clock(row["window_start"], UTC), _clock(row["window_end"], UTC)): row["n"] for row in rows}
    assert seen == expected
    assert {46, 50} & set(expected.values()) or kind == "hop"


def _calendar_windows(kind: str, midnight: datetime) -> list[tuple[datetime, datetime]]:
    day = timedelta(days=1)
    if kind == "tumble":
        return [(midnight, midnight + day)]
    if kind == "hop":
        return [(midnight - day, midnight + day), (midnight, midnight + 2 * day)]
    return [(midnight, midnight + timedelta(hours=hours)) for hours in (6, 12, 18, 24)]


def _clock(time: int, zone: Any) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time)).astimezone(zone)
