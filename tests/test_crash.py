"""Killed at every named place, run again, the results are those of a run that was never disturbed.

Named places find what random kills do not; `test_random_kills` is the soak (make soak).
"""

from __future__ import annotations

import json
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from examples import some

from clickpipe.testing import environment, run_steps

PACKAGE = Path(__file__).parent.parent / "clickpipe"
INGEST = "ingest in.ndjson --time ts --max-out-of-orderness 2s --batch-bytes 2KiB --name c"
STEPS = ["filter 'x >= 0'", "window tumble 5s", "aggregate --by page n='count(*)' s='sum(x)' u='count(DISTINCT x)' l='last(x)'"]
SINK = "sink out.ndjson"
INGESTS, WINDOWS, AGGREGATES, SINKS = 0, 2, 3, 4

# Every kill point, and in which processes of the shell form it is passed.
POINTS: dict[str, tuple[int, ...]] = {
    "before-identity-write": (INGESTS,),
    "before-identity-fsync": (INGESTS,),
    "before-identity-rename": (INGESTS,),
    "after-identity-rename": (INGESTS,),
    "after-identity": (INGESTS,),
    "after-begin": (INGESTS,),
    "after-join": (WINDOWS, AGGREGATES, SINKS),
    "after-snapshot": (INGESTS, WINDOWS, AGGREGATES),
    "before-end": (INGESTS, WINDOWS, AGGREGATES),
    "before-state-write": (AGGREGATES,),
    "before-state-fsync": (AGGREGATES,),
    "before-state-rename": (AGGREGATES,),
    "after-state-rename": (AGGREGATES,),
    "before-append-fsync": (INGESTS, WINDOWS, SINKS),
    "before-append-rename": (INGESTS, WINDOWS),
    "after-append-rename": (INGESTS, WINDOWS),
    "after-prepare": (SINKS,),
    "before-part-fsync": (SINKS,),
    "before-part-rename": (SINKS,),
    "after-part-rename": (SINKS,),
    "after-staged-durable": (SINKS,),
    "before-manifest": (SINKS,),
    "before-manifest-write": (SINKS,),
    "before-manifest-fsync": (SINKS,),
    "before-manifest-rename": (SINKS,),
    "after-manifest-rename": (SINKS,),
    "after-manifest": (SINKS,),
    "after-append-truncate": (SINKS,),
    "after-append": (SINKS,),
    "before-commit": (SINKS,),
    "after-commit": (SINKS,),
    "after-retire-rename": (SINKS,),
    "before-whole-fsync": (SINKS,),
    "before-whole-rename": (SINKS,),
    "after-whole-rename": (SINKS,),
    "after-parts-renamed": (SINKS,),
}
ONCE = {"after-begin", "after-identity", "after-join", "before-end", "after-parts-renamed"}
ONCE |= {point for point in POINTS if "identity" in point or "whole" in point}


