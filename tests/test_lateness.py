"""What another out-of-orderness would lose: the sketch against a plain loop over all records."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from clickpipe.core import lateness
from clickpipe.core.chance import Chance
from clickpipe.core.lateness import Lateness, upper
from clickpipe.core.time import SplitClock

SHARES = (0.01, 0.001, 0.0001, 0.0)
BEHIND = st.integers(-5, 200) | st.integers(0, 10**11)


def _sketch(behind: list[int], batch: int = 10**9) -> Lateness:
    sketch = Lateness()
    for at in range(0, len(behind), batch):
        sketch.add(pl.Series(behind[at : at + batch], dtype=pl.Int64))
    return sketch


def _exact(behind: list[int], share: float) -> int:
    """The least out-of-orderness with which at most this share is late."""
    late = sorted((one for one in behind if one > 0), reverse=True)
    allowed = int(share * len(behind) + 1e-9)
    return late[allowed] if allowed < len(late) else 0


@given(st.lists(BEHIND, min_size=1, max_size=300), st.sampled_from((0.5, 0.1, 0.01, 0.0)))
@settings(max_examples=examples(300), deadline=None)
def test_its_answer_lies_in_the_bucket_of_the_exact_one(behind: list[int], share: float) -> None:
    exact, answer = _exact(behind, share), _sketch(behind).enough_for(share)
    assert exact <= answer <= exact * lateness.BASE + 1e-6 if exact else answer == 0


@given(st.lists(BEHIND, min_size=1, max_size=100), st.integers(0, 10**11))
@settings(max_examples=examples(300), deadline=None)
def test_no_setting_loses_more_than_it_says(behind: list[int], delay: int) -> None:
    """And those that lose nothing are known exactly."""
    sketch = _sketch(behind)
    late = sum(one > delay for one in behind)
    assert sketch.at_most_late(delay) * len(behind) >= late - 1e-6
    assert (sketch.at_most_late(delay) == 0) == (late == 0)
    assert sketch.at_most_late(0) == sum(one > 0 for one in behind) / len(behind)
    looser = int(delay * lateness.BASE) + 1
    assert sketch.at_most_late(looser) * len(behind) <= late + 1e-6


@given(st.lists(BEHIND, max_size=400), st.integers(1, 60), st.integers(0, 400))
@settings(max_examples=examples(100), deadline=None)
def test_how_it_is_cut_does_not_matter(behind: list[int], batch: int, saved_at: int) -> None:
    """Into batches, and by a restart; also beyond the records that are all counted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lateness, "STRETCH", 64)
        whole = _sketch(behind)
        cut = Lateness.from_json(json.loads(json.dumps(_sketch(behind[:saved_at], batch).to_json(10**6))))
        for at in range(saved_at, len(behind), batch):
            cut.add(pl.Series(behind[at : at + batch], dtype=pl.Int64))
        assert cut.to_json() == whole.to_json()


@given(st.lists(st.lists(BEHIND, max_size=50), max_size=5))
@settings(max_examples=examples(100), deadline=None)
def test_merging(parts: list[list[int]]) -> None:
    """Sketches of some records make that of all."""
    merged = Lateness.merged(map(_sketch, parts))
    assert merged.to_json(10**6) == _sketch([one for part in parts for one in part]).to_json(10**6)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=300), st.integers(1, 20))
@settings(max_examples=examples(100), deadline=None)
def test_written_down_short_it_never_says_less(behind: list[int], most: int) -> None:
    whole = _sketch(behind)
    short = Lateness.from_json(whole.to_json(most))
    assert len(short.counts) <= most
    for delay in (0, 1, 100, 10**4, 10**6, 10**8):
        assert short.at_most_late(delay) >= whole.at_most_late(delay)
    assert short.enough_for(0) == max(behind)


@pytest.mark.parametrize("spread", [5_000, 40])
def test_of_many_records_what_is_rarely_lost_is_exact(spread: int) -> None:
    """Beyond the first 65,536 only some are counted; the answers are those of the loop all the same."""
    numbers = pl.DataFrame({"n": pl.Series(range(400_000), dtype=pl.Int64)})
    behind = numbers.select(Chance(7).below(pl.col("n"), 0, spread).cast(pl.Int64)).to_series().to_list()
    sketch = _sketch(behind, 50_000)
    assert sum(sketch.counts.values()) == pytest.approx(len(behind), rel=0.03)
    for share in SHARES:
        exact = _exact(behind, share)
        assert exact <= sketch.enough_for(share) <= exact * lateness.BASE + 1
        edge = upper(sketch_edge(exact))
        late = sum(one > edge for one in behind)
        assert sketch.at_most_late(edge) * len(behind) == pytest.approx(late, abs=1e-3)


def sketch_edge(behind: int) -> int:
    return next(number for number in range(1_000) if upper(number) >= behind)


@given(st.lists(st.integers(-100, 100), max_size=60), st.integers(0, 30), st.integers(1, 10), st.none() | st.integers(20, 60))
@settings(max_examples=examples(200), deadline=None)
def test_a_clock_sees_how_far_each_record_is_behind(times: list[int], delay: int, batch: int, skew: int | None) -> None:
    """Of the records that it believes; and which setting had lost how many of them follows from it."""
    clock = SplitClock(delay, skew)
    for at in range(0, len(times), batch):
        clock.judge(pl.Series(times[at : at + batch], dtype=pl.Int64))
    behind, ahead = _loop(times, delay, skew)
    assert clock.lateness.to_json() == _sketch(behind).to_json()
    assert (clock.ahead, clock.furthest_ahead) == (len(ahead), max(ahead, default=0))


def _loop(times: list[int], delay: int, skew: int | None) -> tuple[list[int], list[int]]:
    greatest: int | None = None
    behind: list[int] = []
    ahead: list[int] = []
    for time in times:
        if skew is not None and greatest is not None and time > greatest - delay + skew:
            ahead.append(time - (greatest - delay))
            continue
        behind.append(0 if greatest is None else greatest - time)
        greatest = time if greatest is None else max(greatest, time)
    return behind, ahead


def test_what_a_clock_saw_goes_on_over_a_restart() -> None:
    clock = SplitClock(0, 10)
    clock.judge(pl.Series([100, 95, 500, 101], dtype=pl.Int64))
    said: dict[str, Any] = json.loads(json.dumps(clock.to_json(lateness.MOST)))
    again = SplitClock(0, 10, clock.greatest)
    again.restore(said)
    assert again.to_json(lateness.MOST) == said
    assert (again.ahead, again.furthest_ahead, again.lateness.records) == (1, 400, 3)
