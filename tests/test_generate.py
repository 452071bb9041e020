"""`generate` gives the same bytes for the same seed, and its answers are those of a right pipeline."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from clickpipe.core.option import Duration
from clickpipe.operators.generate import Generate
from clickpipe.testing import collect

STEP = Generate(count=5_000, rate=100.0, seed=3, disorder=Duration(5_000), late=0.01, duplicates=0.02, bad=0.005)


def test_the_same_seed_gives_the_same_bytes() -> None:
    """In blocks of any size; another seed gives others."""
    whole = b"".join(STEP.raw())
    assert b"".join(STEP.raw(block=97)) == whole
    assert b"".join(Generate(count=5_000, seed=4).raw()) != b"".join(Generate(count=5_000, seed=3).raw())


def test_the_shape_of_a_record() -> None:
    lines = b"".join(Generate(count=3).raw()).splitlines()
    names = ["ts", "event_id", "user_id", "event", "page", "country", "referrer", "device", "latency_ms"]
    assert [list(json.loads(line)) for line in lines] == [names] * 3


def test_the_answers_are_what_a_pipeline_finds(tmp_path: Path) -> None:
    """Bad lines are bad, everything else is counted, duplicates too."""
    answers = tmp_path / "answers.json"
    step = Generate(**{**vars(STEP), "answers": str(answers)})
    path = tmp_path / "clicks.ndjson"
    path.write_bytes(b"".join(step.raw()))
    known = json.loads(answers.read_text())
    seen = collect(
        f"ingest {path} --time ts --max-out-of-orderness 11m --strict "
        "| aggregate records='count(*)' users='count(DISTINCT user_id)' pages='count(DISTINCT page)' "
        "latency_ms_sum='sum(latency_ms)' first_ts='min(ts)' last_ts='max(ts)'"
    )
    assert seen.rows == [{name: known[name] for name in seen.rows[0]}]
    assert len(seen.dead) == known["bad"] > 0
    ids = [record["event_id"] for record in collect(f"ingest {path} --time ts --strict | select event_id").rows]
    assert len(ids) == known["records"]
    assert known["duplicates"] > 50


def test_disorder_and_lateness_are_bounded() -> None:
    lines = b"".join(
        Generate(count=5_000, rate=100.0, seed=3, disorder=Duration(5_000), start="2026-03-01T00:00:00Z").raw()
    ).splitlines()
    times = [json.loads(line)["ts"] for line in lines]
    due = [1_772_323_200_000 + 10 * number for number in range(5_000)]
    assert all(0 <= when - time <= 5_000 for time, when in zip(times, due, strict=True))
    assert any(b < a for a, b in itertools.pairwise(times))


def test_pages_have_the_asked_skew() -> None:
    """With --skew 1 the first of ten pages gets a share of 1 / 2.929."""
    lines = b"".join(Generate(count=20_000, pages=10, skew=1.0).raw()).splitlines()
    first = sum(b'"/p/1"' in line for line in lines) / 20_000
    assert 0.32 < first < 0.36
