"""Recipes carry their own tests: what is given, what is to come of it, in all forms of the pipeline."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from running import children_of, lives, until

from clickpipe.cli.trials import forms
from clickpipe.cli.trials.arranged import arrange
from clickpipe.cli.trials.forms import FORMS, ORDERS
from clickpipe.cli.trials.given import shuffled
from clickpipe.cli.trials.matching import Rule, matched
from clickpipe.cli.trials.trial import Verdict, ready
from clickpipe.errors import PlanError
from clickpipe.operators.partition import Partition
from clickpipe.plan.cases import Case, Moment, read_cases
from clickpipe.plan.parse import parse
from clickpipe.sources.given import _steps
from clickpipe.testing import environment

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
FILES = "ingest in.ndjson --time ts --max-out-of-orderness 5s"
LIVE = "ingest - --time ts --max-out-of-orderness 5s"
COUNT = "window tumble 1m | aggregate --by page n='count(*)'"
SAVED = f"{FILES} --checkpoint 1s | {COUNT} | sink -"
THREE = """given = '''
{"ts":"2026-03-01T09:00:01Z","page":"/a","v":1}
{"ts":"2026-03-01T09:00:02Z","page":"/a","v":2}
{"ts":"2026-03-01T09:01:03Z","page":"/b","v":4}
'''
"""
LATE = THREE[:-4].replace("09:01:03", "09:01:05") + '{"ts":"2026-03-01T09:00:30Z","page":"/a","v":1}\n' + "'''\n"
AS_THEY_ARE = 'expect = [{ page = "/a", n = 2 }, { page = "/b", n = 1 }]\n'


def _recipe(folder: Path, pipeline: str, *tests: str, name: str = "r") -> Path:
    path = folder / f"{name}.toml"
    cases = "".join(f'[[test]]\nname = "test {number}"\n{test}\n' for number, test in enumerate(tests, 1))
    path.write_text(f"pipeline = '''\n{pipeline}\n'''\n{cases}")
    return path


def _verdict(folder: Path, pipeline: str, test: str, *wanted: str, seed: int = 1) -> Verdict:
    (case,) = read_cases(str(_recipe(folder, pipeline, test)))
    return ready(case, wanted).verdict(seed)


def _passes(folder: Path, pipeline: str, test: str, *wanted: str) -> list[str]:
    verdict = _verdict(folder, pipeline, test, *wanted)
    assert verdict.is_right, verdict.failures
    return verdict.forms


def _what(folder: Path, pipeline: str, test: str, *wanted: str) -> str:
    """What is wrong first."""
    return _verdict(folder, pipeline, test, *wanted).failures[0].what


def _mistake(folder: Path, pipeline: str, test: str) -> str:
    with pytest.raises(PlanError) as raised:
        ready(read_cases(str(_recipe(folder, pipeline, test)))[0], [])
    return str(raised.value)


def _clickpipe(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clickpipe", "test", *words]
    return subprocess.run(command, cwd=folder, env=environment(folder, **more), capture_output=True, text=True, check=False)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, str], list[int]]]:
    """What each life was asked for, and how it ended."""
    seen: list[tuple[dict[str, str], list[int]]] = []

    def spied(steps: Sequence[Sequence[str]], folder: Path, stdin: str, said: Mapping[str, str]) -> list[int]:
        codes = _real(steps, folder, stdin, said)
        seen.append(({name: value for name, value in said.items() if name.endswith("_AFTER")}, codes))
        return codes

    _real = forms.fork_steps
    monkeypatch.setattr(forms, "fork_steps", spied)
    return seen


# The recipes that are shipped.


def test_the_tests_of_all_recipes_pass(tmp_path: Path) -> None:
    """In all their forms."""
    done = _clickpipe(ROOT, *map(str, RECIPES), TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed, 0 failed" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_has_two_tests(path: Path) -> None:
    assert len(read_cases(str(path))) >= 2


# What a test says, and what comes of it.


def test_a_test_passes_in_all_forms(tmp_path: Path) -> None:
    assert _passes(tmp_path, f"{FILES} | {COUNT} | sink -", THREE + AS_THEY_ARE) == ["fused", "single", "piped", "resumed"]


def test_a_partition_has_two_workers_too(tmp_path: Path) -> None:
    pipeline = f"{FILES} | partition --by page --workers 5 | {COUNT} | merge | sink -"
    assert "workers" in _passes(tmp_path, pipeline, THREE + AS_THEY_ARE)
    (case,) = read_cases(str(tmp_path / "r.toml"))
    arranged = arrange(case)
    for workers in (1, 2):
        steps = [node.step for node in parse(arranged.text(forms.Way(workers=workers))).nodes]
        assert [step.workers for step in steps if isinstance(step, Partition)] == [workers]


def test_a_difference_is_shown_beside_what_was_expected(tmp_path: Path) -> None:
    """With a mark below the cell, once for all forms, and with the command that repeats it."""
    expect = 'expect = [{ page = "/a", n = 2 }, { page = "/b", n = 7 }, { page = "/c", n = 1 }]\n'
    _recipe(tmp_path, f"{FILES} | {COUNT} | sink -", THREE + expect)
    done = _clickpipe(tmp_path, "r.toml", "--form", "fused,single")
    first, *rest = done.stdout.splitlines()
    assert re.fullmatch(r"FAIL  r\.toml: test 1  \(fused single, \d+\.\d s\)", first)
    assert rest == [
        "  in fused, single: rows: 1 as expected, 1 differs, 1 is missing",
        "        page  n",
        "      - /b    7",
        "      + /b    1",
        "              ^",
        "      - /c    1",
        "  again: clickpipe test r.toml --filter 'test 1' --form fused",
        "0 passed, 1 failed",
    ]
    assert done.returncode == 65


def test_rows_that_nobody_expected_fail_the_test(tmp_path: Path) -> None:
    verdict = _verdict(tmp_path, f"{FILES} | {COUNT} | sink -", THREE + 'expect = [{ page = "/a" }]\n', "fused")
    found = verdict.failures[0].matched
    assert found is not None
    assert (found.agreed, [row["page"] for row in found.unexpected]) == (1, ["/b"])


@pytest.mark.parametrize(("number", "is_right"), [(2, True), (3, False)])
def test_rows_may_be_counted_only(tmp_path: Path, number: int, is_right: bool) -> None:
    verdict = _verdict(tmp_path, f"{FILES} | {COUNT} | sink -", f"{THREE}expect = {number}\n", "fused")
    assert verdict.is_right is is_right


def test_exact_wants_every_column(tmp_path: Path) -> None:
    pipeline = f"{FILES} | {COUNT} | sink -"
    assert not _verdict(tmp_path, pipeline, THREE + AS_THEY_ARE + "exact = true\n", "fused").is_right
    whole = """expect = '''
{"window_start":"2026-03-01T09:00:00Z","window_end":"2026-03-01T09:01:00Z","page":"/a","n":2}
{"window_start":"2026-03-01T09:01:00Z","window_end":"2026-03-01T09:02:00Z","page":"/b","n":1}
'''
"""
    _passes(tmp_path, pipeline, THREE + whole + "exact = true\n", "fused")


def test_ordered_wants_the_order(tmp_path: Path) -> None:
    pipeline = f"{FILES} | sink -"
    _passes(tmp_path, pipeline, THREE + "expect = [{ v = 1 }, { v = 2 }, { v = 4 }]\nordered = true\n")
    turned = THREE + "expect = [{ v = 2 }, { v = 1 }, { v = 4 }]\n"
    _passes(tmp_path, pipeline, turned)
    verdict = _verdict(tmp_path, pipeline, turned + "ordered = true\n", "fused")
    assert verdict.failures[0].matched is not None
    assert verdict.failures[0].matched.disorder == 0


@pytest.mark.parametrize(
    ("tolerance", "is_right"),
    [
        ("", False),
        ("tolerance = 0.1", False),
        ("tolerance = 0.3", True),
        ("tolerance = { m = 0.3 }", True),
        ("tolerance = { n = 0.3 }", False),
    ],
)
def test_a_tolerance_is_a_part_of_the_expected_value(tmp_path: Path, tolerance: str, is_right: bool) -> None:
    pipeline = f"{FILES} | aggregate m='avg(v)' n='count(*)' | sink -"
    verdict = _verdict(tmp_path, pipeline, f"{THREE}expect = [{{ m = 3.0, n = 3 }}]\n{tolerance}\n", "fused")
    assert verdict.is_right is is_right


def test_late_records_and_dead_letters_are_expected_or_wrong(tmp_path: Path) -> None:
    given = f"{LATE[:-4]}nonsense\n'''\n"
    pipeline = f"{FILES} | {COUNT} | sink -"
    assert "no late records expected, 1 came" in _what(tmp_path, pipeline, given + AS_THEY_ARE)
    late = "expect_late = [{ _late_by = 30_000 }]\n"
    assert "no dead letters expected, 1 came" in _what(tmp_path, pipeline, given + AS_THEY_ARE + late)
    dead = "expect_dead = [{ raw = 'nonsense', error = 'not JSON' }]\n"
    _passes(tmp_path, pipeline, given + AS_THEY_ARE + late + dead)
    assert "1 differs" not in _what(tmp_path, pipeline, given + AS_THEY_ARE + late + "expect_dead = 2\n", "fused")


@pytest.mark.parametrize(
    ("pipeline", "error"),
    [
        (f"{FILES} | aggregate --by pgae n='count(*)' | sink -", 'no column "pgae"'),
        (f"{FILES} | windw tumble 1m | sink -", 'no step "windw"'),
        (f"{FILES} --max-errors 0 | sink -", "--max-errors"),
    ],
    ids=["a column", "the plan", "the data"],
)
def test_an_error_can_be_expected(tmp_path: Path, pipeline: str, error: str) -> None:
    given = "given = '''\n{\"ts\":1772355600000,\"page\":1}\nx\n'''\n"
    _passes(tmp_path, pipeline, f"{given}expect_error = '{error}'\n")
    assert "and said: " in _what(tmp_path, pipeline, given + "expect_error = 'something else'\n")


def test_an_error_that_does_not_come_fails_the_test(tmp_path: Path) -> None:
    assert "and it ended well" in _what(tmp_path, f"{FILES} | sink -", THREE + "expect_error = 'no column'\n")


def test_an_error_that_nobody_expects_names_the_line_of_the_recipe(tmp_path: Path) -> None:
    """Also behind a step that was said in several lines, and is another one now."""
    pipeline = "ingest\n  tcp://:9000 --time ts # from everywhere\n| aggregate --by pgae n='count(*)'"
    said = _what(tmp_path, pipeline, THREE + "expect = 1\n")
    assert said.startswith(f'it failed: {tmp_path}/r.toml:4: aggregate: no column "pgae"')


# Other orders.


FIRST = f"{FILES} | dedup --by page --within 1m | aggregate n='sum(v)' | sink -"


def test_shuffle_finds_what_depends_on_the_order(tmp_path: Path) -> None:
    """And its seed finds it again."""
    _passes(tmp_path, FIRST, THREE + "expect = [{ n = 5 }]\n")
    failure = _verdict(tmp_path, FIRST, THREE + "expect = [{ n = 5 }]\nshuffle = true\n").failures[0]
    assert failure.run.form == "shuffled"
    assert failure.run.seed is not None
    test = THREE + "expect = [{ n = 5 }]\nshuffle = true\n"
    again = _verdict(tmp_path, FIRST, test, "shuffled", seed=failure.run.seed).failures[0]
    assert again == failure or again.run.seed == failure.run.seed


def test_shuffle_of_what_does_not_depend_on_the_order(tmp_path: Path) -> None:
    forms_run = _passes(tmp_path, f"{FILES} | {COUNT} | sink -", THREE + AS_THEY_ARE + "shuffle = true\n")
    assert forms_run == ["fused", "single", "piped", "resumed", "shuffled"]


def _shuffled_case(folder: Path, given: Sequence[str]) -> Case:
    return read_cases(str(_recipe(folder, f"{LIVE} | sink -", "given = '''\n" + "\n".join(given) + "\n'''\nexpect = 0\n")))[0]


@pytest.mark.parametrize("seed", range(0, 40, 3))
def test_another_order_makes_nothing_late(tmp_path: Path, seed: int) -> None:
    """All records are there, none further behind than --max-out-of-orderness, and the clock speaks between the same ones."""
    given = [json.dumps({"ts": 1_772_355_600_000 + n * 700, "n": n}) for n in range(40)]
    given = ['{"@clock":1772355600000}', *given[:20], '{"@clock":1772355700000}', *given[20:]]
    lines = shuffled(arrange(_shuffled_case(tmp_path, given)), seed)
    texts = [line for line in lines if isinstance(line, str)]
    assert sorted(texts) == sorted(line for line in given if "@clock" not in line)
    assert texts != given[1:21] + given[22:]
    assert [number for number, line in enumerate(lines) if isinstance(line, Moment)] == [0, 21]
    greatest = 0
    for line in texts:
        time = json.loads(line)["ts"]
        assert time >= greatest - 5_000
        greatest = max(greatest, time)


def test_orders_differ_by_their_seeds(tmp_path: Path) -> None:
    given = [json.dumps({"ts": 1_772_355_600_000 + n * 700, "n": n}) for n in range(40)]
    arranged = arrange(_shuffled_case(tmp_path, given))
    assert len({str(shuffled(arranged, seed)) for seed in range(ORDERS)}) > 1
    assert len({str(shuffled(arranged, seed)) for seed in range(20)}) > 10
    assert shuffled(arranged, 7) == shuffled(arranged, 7)


def test_shuffle_is_not_for_late_records(tmp_path: Path) -> None:
    given = "given = '''\n{\"ts\":1772355700000}\n{\"ts\":1772355600000}\n'''\nexpect = 2\nshuffle = true\n"
    assert "record 2 is" in _mistake(tmp_path, f"{FILES} | sink -", given)


# Deaths.


def test_killed_behind_a_checkpoint_it_goes_on(tmp_path: Path, ended: list[Any]) -> None:
    _passes(tmp_path, SAVED, THREE + AS_THEY_ARE + "crash_after = 2\n", "crashed")
    stop, kill = {"CLICKPIPE_STOP_AFTER": "1"}, {"CLICKPIPE_KILL_AFTER": "1"}
    assert ended == [(stop, [0]), (kill, [-9]), ({}, [0])]


def test_killed_without_checkpoints_it_starts_anew(tmp_path: Path, ended: list[Any]) -> None:
    _passes(tmp_path, f"{FILES} | {COUNT} | sink -", THREE + AS_THEY_ARE + "crash_after = 2\n", "crashed")
    assert ended == [({"CLICKPIPE_KILL_AFTER": "2"}, [-9]), ({}, [0])]


def test_what_cannot_be_read_again_is_not_crashed(tmp_path: Path) -> None:
    test = THREE + AS_THEY_ARE + "crash_after = 2\n"
    assert "cannot be read again" in _mistake(tmp_path, f"{LIVE} | {COUNT} | sink -", test)
    _passes(tmp_path, f"{LIVE} --spool log:in --checkpoint 1s | {COUNT} | sink -", test, "crashed")


def test_resumed_stops_and_goes_on(tmp_path: Path, ended: list[Any]) -> None:
    _passes(tmp_path, f"{FILES} | {COUNT} | sink -", THREE + AS_THEY_ARE, "resumed")
    assert [codes for _, codes in ended] == [[0]] * 4
    epochs = [said.get("CLICKPIPE_STOP_AFTER") for said, _ in ended]
    assert epochs == ["1", "1", "1", None]


@pytest.mark.parametrize("form", ["resumed", "crashed"])
def test_a_life_that_forgets_is_found(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved is taken away between two lives, and what was read."""

    def forgetful(steps: Sequence[Sequence[str]], folder: Path, stdin: str, said: Mapping[str, str]) -> list[int]:
        if (folder / ".home").exists():
            shutil.rmtree(folder / ".home")
            given = (folder / "given.ndjson").read_bytes().splitlines(keepends=True)
            (folder / "given.ndjson").write_bytes(b"".join(given[1:]))
        return real(steps, folder, stdin, said)

    real = forms.fork_steps
    monkeypatch.setattr(forms, "fork_steps", forgetful)
    test = THREE + AS_THEY_ARE + "crash_after = 3\n"
    assert not _verdict(tmp_path, SAVED, test, form).is_right


