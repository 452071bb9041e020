"""Records spread over several files: the results are those of one file, however they are spread, and in whatever order."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickpipe.core.watched import Watched
from clickpipe.testing import collect

SIZE, BOUND = 100, 30
LONGEST = 40  # bytes of a line


@st.composite
def spreads(draw: st.DrawFn) -> list[list[int]]:
    """The records of each file; in none of them is one behind another by more than the bound."""
    files = [sorted(draw(st.lists(st.integers(-2_000, 2_000), max_size=12))) for _ in range(draw(st.integers(1, 4)))]
    return [sorted(times, key=lambda time: time + draw(st.integers(0, BOUND))) for times in files]


@pytest.fixture(autouse=True)
def nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "look", 0.0)


@pytest.mark.parametrize("follow", [False, True])
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=spreads(), batch=st.sampled_from((1, 40, 1_000)), order=st.randoms(use_true_random=False))
def test_nothing_is_late_and_nothing_twice(
    tmp_path: Path, follow: bool, files: list[list[int]], batch: int, order: object
) -> None:
    """Files that are read one after the other, and files that are followed, are merged by the slowest."""
    names = []
    for number, times in enumerate(files):
        names.append(str(tmp_path / f"{number}.ndjson"))
        Path(names[-1]).write_text("".join(json.dumps({"t": time}) + "\n" for time in times))
    order.shuffle(names)  # type: ignore[attr-defined]  # Hypothesis' Random has no public name
    if follow:  # a look at a file gives a whole record: who has none to give yet is not waited for
        batch = max(batch, LONGEST)
    more = "--follow --idle-timeout 0s" if follow else ""
    found = collect(
        f"ingest {' '.join(names)} --columns t:int --time t --time-unit ms --max-out-of-orderness {BOUND}ms"
        f" --batch-bytes {batch} {more} | window tumble {SIZE}ms | aggregate n='count(*)' first='min(t)'",
        ends_after=sum(map(len, files)) if follow else None,
    )
    everything = [time for times in files for time in times]
    counted = Counter(time // SIZE * SIZE for time in everything)
    assert found.late == []
    assert [(row["window_start"], row["n"]) for row in found.rows] == sorted(counted.items())
    assert {row["window_start"]: row["first"] for row in found.rows} == {
        start: min(time for time in everything if time // SIZE * SIZE == start) for start in counted
    }
