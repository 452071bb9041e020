"""Workers change no result: however many they are, whatever dies, and however unequal their work is."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from examples import examples, some
from hypothesis import given, settings
from hypothesis import strategies as st
from test_crash import POINTS

from clickpipe.core.keygroups import GROUPS, worker_of
from clickpipe.testing import environment, run_steps

INGEST = "ingest in.ndjson --time ts --max-out-of-orderness 2s --batch-bytes 2KiB --name w"
STEPS = {
    "sessions": "window session 3s --by user | aggregate --by user,page n='count(*)' d='count(DISTINCT x)' l='last(x)'",
    "corrected": "window tumble 5s --allowed-lateness 10s | aggregate --by user n='count(*)' q='approx_quantile(x, 0.5)'",
    "dedup": "dedup --by user --within 2s | window count 3 --by user | aggregate --by user s='sum(x)'",
    "sessionize": "sessionize --by user --gap 2s | filter 'session_position = 1'",
    "phases": "window hop 10s --slide 2s | aggregate --by page n='count(*)' d='count(DISTINCT user)' q='quantile(x, 0.5)' "
    "| filter 'n > 1'",
    "top": "window tumble 10s | aggregate --by x --top 2 --order 'n DESC' n='count(*)' u='approx_distinct(user)'",
    "hop": "window hop 10s --slide 2s | aggregate --by user n='count(*)' t='approx_top_k(page, 2)' u='approx_distinct(x)'",
}


def _input(folder: Path, seed: int, count: int = 400, users: int = 12) -> None:
    chance = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    time_ = 1_700_000_000_000
    with (folder / "in.ndjson").open("w") as file:
        for _ in range(count):
            time_ += chance.randrange(400)
            record = {"ts": time_ - chance.randrange(4_000), "user": f"u{min(users, int(chance.paretovariate(0.7)))}"}
            record |= {"page": chance.choice(["/a", "/b", None]), "x": chance.randrange(9)}
            file.write(json.dumps(record) + "\n")


def _run(folder: Path, workers: int, steps: str, *options: str, **more: str) -> int:
    """The exit code of one life. No workers: without a partition."""
    checkpoint = "" if "no-checkpoint" in options else "--checkpoint 1ms "
    begin, end = (f"| partition --by user --workers {workers} ", "| merge ") if workers else ("", "")
    line = f"{INGEST} {checkpoint}{begin}| {steps} {end}| sink out.ndjson"
    return run_steps([["run", "--restart=no", "-c", line]], folder, **more)[0]  # type: ignore[arg-type]  # kill, fail


def _rows(folder: Path) -> Counter[str]:
    """All that was written, in any order."""
    return _records(folder / "out.ndjson")


def _records(path: Path) -> Counter[str]:
    return Counter(json.dumps(json.loads(line)) for line in path.read_text().splitlines())


@pytest.fixture
def expected(tmp_path: Path, request: pytest.FixtureRequest) -> Counter[str]:
    """What one process makes of the input, without checkpoints."""
    folder = tmp_path / "alone"
    _input(folder, 7)
    assert _run(folder, 0, STEPS[request.param], "no-checkpoint") == 0
    return _rows(folder)


@pytest.mark.parametrize(("expected", "steps"), some([(name, name) for name in STEPS]), indirect=["expected"])
def test_any_number_of_workers_gives_the_same(tmp_path: Path, expected: Counter[str], steps: str) -> None:
    for workers in (1, 5):
        folder = tmp_path / str(workers)
        _input(folder, 7)
        assert _run(folder, workers, STEPS[steps], "no-checkpoint") == 0
        assert _rows(folder) == expected, workers


@pytest.mark.parametrize(("expected", "steps"), [("phases", "phases")], indirect=["expected"])
def test_a_recipe_may_have_another_name_than_its_pipeline(tmp_path: Path, expected: Counter[str], steps: str) -> None:
    """State, samples and late records are the pipeline's, in all of its processes."""
    _input(tmp_path, 7)
    line = f"{INGEST} --checkpoint 1ms | partition --by user --workers 2 | {STEPS[steps]} | merge | sink out.ndjson"
    (tmp_path / "recipe.toml").write_text(f"pipeline = '''{line}'''\n")
    assert run_steps([["run", "--restart=no", "recipe.toml"]], tmp_path) == [0], (tmp_path / ".stderr").read_text()
    assert _rows(tmp_path) == expected
    assert [path.name for path in (tmp_path / ".home" / "pipelines").iterdir()] == ["w"]