def test_forms_that_differ_in_what_the_test_does_not_say_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = forms._FORMS["single"]

    def other(trial: Any) -> forms.Came:
        came = real(trial)
        return forms.Came([row | {"window_end": "another"} for row in came.rows])

    monkeypatch.setattr(forms, "_FORMS", forms._FORMS | {"single": other})
    failure = _verdict(tmp_path, f"{FILES} | {COUNT} | sink -", THREE + AS_THEY_ARE).failures[0]
    assert (failure.run.form, failure.like) == ("single", "fused")
    assert failure.matched is not None
    assert failure.matched.differing[0].columns == ("window_end",)


# The clock.


IDLE = """clock = 2026-03-01T09:00:00Z
given = '''
{"ts":"2026-03-01T09:00:01Z","page":"/a"}
{"@clock":"2026-03-01T09:00:29Z"}
{"ts":"2026-03-01T09:00:02Z","page":"/a"}
{"@clock":"2026-03-01T09:05:00Z"}
{"ts":"2026-03-01T09:00:03Z","page":"/a"}
{"ts":"2026-03-01T09:05:00Z","page":"/a"}
'''
"""


@pytest.mark.parametrize(
    "source", ["ingest -", "ingest tcp://:9000", "ingest x.log --follow --checkpoint 1s", "ingest log:x --follow"]
)
def test_a_silent_input_closes_windows_by_the_clock(tmp_path: Path, source: str) -> None:
    pipeline = f"{source} --time ts | {COUNT} | sink -"
    expect = 'expect = [{ n = 2, closed_by = "idle" }]\nexpect_late = [{ _reason = "idle" }]\nends = false\n'
    assert len(_passes(tmp_path, pipeline, IDLE + expect)) == 4


