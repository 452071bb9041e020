"""Accounts per window: each record in its newest window, whatever the form, and all of them balanced."""

from __future__ import annotations

import json
import random
import re
import shlex
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path

import pytest
from examples import some
from hypothesis import given
from hypothesis import strategies as st

from clickpipe.core import bywindow
from clickpipe.core.bywindow import ByWindow
from clickpipe.core.meter import Ledger
from clickpipe.errors import DataError
from clickpipe.testing import environment

START = 1_767_225_600_000  # 2026-01-01T00:00:00Z
CLICKPIPE = [sys.executable, "-m", "clickpipe"]
SPOKEN = {"dead letter": "dead"}


def _input(folder: Path, seed: int = 1) -> list[dict[str, object]]:
    """Some are late, some filtered before the windows, some behind them, some bad in the aggregate, some bad at once."""
    chance = random.Random(seed)
    records: list[dict[str, object]] = []
    for number in range(400):
        time = START + number * 500 - chance.choice([0, 0, 0, 3_000, 30_000, 60_000])
        page, kind = f"/p/{chance.randrange(4)}", chance.choice(["click", "click", "view"])
        records.append({"ts": time, "page": page, "kind": kind, "ms": "slow" if number % 40 == 7 else number})
    lines = [json.dumps(record) for record in records]
    lines.insert(100, "oops")
    (folder / "in.ndjson").write_text("\n".join(lines) + "\n")
    return records


STEPS = (
    "ingest in.ndjson --time ts --max-out-of-orderness 2s --columns ts:int,page:str,kind:str,ms:int --batch-bytes 2KiB --name c",
    "filter \"kind = 'click'\"",
    "window {window}",
    "filter \"page <> '/p/3'\"",
    "aggregate --by page n='count(*)' s='sum(ms)'",
    "sink out.ndjson",
)


def _oracle(records: list[dict[str, object]], size: int, slide: int) -> dict[int | str, Counter[str]]:
    greatest = None
    found: dict[int | str, Counter[str]] = defaultdict(Counter)
    found["before"] = Counter(read=1, dead=1)
    for record in records:
        time = record["ts"]
        assert isinstance(time, int)
        mark = None if greatest is None else greatest - 2_000
        greatest = time if greatest is None else max(greatest, time)
        newest = time // slide * slide
        if record["kind"] != "click":
            place: int | str = "before"
            outcome = "filtered"
        else:
            place = newest
            is_late = mark is not None and time < mark and newest + size <= mark
            outcome = "late" if is_late else "filtered" if record["page"] == "/p/3" else "aggregated"
            if outcome == "aggregated" and not isinstance(record["ms"], int):
                outcome = "dead"
        found[place] += Counter({"read": 1, outcome: 1})
    return found


def _told(errors: str) -> dict[int | str, Counter[str]]:
    found: dict[int | str, Counter[str]] = {}
    for line in errors.splitlines():
        match = re.match(r"clickpipe:   (before|earlier|2\S+?)(?: windows)?: read ([\d,]+) = (.*)", line)
        if match:
            parts = re.findall(r"([a-z ]+?) ([\d,]+)", match[3].replace("+ ", ""))
            counts = {SPOKEN.get(name.strip(), name.strip()): int(count.replace(",", "")) for name, count in parts}
            place = match[1] if not match[1].startswith("2") else _milliseconds(match[1])
            found[place] = Counter(counts | {"read": int(match[2].replace(",", ""))})
    return found


def _milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _run(folder: Path, form: str, window: str, more: str = "", code: int = 0) -> str:
    steps = [step.format(window=window) for step in STEPS]
    steps[0] += more
    if form == "shell":
        words = ["bash", "-c", "set -o pipefail; " + " | ".join(f"{shlex.join(CLICKPIPE)} {step}" for step in steps)]
        env = environment(folder, CLICKPIPE_ACCOUNTS="windows")
    else:
        options = ["--no-fuse"] if form == "no_fuse" else ["--no-fuse", "--codec", "arrow"] if form == "arrow" else []
        words = [*CLICKPIPE, "run", "--accounts", "windows", *options, "-c", " | ".join(steps)]
        env = environment(folder)
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