def test_every_kill_point_is_in_the_table() -> None:
    text = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    named = set(re.findall(r'kill_point\("([^"]+)"', text))
    kinds = {"before-{kind}-write", "before-{kind}-fsync", "before-{kind}-rename", "after-{kind}-rename"}
    assert set(re.findall(r'kill_point\(f"([^"]+)"', text)) == kinds
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert not {point for point in named - set(POINTS) if point not in tests}  # those of stores have tests of their own
    assert len(POINTS) >= 30


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a run without checkpoints gives."""
    directory = _prepared(tmp_path_factory.mktemp("undisturbed"))
    assert run_steps([_words(step) for step in [INGEST, *STEPS, SINK]], directory) == [0] * 5
    seen = _results(directory)
    assert seen["out"]
    assert seen["late"]
    assert seen["dead"]
    return seen


@pytest.mark.parametrize(
    ("point", "step"), some(((point, step) for point, steps in POINTS.items() for step in steps), 7), ids=lambda value: str(value)
)
def test_a_process_killed_there(point: str, step: int, tmp_path: Path, undisturbed: dict[str, list[str]]) -> None:
    """In a plain shell: the same line again, and nothing is lost or counted twice."""
    directory = _prepared(tmp_path)
    steps = [_words(step) for step in [f"{INGEST} --checkpoint 1ms", *STEPS, SINK]]
    later = 3 if "append" in point or "part" in point else 8  # when there are rows
    for hit in (1,) if point in ONCE else (1, later):
        codes = run_steps(steps, directory, kill={step: f"{point}:{hit}"})
        assert codes[step] == -signal.SIGKILL, f"{point} was not passed: {codes}\n{_errors(directory)}"
    assert run_steps(steps, directory) == [0] * 5, _errors(directory)
    assert _results(directory) == undisturbed


@pytest.mark.parametrize("point", POINTS)
def test_a_fused_run_killed_there(point: str, tmp_path: Path, undisturbed: dict[str, list[str]]) -> None:
    """In one process; killed twice, the second time while it recovers or soon after."""
    if point == "after-join":
        pytest.skip("a fused run begins, and does not join")
    directory = _prepared(tmp_path)
    steps = [["run", "--restart", "no", "-c", " | ".join([f"{INGEST} --checkpoint 1ms", *STEPS, SINK])]]
    for number in range(2):
        codes = run_steps(steps, directory, kill={0: point})
        if number == 0 or point not in ONCE:
            assert codes == [-signal.SIGKILL], f"{point} was not passed\n{_errors(directory)}"
    assert run_steps(steps, directory) == [0], _errors(directory)
    assert _results(directory) == undisturbed


def test_a_run_that_has_ended_is_not_run_again(tmp_path: Path, undisturbed: dict[str, list[str]]) -> None:
    directory = _prepared(tmp_path)
    steps = [["run", "--restart", "no", "-c", " | ".join([f"{INGEST} --checkpoint 1ms", *STEPS, SINK])]]
    assert run_steps(steps, directory) == [0]
    first = _errors(directory)
    assert run_steps(steps, directory) == [0]
    assert _results(directory) == undisturbed
    assert "had come to its end at checkpoint" in _errors(directory)
    assert first.splitlines()[:2] == _errors(directory).splitlines()[1:3]  # the accounts are those of the whole
    (directory / "out.ndjson").unlink()
    steps[0][-1] = steps[0][-1].replace("--checkpoint", "--reset --checkpoint")
    assert run_steps(steps, directory) == [0]
    assert _results(directory) == undisturbed


def test_another_pipeline_is_refused_with_both_shown(tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    steps = [_words(step) for step in [f"{INGEST} --checkpoint 1ms", *STEPS, SINK]]
    run_steps(steps, directory, kill={SINKS: "after-commit:3"})
    steps[AGGREGATES] = _words("aggregate --by page n='count(*)'")
    codes = run_steps(steps, directory)
    assert codes[AGGREGATES] == 78
    assert "saved: aggregate n=count(*) s=sum(x)" in _errors(directory)
    assert "now:   aggregate n=count(*) --by page" in _errors(directory)


def test_a_changed_input_is_refused(tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    steps = [["run", "--restart", "no", "-c", " | ".join([f"{INGEST} --checkpoint 1ms", *STEPS, SINK])]]
    assert run_steps(steps, directory, kill={0: "after-commit:3"}) == [-signal.SIGKILL]
    data = bytearray((directory / "in.ndjson").read_bytes())
    data[20] ^= 1
    (directory / "in.ndjson").write_bytes(data)
    assert run_steps(steps, directory) == [78]
    assert "is not the file that was read before" in _errors(directory)


def test_the_same_pipeline_twice_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    line = "cat | clickpipe ingest - --name c --columns ts:int --checkpoint 1s | clickpipe filter 'ts > 0' > first"
    first = subprocess.Popen(["bash", "-c", line], stdin=subprocess.PIPE, cwd=directory, env=environment(directory))
    try:
        deadline = time.monotonic() + 30
        while not (directory / "first").exists() or not (directory / "first").stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert run_steps([_words("ingest in.ndjson --name c --checkpoint 1s"), _words(SINK)], directory)[0] == 75
        assert "an earlier run still lives" in _errors(directory)
        assert "clickpipe ingest -" in _errors(directory)
    finally:
        assert first.stdin is not None
        first.stdin.close()
        first.wait()


def _line(directory: Path, text: str, kill: dict[int, str] | None = None, *, fused: bool = False) -> list[int]:
    """Exit codes of `a | b | c`, a process each, or all in one."""
    steps = [["run", "--restart", "no", "-c", text]] if fused else [_words(step) for step in text.split(" | ")]
    return run_steps(steps, directory, kill=kill)


def test_bad_records_of_several_processes_meet_in_one_file(tmp_path: Path) -> None:
    """Of the source, of two filters and of the sink, in one checkpoint: each is there, once."""
    lines = ["oops", '{"id":"a","x":1}', '{"id":1,"x":"b"}', *(json.dumps({"id": n, "x": n}) for n in range(1_500))]
    (tmp_path / "in.ndjson").write_text("\n".join(reversed(lines)) + "\n")
    text = "ingest in.ndjson --name c --checkpoint 10m --dead-letter my.ndjson"
    text += " | filter 'id >= 0' | filter 'x >= 0' | sink out.ndjson"
    assert _line(tmp_path, text) == [0] * 4, _errors(tmp_path)
    letters = [json.loads(line)["raw"] for line in (tmp_path / "my.ndjson").read_text().splitlines()]
    assert sorted(letters) == ["oops", '{"id":"a","x":1}', '{"id":1,"x":"b"}'] or sorted(letters) == sorted(lines[:3])
    assert len((tmp_path / "out.ndjson").read_text().splitlines()) == 1_500


def test_late_and_dead_files_of_one_name_are_two(tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    (directory / "k1").mkdir()
    (directory / "k2").mkdir()
    text = f"{INGEST} --checkpoint 1ms --dead-letter k1/x.ndjson | window tumble 5s --late k2/x.ndjson | sink out.ndjson"
    assert _line(directory, text, fused=True) == [0], _errors(directory)
    assert (directory / "k1" / "x.ndjson").exists()
    assert (directory / "k2" / "x.ndjson").exists()


def test_a_device_for_dead_letters(tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    assert _line(directory, f"{INGEST} --checkpoint 1ms --dead-letter /dev/null | sink out.ndjson", fused=True) == [0]


@pytest.mark.parametrize("damage", ["elsewhere", "parts gone", "a part gone"])
def test_results_that_are_not_where_they_were(damage: str, tmp_path: Path) -> None:
    """Another folder, or someone has taken parts away: the run stops, and does not give half of the results."""
    directory = _prepared(tmp_path)
    text = f"ingest {directory}/in.ndjson --name c --batch-bytes 2KiB --checkpoint 1ms | filter 'x >= 0' | sink out.ndjson"
    assert _line(directory, text, {0: "after-commit:5"}, fused=True) == [-signal.SIGKILL], _errors(directory)
    parts = sorted((directory / "out.ndjson.parts").glob("*.ndjson"))
    assert parts
    if damage == "elsewhere":
        (directory / "down").mkdir()
        line = f"cd down && {sys.executable} -m clickpipe run --restart no -c {shlex.quote(text)}"
        done = subprocess.run(["bash", "-c", line], cwd=directory, env=environment(directory), capture_output=True, check=False)
        assert done.returncode == 78
        assert b"and these would go to" in done.stderr
        return
    for part in parts if damage == "parts gone" else parts[:1]:
        part.unlink()
    assert _line(directory, text, fused=True) == [78]
    assert "knows of" in _errors(directory)


def test_max_errors_counts_over_all_runs(tmp_path: Path) -> None:
    """Pressing arrow-up does not forgive."""
    directory = _prepared(tmp_path)
    text = f"{INGEST} --checkpoint 1ms --max-errors 4 | sink out.ndjson"
    assert [_line(directory, text, fused=True) for _ in range(4)] == [[65]] * 4


@pytest.mark.parametrize("fused", [True, False])
def test_limit_ends_a_pipeline_with_checkpoints(fused: bool, tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    text = f"{INGEST} --checkpoint 1ms | window tumble 5s | aggregate --by page n='count(*)' | limit 20 | sink out.ndjson"
    codes = _line(directory, text, {0 if fused else 4: "after-commit:2"}, fused=fused)
    assert codes[-1] == -signal.SIGKILL
    for _ in range(2):
        assert not any(_line(directory, text, fused=fused)), _errors(directory)
        assert len((directory / "out.ndjson").read_text().splitlines()) == 20


def test_files_that_are_new_at_a_restart_are_read_too(tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    text = INGEST.replace("in.ndjson", "'*.ndjson'") + " --checkpoint 1ms | filter 'id >= 0' | sink out.ndjson"
    assert _line(directory, text, {0: "after-commit:3"}, fused=True) == [-signal.SIGKILL]
    for name in ("k1.ndjson", "k2.ndjson"):
        (directory / name).write_text('{"ts":1767225900000,"page":"new","x":1,"id":1}\n')
    assert _line(directory, text, fused=True) == [0], _errors(directory)
    assert (directory / "out.ndjson").read_text().count('"new"') == 2


def test_a_csv_that_was_killed_spells_numbers_the_same(tmp_path: Path) -> None:
    """The sink, too, knows that a column had become one of floats."""
    lines = [json.dumps({"n": n, "x": n + 0.5 if 1_000 < n < 1_100 else n}) for n in range(6_000)]
    (tmp_path / "in.ndjson").write_text("\n".join(lines) + "\n")
    text = "ingest in.ndjson --name c --batch-bytes 1KiB {} | sink {}"
    assert _line(tmp_path, text.format("", "plain.csv")) == [0, 0]
    line = text.format("--checkpoint 1ms", "out.csv")
    for hit in (2, 6):
        assert _line(tmp_path, line, {1: f"after-commit:{hit}"})[1] == -signal.SIGKILL, _errors(tmp_path)
    assert _line(tmp_path, line) == [0, 0], _errors(tmp_path)
    assert (tmp_path / "out.csv").read_text() == (tmp_path / "plain.csv").read_text()


def test_a_damaged_identity_can_be_got_over(tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    text = f"{INGEST} --checkpoint 1ms | sink out.ndjson"
    assert _line(directory, text, {0: "after-commit:2"}, fused=True) == [-signal.SIGKILL]
    (directory / ".home" / "pipelines" / "c" / "identity.json").write_text("x")
    assert _line(directory, text, fused=True) == [78]
    assert _line(directory, text.replace("--checkpoint", "--reset --checkpoint"), fused=True) == [0], _errors(directory)


def test_live_input_that_pauses_is_committed(tmp_path: Path) -> None:
    """Rows become visible at the next checkpoint, also when nothing more comes."""
    line = "clickpipe ingest - --name live --checkpoint 100ms | clickpipe sink live.ndjson"
    running = subprocess.Popen(["bash", "-c", line], stdin=subprocess.PIPE, cwd=tmp_path, env=environment(tmp_path))
    assert running.stdin is not None
    running.stdin.write(b'{"a":1}\n{"a":2}\n')
    running.stdin.flush()
    deadline = time.monotonic() + 30
    while not (parts := list(tmp_path.glob("live.ndjson.parts/*.ndjson"))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert parts[0].read_bytes() == b'{"a":1}\n{"a":2}\n'
    running.stdin.write(b'{"a":3}\n')
    running.stdin.close()
    assert running.wait() == 0
    assert (tmp_path / "live.ndjson").read_bytes() == b'{"a":1}\n{"a":2}\n{"a":3}\n'


@pytest.mark.slow
def test_random_kills(tmp_path: Path, undisturbed: dict[str, list[str]]) -> None:
    """A hundred of them, any process at any time."""
    chance = random.Random(1)
    kills = 0
    while kills < 100:
        directory = _prepared(tmp_path / str(kills))
        words = [f"{INGEST} --checkpoint 1ms", *STEPS, SINK]
        while True:
            processes = _started(words, directory)
            time.sleep(chance.uniform(0.2, 1.5))
            victim = chance.choice(processes)
            kills += victim.poll() is None
            victim.kill()
            if [process.wait() for process in processes] == [0] * 5:
                break
        assert _results(directory) == undisturbed


def _started(steps: list[str], directory: Path) -> list[subprocess.Popen[bytes]]:
    processes: list[subprocess.Popen[bytes]] = []
    for step in steps:
        before = processes[-1].stdout if processes else subprocess.DEVNULL
        words = [sys.executable, "-m", "clickpipe", *_words(step)]
        processes.append(
            subprocess.Popen(
                words, stdin=before, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=directory, env=environment(directory)
            )
        )
        if not isinstance(before, int) and before:
            before.close()
    return processes


def _prepared(directory: Path) -> Path:
    """Records in and out of order, some late, some bad; integers that become floats."""
    directory.mkdir(parents=True, exist_ok=True)
    chance = random.Random(7)
    lines = []
    for number in range(1_400):
        time = 1_767_225_600_000 + number * 50 - chance.randrange(3_000) - (20_000 if number % 97 == 50 else 0)
        x = number % 13 + (0.5 if number > 1_100 and number % 10 == 0 else 0)
        lines.append(json.dumps({"ts": time, "page": f"/p/{chance.randrange(5)}", "x": x, "id": number}))
        if number % 200 == 100:
            lines.append("not JSON")
    (directory / "in.ndjson").write_text("\n".join(lines) + "\n")
    return directory


def _results(directory: Path) -> dict[str, list[str]]:
    """All that was given, in any order. A repetition shows, and so does a loss."""
    state = directory / ".home" / "pipelines" / "c"
    assert not list(directory.glob("out.ndjson.*"))
    return {
        "out": sorted(re.sub(r"\.0(?=[,}])", "", (directory / "out.ndjson").read_text()).splitlines()),
        "late": sorted((state / "late.ndjson").read_text().splitlines()),
        "dead": sorted((state / "dead.ndjson").read_text().splitlines()),
    }


def _words(step: str) -> list[str]:
    return shlex.split(step)


def _errors(directory: Path) -> str:
    return (directory / ".stderr").read_text()