def test_input_that_waits_for_ever_closes_nothing(tmp_path: Path) -> None:
    for hold in ("--on-idle hold", "--idle-timeout 0s", "--idle-timeout 6m"):
        _passes(tmp_path, f"{LIVE} {hold} | {COUNT} | sink -", IDLE + "expect = [{ n = 3 }]\nends = false\n", "fused", "single")


def test_a_time_far_from_the_clock_is_not_believed(tmp_path: Path) -> None:
    given = "clock = 2026-03-01T09:00:00Z\n" + THREE.replace("09:01:03", "11:01:03")
    _passes(tmp_path, f"{LIVE} | {COUNT} | sink -", given + 'expect = [{ n = 2 }]\nexpect_dead = [{ error = "future" }]\n')
    later = given.replace("clock = 2026-03-01T09", "clock = 2026-03-01T11")
    _passes(tmp_path, f"{LIVE} | {COUNT} | sink -", later + "expect = 2\n", "fused")


def test_a_log_that_is_read_to_its_end_is_judged_by_arrival_and_never_idle(tmp_path: Path) -> None:
    pipeline = f"ingest log:x --time ts | {COUNT} | sink -"
    _passes(tmp_path, pipeline, IDLE + "expect = [{ n = 3 }, { n = 1 }]\n")
    ahead = IDLE.replace('"2026-03-01T09:05:00Z","page"', '"2026-03-01T10:06:00Z","page"')
    _passes(tmp_path, pipeline, ahead + 'expect = [{ n = 3 }]\nexpect_dead = [{ error = "future" }]\n', "fused", "single")


