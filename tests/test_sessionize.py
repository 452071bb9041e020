"""Sessions are those of a plain loop over the sorted records, however they came and whenever the run was stopped."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resuming import driven, pulled, written

from clickpipe.core.meter import check
from clickpipe.testing import collect

BEGIN = 1_700_000_000_000
_SETTINGS = settings(max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_RECORDS = st.lists(
    st.fixed_dictionaries(
        {"ts": st.integers(0, 40).map(lambda step: BEGIN + step)},
        optional={"u": st.sampled_from(["a", "a:b", "\\", "\\N", ""]) | st.none(), "k": st.integers(0, 2)},
    ),
    min_size=1,
    max_size=80,
)
_GAPS = st.tuples(st.integers(1, 8), st.none() | st.integers(0, 10))


def rule(records: list[dict[str, Any]], by: list[str], gap: int, most: int | None) -> list[tuple[Any, ...]]:
    """Number, session and position of each record, in order of time."""
    open_: dict[tuple[Any, ...], list[int]] = {}
    out = []
    for record in sorted(records, key=lambda record: int(record["ts"])):
        time, key = record["ts"], tuple(record.get(name) for name in by)
        session = open_.get(key)
        if session is None or time - session[1] >= gap or (most is not None and time - session[0] >= most):
            session = [time, time, 0]
        open_[key] = session = [session[0], time, session[2] + 1]
        out.append((record["n"], spelled(key, session[0]), session[2], session[0]))
    return out


def spelled(key: tuple[Any, ...], start: int) -> str:
    parts = [r"\N" if value is None else str(value).replace("\\", "\\\\").replace(":", "\\:") for value in key]
    return ":".join([*parts, str(start)])


@given(
    records=_RECORDS,
    by=st.sampled_from([["u"], ["k"], ["u", "k"]]),
    gaps=_GAPS,
    delay=st.integers(0, 12),
    batch=st.sampled_from([1, 100, 300, 1 << 20]),
)
@_SETTINGS
def test_the_rule(
    records: list[dict[str, Any]], by: list[str], gaps: tuple[int, int | None], delay: int, batch: int, tmp_path: Path
) -> None:
    path = written(records, tmp_path)
    seen = collect(f"{_ingest(path, delay, batch)} | {_sessionize(by, gaps)}")
    late = {row["n"] for row in seen.late}
    assert late == _late(records, delay)
    expected = rule([record for record in records if record["n"] not in late], by, *_given(gaps))
    assert [(row["n"], row["session_id"], row["session_position"], row["session_start"]) for row in seen.rows] == expected
    check(seen.accounts)


@given(records=_RECORDS, gaps=_GAPS, seed=st.integers(), batch=st.sampled_from([1, 200, 1 << 20]))
@_SETTINGS
def test_any_order_within_the_bound_gives_the_same(
    records: list[dict[str, Any]], gaps: tuple[int, int | None], seed: int, batch: int, tmp_path: Path
) -> None:
    path = written(sorted(records, key=lambda record: int(record["ts"])), tmp_path)
    expected = collect(f"{_ingest(path, 0, 1 << 20)} | {_sessionize(['u'], gaps)}").rows
    lines = path.read_text().splitlines(keepends=True)
    random.Random(seed).shuffle(lines)
    path.write_text("".join(lines))
    seen = collect(f"{_ingest(path, 400, batch)} | {_sessionize(['u'], gaps)}").rows
    assert _by_session(seen) == _by_session(expected)


@given(records=_RECORDS, gaps=_GAPS, delay=st.integers(0, 12), data=st.data(), batch=st.sampled_from([1, 150, 600]))
@_SETTINGS
def test_stopped_and_resumed_at_any_point(
    records: list[dict[str, Any]], gaps: tuple[int, int | None], delay: int, data: st.DataObject, batch: int, tmp_path: Path
) -> None:
    path = written(records, tmp_path)
    step, columns, pulls = pulled(f"{_ingest(path, delay, batch)} | {_sessionize(['u', 'k'], gaps)}")
    stops = data.draw(st.sets(st.integers(0, len(pulls)), max_size=4))
    assert driven(step, columns, pulls, sorted(stops)) == driven(step, columns, pulls, ())


@pytest.mark.parametrize(("batch", "resumed"), [(1_000, 0), (1_000, 1), (1 << 20, 0)])
def test_a_session_goes_on_when_its_key_becomes_a_float(batch: int, resumed: int, tmp_path: Path) -> None:
    """The first 1,000 records say integer, and one says 0.5: key 1 is still called 1."""
    records = [{"ts": BEGIN + n, "k": n % 2} for n in range(1_000)] + [
        {"ts": BEGIN + 1_000, "k": 0.5},
        {"ts": BEGIN + 1_001, "k": 1},
    ]
    path = written(records, tmp_path)
    seen = collect(f"ingest {path} --time ts --batch-bytes {batch} | sessionize --by k --gap 1h", resumed)
    assert [row["session_id"] for row in seen.rows[-3:]] == [f"1:{BEGIN + 1}", f"0.5:{BEGIN + 1_000}", f"1:{BEGIN + 1}"]
    assert seen.rows[-1]["session_position"] == 501


def test_a_session_is_not_forgotten_while_it_may_go_on(tmp_path: Path) -> None:
    """The watermark stands one millisecond before the end of the gap, and there the next record is."""
    records = [{"ts": BEGIN, "u": "a"}, {"ts": BEGIN + 9, "u": "b"}, {"ts": BEGIN + 9, "u": "a"}, {"ts": BEGIN + 19, "u": "a"}]
    path = written(records, tmp_path)
    seen = collect(f"{_ingest(path, 0, 1)} | sessionize --by u --gap 10ms")
    assert [(row["u"], row["session_position"]) for row in seen.rows] == [("a", 1), ("b", 1), ("a", 2), ("a", 1)]


def test_what_is_kept_is_bounded_by_what_may_go_on(tmp_path: Path) -> None:
    """A key that is seen again and again is one row, and one whose gap has passed is none."""
    path = written([{"ts": BEGIN + n, "u": f"u{n // 10 if n % 2 else 'x'}"} for n in range(3_000)], tmp_path)
    step, columns, pulls = pulled(f"{_ingest(path, 0, 200)} | sessionize --by u --gap 50ms")
    operator, most = step.open(columns, {}), 0
    for pull in pulls:
        for batch in pull.batches:
            assert not list(operator.on_batch(batch.need(step.needs(columns), set())[0]))
        assert pull.watermark is not None
        list(operator.on_watermark(pull.watermark))
        most = max(most, operator.snapshot()["sessions"].height if "sessions" in operator.snapshot() else 0)
    assert 0 < most <= 30


def _given(gaps: tuple[int, int | None]) -> tuple[int, int | None]:
    """A session may be as long as its gap, and longer."""
    return gaps[0], None if gaps[1] is None else gaps[0] + gaps[1]


def _sessionize(by: list[str], gaps: tuple[int, int | None]) -> str:
    gap, most = _given(gaps)
    return f"sessionize --by {','.join(by)} --gap {gap}ms" + (f" --max-duration {most}ms" if most is not None else "")


def _late(records: list[dict[str, Any]], delay: int) -> set[int]:
    times = [record["ts"] for record in records]
    return {record["n"] for at, record in enumerate(records) if at and times[at] < max(times[:at]) - delay}


def _by_session(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Without what tells apart records of one time, whose order is that of arrival."""
    return sorted((row["ts"], row["session_id"], row["session_position"], row["session_start"]) for row in rows)


def _ingest(path: Path, delay: int, batch: int) -> str:
    kind = "" if '"k": 0.5' in path.read_text() else "--columns n:int,ts:int,u:str,k:int"
    return f"ingest {path} --time ts --max-out-of-orderness {delay}ms --batch-bytes {batch} {kind}"