@pytest.mark.parametrize("form", some(["fused", "shell", "no_fuse", "arrow"], 3))
@pytest.mark.parametrize("window", ["tumble 10s", "hop 20s --slide 5s"])
def test_each_record_is_in_one_account(folder: Path, form: str, window: str) -> None:
    records = _input(folder)
    size, slide = (20_000, 5_000) if window.startswith("hop") else (10_000, 10_000)
    expected = _oracle(records, size, slide)
    assert {"late", "filtered", "aggregated", "dead"} <= {name for counts in expected.values() for name in counts}
    assert _told(_run(folder, form, window)) == expected


@pytest.mark.parametrize("form", ["fused", "shell"])
def test_they_go_on_with_the_checkpoints(folder: Path, form: str) -> None:
    """A run that is killed, and the one that goes on: together the accounts of one."""
    records = _input(folder)
    steps = [step.format(window="tumble 10s") for step in STEPS]
    steps[0] += " --checkpoint 1ms"
    env = environment(folder, CLICKPIPE_ACCOUNTS="windows", CLICKPIPE_KILL_POINT="after-manifest:3")
    words = [*CLICKPIPE, "run", "--restart", "no", "-c", " | ".join(steps)]
    assert subprocess.run(words, cwd=folder, env=env, capture_output=True, check=False).returncode != 0
    assert _told(_run(folder, form, "tumble 10s", " --checkpoint 1ms")) == _oracle(records, 10_000, 10_000)


def test_records_that_are_written(folder: Path) -> None:
    _input(folder)
    line = f"{STEPS[0]} | window hop 20s --slide 5s | sink out.ndjson"
    words = [*CLICKPIPE, "run", "--accounts", "windows", "-c", line]
    done = subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = _told(done.stderr)
    assert sum(counts["read"] for counts in told.values()) == 401
    assert all(counts["read"] == counts["written"] + counts["late"] + counts["dead"] for counts in told.values())


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("window session 5s --by page | aggregate n='count(*)'", "are for fixed windows, and these are session windows"),
        ("window count 5 --by page | aggregate n='count(*)'", "are for fixed windows, and these are count windows"),
        ("window tumble 5s | select page", "need window_start and window_end, and select drops them"),
    ],
)
def test_where_they_cannot_be_had(folder: Path, steps: str, said: str) -> None:
    _input(folder)
    words = [*CLICKPIPE, "run", "--accounts", "windows", "-c", f"{STEPS[0]} | {steps} | sink out.ndjson"]
    done = subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr


Note = tuple[int, str, int]
NOTES = st.lists(st.tuples(st.integers(-20, 20), st.sampled_from(bywindow.NAMES), st.integers(1, 3)), max_size=60)


@given(NOTES, NOTES, st.integers(1, 5))
def test_sums_keep_the_newest_windows(one: list[Note], other: list[Note], most: int) -> None:
    """However they were noted and joined; through JSON too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bywindow, "MOST", most)
        both = ByWindow()
        for notes in (one, other):
            part = ByWindow()
            for start, name, count in notes:
                part.note(name, {start: count})
            both += ByWindow.from_json(json.loads(json.dumps(part.to_json())))
        starts = sorted({start for start, _, _ in [*one, *other]})
        expected: dict[int | None, Counter[str]] = defaultdict(Counter)
        for start, name, count in [*one, *other]:
            expected[start if start in starts[-most:] else None][name] += count
        told = {start: +Counter(counts) for start, counts in both.rows()}
        assert sum(told.values(), Counter()) == sum(expected.values(), Counter())
        assert len(both.counts) <= most
        assert {start: told[start] for start in both.counts} == {start: expected[start] for start in both.counts}


def test_a_ledger_keeps_them_on_its_way() -> None:
    ledger = Ledger(read=3)
    ledger.windows.note("read", {START: 3})
    assert Ledger.from_json(json.loads(json.dumps(ledger.to_json()))).windows.counts == ledger.windows.counts
    assert "windows" not in Ledger(read=3).to_json()
    with pytest.raises(DataError, match="damaged"):
        Ledger.from_json({"read": 1, "windows": {"counts": {"x": [1]}}})