def test_without_a_clock_records_arrive_when_they_were(tmp_path: Path) -> None:
    """A test says the same on any day."""
    _passes(tmp_path, f"{LIVE} | {COUNT} | sink -", THREE.replace("2026-03", "2126-03") + AS_THEY_ARE, "fused", "single")


@pytest.mark.parametrize(
    ("pipeline", "test", "said"),
    [
        (FILES, 'clock = "2026-03-01"\n' + THREE + "expect = 1\n", "is read to its end"),
        (LIVE, 'clock = "soon"\n' + THREE + "expect = 1\n", '"soon" is not a time'),
        (LIVE, THREE + "ends = false\nexpect = 1\n", "live input with a clock"),
        (LIVE, "given = '''\n{\"a\":1}\n{\"@clock\":1}\n'''\nexpect = 1\n", "what time is it at the beginning?"),
        (LIVE, "given = '''\n{\"@clock\":5}\n{\"@clock\":1}\n'''\nexpect = 1\n", "the clock goes back"),
        (LIVE, "given = '''\n{\"@clock\":5,\"a\":1}\n'''\nexpect = 1\n", "has nothing else"),
    ],
)
def test_a_clock_that_cannot_be(tmp_path: Path, pipeline: str, test: str, said: str) -> None:
    message = _mistake(tmp_path, f"{pipeline} | sink -", test)
    assert said in message
    assert re.search(r"r\.toml:\d+: test \"test 1\"", message)