@pytest.mark.parametrize(("expected", "steps"), some([(name, name) for name in STEPS], 3), indirect=["expected"])
def test_their_number_changes_between_runs(tmp_path: Path, expected: Counter[str], steps: str) -> None:
    """1, 4, 3, 1: each life is killed when it has written some checkpoints."""
    _input(tmp_path, 7)
    for life, workers in enumerate((1, 4, 3, 1, 2)):
        kill = {0: "after-commit:3"} if life < 4 else {}
        _run(tmp_path, workers, STEPS[steps], kill=kill)
    assert _rows(tmp_path) == expected


@pytest.mark.parametrize(("expected", "steps"), [("sessions", "sessions"), ("phases", "phases")], indirect=["expected"])
@pytest.mark.parametrize("point", some(POINTS, 10))
def test_killed_anywhere(tmp_path: Path, expected: Counter[str], steps: str, point: str) -> None:
    """In whichever process comes to the point first; then with other workers."""
    _input(tmp_path, 7)
    _run(tmp_path, 2, STEPS[steps], kill={0: point})
    _run(tmp_path, 3, STEPS[steps], kill={0: f"{point}:2"})
    assert _run(tmp_path, 2, STEPS[steps]) == 0
    assert _rows(tmp_path) == expected


def test_the_end_says_who_died(tmp_path: Path) -> None:
    """A worker that is killed ends the run, and the next one goes on without loss."""
    _input(tmp_path, 7)
    line = f"{INGEST} --follow --checkpoint 10ms | partition --by user --workers 2 | {STEPS['dedup']} | merge | sink out.ndjson"
    process = _started(tmp_path, line)
    try:
        worker = _children(process)[0]
        os.kill(worker, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGKILL, said
    assert b"worker 0 was killed by SIGKILL" in said
    assert _run(tmp_path, 3, STEPS["dedup"]) == 0


def test_workers_die_with_the_first_process(tmp_path: Path) -> None:
    _input(tmp_path, 7)
    line = f"{INGEST} --follow --checkpoint 10ms | partition --by user --workers 2 | {STEPS['dedup']} | merge | sink out.ndjson"
    process = _started(tmp_path, line)
    children = _children(process)
    process.kill()
    process.communicate(timeout=60)
    _until(lambda: not any(_lives(child) for child in children), "a child outlives its parent")


def test_a_worker_that_stands_still_stops_nothing_for_good(tmp_path: Path) -> None:
    """Nor does it lose anything: the others wait for it, and go on with it."""
    _input(tmp_path, 3, 20_000)
    line = f"{INGEST} | partition --by user --workers 2 | filter 'x >= 0' | merge | sink out.ndjson"
    process = _started(tmp_path, line)
    try:
        worker = _children(process)[1]
        os.kill(worker, signal.SIGSTOP)
        time.sleep(0.3)  # the others come as far as they can; nothing is asserted of it
        os.kill(worker, signal.SIGCONT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert _rows(tmp_path) == _records(tmp_path / "in.ndjson")


def test_all_records_on_one_key_and_much_of_it(tmp_path: Path) -> None:
    """A skew of several MiB between two workers, with checkpoints: whoever has nothing to do waits for barriers."""
    line = json.dumps({"ts": 1_700_000_000_000, "user": "hot", "page": "x" * 200, "x": 1}) + "\n"
    cold = json.dumps({"ts": 1_700_000_000_000, "user": "cold", "page": "y", "x": 1}) + "\n"
    (tmp_path / "in.ndjson").write_text(line * 30_000 + cold * 3)
    line = "ingest in.ndjson --time ts --batch-bytes 512KiB --checkpoint 1ms --name w | partition --by user --workers 2"
    words = ["run", "--restart=no", "-c", f"{line} | aggregate --by user n='count(*)' | merge | sink out.ndjson"]
    assert run_steps([words], tmp_path) == [0]
    assert _rows(tmp_path) == Counter(['{"user": "hot", "n": 30000}', '{"user": "cold", "n": 3}'])


def test_records_of_a_key_stay_in_their_order(tmp_path: Path) -> None:
    _input(tmp_path, 5, 3_000)
    assert _run(tmp_path, 3, "filter 'x >= 0'") == 0
    found: dict[str, list[str]] = {}
    for text in (tmp_path / "out.ndjson").read_text().splitlines():
        found.setdefault(json.loads(text)["user"], []).append(text)
    for text in (tmp_path / "in.ndjson").read_text().splitlines():
        record = json.loads(text)
        assert json.loads(found[record["user"]].pop(0)) == record


def test_it_is_told_how_the_load_is_spread(tmp_path: Path) -> None:
    _input(tmp_path, 5, 400, users=3)
    assert _run(tmp_path, 2, "filter 'x >= 0'") == 0
    words = [sys.executable, "-m", "clickpipe", "explain", "--live", "w", "--json"]
    told = json.loads(subprocess.run(words, capture_output=True, cwd=tmp_path, env=environment(tmp_path), check=True).stdout)
    (found,) = told["partitions"]
    users = Counter(json.loads(line)["user"] for line in (tmp_path / "in.ndjson").read_text().splitlines())
    assert dict(found["hottest"]) == {json.dumps(user): count for user, count in users.items()}
    loads = [0, 0]
    for user, count in users.items():
        loads[_workers([user], pl.String(), 2)[0]] += count
    assert found["loads"] == loads
    assert found["skew"] == round(max(loads) / 200, 4)


# Which worker.


def _workers(values: list[object], dtype: pl.DataType, workers: int = GROUPS) -> list[int]:
    frame = pl.DataFrame({"k": pl.Series(values, dtype=dtype, strict=False)})
    return frame.select(worker_of(["k"], workers)).to_series().to_list()


def test_groups_are_fixed_for_ever() -> None:
    """Saved state is divided by them."""
    assert _workers(["", "a", "user-1", "\u00e4\U0001f600", None], pl.String()) == [79, 57, 20, 2, 89]
    assert _workers([7, -1, 2**63 - 1], pl.Int64()) == _workers(["7", "-1", str(2**63 - 1)], pl.String())
    assert _workers([7.0, -0.0, None], pl.Float64()) == _workers(["7", "0", None], pl.String())


@given(st.lists(st.text(max_size=8), min_size=1, max_size=50), st.integers(1, GROUPS))
@settings(max_examples=examples(60), deadline=None)
def test_a_worker_has_whole_groups(keys: list[str], workers: int) -> None:
    groups = _workers(list(keys), pl.String())
    assert _workers(list(keys), pl.String(), workers) == [group * workers // GROUPS for group in groups]


def test_keys_are_spread_evenly() -> None:
    """Three standard deviations, of 128 groups; also of keys that differ by one."""
    counts = Counter(_workers([f"user-{number}" for number in range(128_000)], pl.String()))
    assert len(counts) == GROUPS
    assert all(abs(count - 1_000) < 4 * 1_000**0.5 for count in counts.values())


# Processes.


def _started(folder: Path, line: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "clickpipe", "run", "--restart=no", "-c", line]
    return subprocess.Popen(words, cwd=folder, env=environment(folder), stderr=subprocess.PIPE)


def _children(process: subprocess.Popen[bytes]) -> list[int]:
    """Two workers, and what merges."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    _until(lambda: len(path.read_text().split()) == 3, "no workers")
    return [int(one) for one in path.read_text().split()]


def _lives(process: int) -> bool:
    return Path(f"/proc/{process}/stat").exists() and " Z " not in Path(f"/proc/{process}/stat").read_text()


def _until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