def test_the_clock_goes_in_steps_and_stands_twice_at_its_end() -> None:
    """So that whoever looks sees a silence begin, and sees it before what comes then."""
    steps = [*_steps(0, 86_400_000)]
    assert steps[:3] == [1_000, 2_000, 3_000]
    assert steps[-2:] == [86_400_000] * 2
    assert all(a < b <= a + max(1_000, a / 100) for a, b in pairwise(steps[:-1]))


# Where rows go.


def test_nothing_is_written_elsewhere(tmp_path: Path) -> None:
    """Neither by sinks, nor as state, nor what is late or bad; and what was written is gone."""
    (tmp_path / "out").mkdir()
    (tmp_path / "tmp").mkdir()
    out = f"{tmp_path}/out"
    pipeline = (
        f"{FILES} --dead-letter {out}/dead --checkpoint 1s | sink {out}/raw.csv.gz --pass | sink log:raw --pass"
        f" | window tumble 1m --late {out}/late | aggregate --by page n='count(*)' | sink {out}/rows.csv"
    )
    _recipe(tmp_path, pipeline, THREE + AS_THEY_ARE)
    done = _clickpipe(tmp_path, "r.toml", TMPDIR=f"{tmp_path}/tmp")
    assert done.returncode == 0, done.stdout
    assert not [*(tmp_path / "out").iterdir()]
    assert not [*(tmp_path / "tmp").iterdir()]
    assert sorted(os.listdir(tmp_path)) == ["out", "r.toml", "tmp"]


def test_quoted_steps_of_workers_write_nothing_elsewhere(tmp_path: Path) -> None:
    late = tmp_path / "late.ndjson"
    steps = f"window tumble 1m --late {late} | aggregate --by page n='count(*)'"
    _passes(tmp_path, f'{FILES} | partition --by page "{steps}" | sink -', LATE + "expect_late = 1\n" + AS_THEY_ARE)
    assert not late.exists()


def test_rows_of_a_view_are_the_last_of_each_key(tmp_path: Path) -> None:
    pipeline = f'{FILES} | select page v "v > 1 AS big" | sink view:pages --key page'
    _passes(
        tmp_path,
        pipeline,
        THREE + 'exact = true\nexpect = [{ page = "/a", v = 2, big = true }, { page = "/b", v = 4, big = true }]\n',
    )


def test_a_view_without_rows(tmp_path: Path) -> None:
    _passes(tmp_path, f"{FILES} | filter 'v > 9' | {COUNT} | sink view:pages", THREE + "expect = 0\n")


def test_a_recipe_without_source_or_sink(tmp_path: Path) -> None:
    _passes(tmp_path, "filter 'v > 1' | select v", THREE + "expect = [{ v = 2 }, { v = 4 }]\nexact = true\n")


def test_generated_records_are_replaced(tmp_path: Path) -> None:
    pipeline = f"generate --count 1000 --seed 1 |\n ingest - --time ts | {COUNT} | sink -"
    _passes(tmp_path, pipeline, THREE + AS_THEY_ARE)


def test_csv_and_a_file_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text('ts,page\n2026-03-01T09:00:01Z,/a\n2026-03-01T09:00:02Z,"/b,c"\n')
    pipeline = f"ingest 'logs/*.csv' --time ts | {COUNT} | sink -"
    _passes(tmp_path, pipeline, 'given_file = "few.csv"\nexpect = [{ page = "/a", n = 1 }, { page = "/b,c", n = 1 }]\n')


def test_an_archive_does_not_say_which_column_is_time(tmp_path: Path) -> None:
    assert "notimpl: a test of a recipe that reads archive:x" in _mistake(
        tmp_path, "ingest archive:x | sink -", THREE + "expect = 1\n"
    )


def test_variables_have_the_values_of_the_test(tmp_path: Path) -> None:
    pipeline = f"{FILES} | window tumble ${{size}} | aggregate n='count(*)' | sink -"
    _passes(tmp_path, pipeline, THREE + 'set = { size = "1h" }\nexpect = [{ n = 3 }]\n', "fused")
    assert "${size} has no value" in _mistake(tmp_path, pipeline, THREE + "expect = 1\n")


# What is wrong with a test.


@pytest.mark.parametrize(
    ("test", "line", "said"),
    [
        ("expct = 1\n", 6, 'unknown key "expct"'),
        ("expect = true\n", 6, "expect must be rows"),
        ("expect = -1\n", 6, "expect must be rows"),
        ("expect = '''\n{\"a\":1}\n{]\n'''\n", 6, "line 2 is not JSON"),
        ('expect = \'{"a":"\\ud800"}\'\n', 6, "half of a character"),
        ("expect = '[1]'\n", 6, "line 1 is no object"),
        ("expect = [1]\n", 6, "that is no table: 1"),
        ("expect = 1\ncrash_after = 4\n", 7, "from 1 to 3"),
        ("expect = 1\ncrash_after = 0\n", 7, "from 1 to 3"),
        ("expect = 1\nexpect_error = 'x'\n", 7, "stands alone"),
        ("expect_error = ' '\n", 6, "which error?"),
        ("expect = 1\nordered = true\n", 7, "rows that are expected"),
        ("expect = 1\ntolerance = -1\n", 7, "a part of the value"),
        ("expect = 1\ngiven_file = 'x'\n", 6, "one of the two"),
        ("exact = true\n", 4, "it expects nothing"),
        ("expect = 1\nset = { x = [1] }\n", 7, "x must be one value"),
    ],
)
def test_a_wrong_test_names_its_line(tmp_path: Path, test: str, line: int, said: str) -> None:
    records = "given = [{ ts = 1 }, { ts = 2 }, { ts = 3 }]\n"
    path = _recipe(tmp_path, "ingest x | sink -", test + records)
    with pytest.raises(PlanError) as raised:
        read_cases(str(path))
    assert said in str(raised.value)
    if "one of the two" not in said:
        assert f"r.toml:{line}: " in str(raised.value)


def test_the_nearest_key_is_named(tmp_path: Path) -> None:
    _recipe(tmp_path, "ingest x | sink -", THREE + "expect_lat = 1\n")
    done = _clickpipe(tmp_path, "r.toml")
    assert done.returncode == 2
    assert done.stderr.startswith(
        'clickpipe: r.toml:11: test "test 1": unknown key "expect_lat"\n'
        "    11 | expect_lat = 1\n"
        '         ^^^^^^^^^^ did you mean "expect_late"?\n'
    )


def test_two_tests_of_one_name(tmp_path: Path) -> None:
    path = _recipe(tmp_path, "ingest x | sink -", THREE + "expect = 1\n")
    path.write_text(path.read_text() + path.read_text().split("'''\n", 2)[2])
    with pytest.raises(PlanError, match="another test has that name"):
        read_cases(str(path))


def test_a_recipe_is_run_whatever_its_tests_say(tmp_path: Path) -> None:
    """Only `test` reads them."""
    _recipe(tmp_path, "generate --count 1 | ingest - | sink -", "expct = 1\n")
    command = [sys.executable, "-m", "clickpipe", "run", "-q", "r.toml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# The command.


def test_what_it_says_and_exits_with(tmp_path: Path) -> None:
    _recipe(tmp_path, f"{FILES} | {COUNT} | sink -", THREE + AS_THEY_ARE, THREE + "expect = 3\n")
    _recipe(tmp_path, f"{FILES} | sink -", name="none")
    done = _clickpipe(tmp_path, "none.toml", "r.toml", "--form", "fused")
    assert done.returncode == 65
    assert done.stderr == "clickpipe: none.toml: no tests\n"
    assert [line.split("  ")[0] for line in done.stdout.splitlines() if line[0] != " "] == ["pass", "FAIL", "1 passed, 1 failed"]
    assert _clickpipe(tmp_path, "none.toml").returncode == 0
    some = _clickpipe(tmp_path, "r.toml", "--filter", "test 1", "--form", "fused", "--json")
    assert some.returncode == 0
    (said,) = map(json.loads, some.stdout.splitlines())
    assert (said["test"], said["passed"], said["forms"], said["failures"]) == ("test 1", True, ["fused"], [])


def test_failures_for_programs(tmp_path: Path) -> None:
    _recipe(tmp_path, f"{FILES} | {COUNT} | sink -", THREE + 'expect = [{ page = "/a", n = 2 }, { page = "/b", n = 7 }]\n')
    (said,) = map(json.loads, _clickpipe(tmp_path, "r.toml", "--form", "piped", "--json").stdout.splitlines())
    (failure,) = said["failures"]
    assert failure["form"] == "piped"
    assert failure["differing"][0]["columns"] == ["n"]
    assert failure["differing"][0]["actual"]["n"] == 1
    assert failure["again"] == "clickpipe test r.toml --filter 'test 1' --form piped"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no recipe"),
        (["nowhere.toml"], "nowhere.toml: No such file"),
        (["r.toml", "--form", "fusd"], 'did you mean "fused"?'),
        (["r.toml", "--filter", "tset 1"], 'no test has "tset 1" in its name'),
    ],
)
def test_a_mistake_exits_2(tmp_path: Path, words: list[str], said: str) -> None:
    _recipe(tmp_path, f"{FILES} | sink -", THREE + "expect = 3\n")
    done = _clickpipe(tmp_path, *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_values_and_names_are_harmless_on_a_terminal(tmp_path: Path) -> None:
    """Nothing that moves a cursor gets through: from records, from expected rows, from messages, from names."""
    evil = "\\u001b[31m\\u202e\\u009b2J"
    given = f'given = [{{ ts = 2026-03-01T09:00:00Z, page = "{evil}", v = "{evil}" }}]\n'
    tests = [
        f'{given}expect = [{{ page = "{evil}x", n = 1 }}]\n',
        f'{given}expect_error = "{evil}"\n',
        f'{given}set = {{ }}\nexpect_dead = [{{ raw = "{evil}" }}]\n',
    ]
    path = _recipe(tmp_path, f"{FILES} | {COUNT} | sink -", *tests)
    path.write_text(path.read_text().replace('"test 1"', f'"{evil}\\n"'))
    done = _clickpipe(tmp_path, "r.toml", "--form", "fused")
    assert done.returncode == 65
    assert "\\u001b[31m" in done.stdout
    assert not re.search("[\0-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", done.stdout + done.stderr)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_it_leaves_nothing(tmp_path: Path, number: int) -> None:
    """Neither files nor processes."""
    (tmp_path / "tmp").mkdir()
    _recipe(tmp_path, f"{FILES} | {COUNT} | sink -", *[THREE + AS_THEY_ARE] * 30)
    command = [sys.executable, "-m", "clickpipe", "test", "r.toml"]
    env = environment(tmp_path, TMPDIR=str(tmp_path / "tmp"))
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    until(lambda: [*(tmp_path / "tmp").glob("*/run/.home")], "nothing is run")
    children = children_of(process.pid)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 128 + number
    assert not [child for child in children if lives(child)]
    assert not [*(tmp_path / "tmp").iterdir()]


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    _recipe(tmp_path, f"{FILES} | {COUNT} | sink -", *[THREE + AS_THEY_ARE] * 3)
    script = f"set -o pipefail; {sys.executable} -m clickpipe test r.toml --form fused | head -1"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_other_variables_of_the_environment_change_nothing(tmp_path: Path) -> None:
    _recipe(tmp_path, f"{FILES} | {COUNT} | sink -", THREE + AS_THEY_ARE)
    done = _clickpipe(tmp_path, "r.toml", CLICKPIPE_ACCOUNTS="nonsense", CLICKPIPE_CODEC="arrow", CLICKPIPE_KILL_AFTER="1")
    assert done.returncode == 0, done.stdout


# Rows beside rows.


def test_every_expected_row_finds_one_where_that_can_be() -> None:
    """Also where the first one could take another's."""
    expected = [{"page": "/a"}, {"n": 3}, {"page": "/a"}]
    actual = [{"page": "/a", "n": 1}, {"page": "/a", "n": 3}, {"page": "/b", "n": 3}]
    assert matched(expected, actual, Rule()).is_right
    assert matched(expected, actual, Rule()).agreed == 3


def test_a_row_stands_beside_the_one_that_is_most_like_it() -> None:
    expected = [{"page": "/a", "n": 1}, {"page": "/b", "n": 2}]
    actual = [{"page": "/b", "n": 1}, {"page": "/a", "n": 2}]
    pairs = matched(expected, actual, Rule()).differing
    assert [(pair.expected["page"], pair.actual["page"]) for pair in pairs] == [("/a", "/a"), ("/b", "/b")]


@pytest.mark.parametrize(
    ("expected", "actual", "is_right"),
    [
        (1, True, False),
        (1, 1.0, True),
        (1, "1", False),
        (0.1 + 0.2, 0.3, True),
        (0.3, 0.3001, False),
        (None, None, True),
        (10**15, 10**15 + 1, False),
        ([1, {"a": 2}], [1, {"a": 2.0}], True),
        ([1, {"a": 2}], [1, {"a": 3}], False),
    ],
)
def test_when_values_are_equal(expected: Any, actual: Any, is_right: bool) -> None:
    assert matched([{"x": expected}], [{"x": actual}], Rule()).is_right is is_right


def test_a_line_separator_of_unicode_is_a_character(tmp_path: Path) -> None:
    given = "given = '''\n{\"page\":\"a\u2028b\"}\n'''\n"
    _passes(tmp_path, "ingest - | sink -", given + "expect = '''\n{\"page\":\"a\u2028b\"}\n'''\n", "fused")


def test_many_rows_are_compared_at_once() -> None:
    rows = [{"page": f"/p/{n}", "n": n} for n in range(5_000)]
    assert matched(rows, rows[::-1], Rule()).is_right


def test_a_null_may_be_a_field_that_is_not_there() -> None:
    assert matched([{"x": None}], [{"y": 1}], Rule()).is_right
    assert not matched([{"x": 1}], [{"y": 1}], Rule()).is_right


def test_all_forms_are_known() -> None:
    assert {*forms._FORMS} | {"shuffled"} == {*FORMS}
