"""Idle splits: whom the stream's watermark waits for, and where it goes when nobody gives anything."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from growing import Run, append, wait_for_nothing
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from clickpipe.core.idle import STEP, IdleRule, Watermark
from clickpipe.core.loop import Asides, Loop, Tail
from clickpipe.core.operator import Feed, Operator, Pull
from clickpipe.core.option import Duration
from clickpipe.engine.feeds import RawSplit
from clickpipe.engine.opening import open_stages
from clickpipe.operators.ingest import Ingest
from clickpipe.plan.parse import parse
from clickpipe.testing import environment
from clickpipe.wire.pump import Inbox

TIMEOUT = 5_000


def _watermark(*, advances: bool = True, timeout: int = TIMEOUT) -> Watermark:
    return Watermark(IdleRule(timeout, advances))


class _Oracle:
    """Who holds the watermark back, told from the whole history of records and looks."""

    def __init__(self, *, advances: bool) -> None:
        self.advances, self.marks = advances, dict[str, int]()
        self.given, self.looked = dict[str, int](), dict[str, int]()
        self.bound: int | None = None  # the watermark may not stand further
        self.all_idle: tuple[int, int] | None = None

    def idle(self) -> set[str]:
        return {split for split in self.marks if self.looked[split] - self.given[split] >= TIMEOUT}

    def decide(self, now: int, reached: int | None) -> None:
        awake = set(self.marks) - self.idle()
        if awake:
            self.bound, self.all_idle = min(self.marks[split] for split in awake), None
        elif self.marks and reached is not None and self.advances:
            self.all_idle = self.all_idle or (now, reached)
            self.bound = self.all_idle[1] + now - self.all_idle[0]
        else:
            self.bound = reached


class Splits(RuleBasedStateMachine):
    """Splits that give records, fall silent and wake up, in any order, with any time between two looks."""

    @initialize(advances=st.booleans())
    def begin(self, advances: bool) -> None:
        self.watermark, self.oracle, self.now = _watermark(advances=advances), _Oracle(advances=advances), 0
        self.before: int | None = None

    @rule(passed=st.integers(0, 3 * TIMEOUT), given=st.dictionaries(st.sampled_from("abc"), st.integers(-10_000, 10_000)))
    def round(self, passed: int, given: dict[str, int]) -> None:
        """Time passes, some splits give a record, all others that have ever given one are looked at."""
        self.now += passed
        oracle, self.before = self.oracle, self.watermark.reached
        for split, mark in given.items():
            stands = [mark, oracle.marks.get(split, mark), self.before if self.before is not None else mark]
            oracle.marks[split], oracle.given[split] = max(stands), self.now
        for split in oracle.marks:
            oracle.looked[split] = self.now
            self.watermark.look(split, self.now, has_given=split in given)
        oracle.decide(self.now, self.before)
        self.watermark.advance(oracle.marks, self.now)

    @invariant()
    def is_right(self) -> None:
        reached, oracle = self.watermark.reached, self.oracle
        assert self.watermark.idle() == oracle.idle()
        if not oracle.marks:
            assert reached is None
            return
        assert reached is not None
        assert oracle.bound is not None
        if self.before is not None:
            assert reached >= self.before
        if oracle.all_idle:
            since = self.now - oracle.all_idle[0]
            assert reached <= oracle.bound
            assert reached > oracle.bound - max(STEP, since // 60)
        else:
            assert reached == (oracle.bound if self.before is None else max(oracle.bound, self.before))


TestSplits = Splits.TestCase
TestSplits.settings = settings(max_examples=examples(150), stateful_step_count=20, deadline=None)


@pytest.mark.parametrize(
    ("advances", "stands"),
    [(True, [1_000, 1_000, 1_000, 1_000, 3_000, 7_000]), (False, [1_000] * 6)],
)
def test_one_split_that_falls_silent(advances: bool, stands: list[int]) -> None:
    """From the moment at which it is idle the watermark goes on as fast as the clock, or stays."""
    watermark, seen = _watermark(advances=advances), []
    for now in (0, 2_500, 4_999, 5_000, 7_000, 11_000):
        watermark.look("a", now, has_given=now == 0)
        watermark.advance({"a": 1_000}, now)
        seen.append(watermark.reached)
    assert seen == stands


def test_without_a_timeout_nobody_is_ever_idle() -> None:
    watermark = _watermark(timeout=0)
    for now in (0, 10**9):
        watermark.look("a", now, has_given=False)
        watermark.advance({"a": 1_000}, now)
    assert (watermark.reached, watermark.idle()) == (1_000, frozenset())


def test_who_was_not_looked_at_is_not_idle() -> None:
    """A disk was full for an hour, and nobody has read: there may be records waiting."""
    watermark = _watermark()
    watermark.look("a", 0, has_given=True)
    watermark.look("b", 3_600_000, has_given=True)
    watermark.advance({"a": 1_000, "b": 2_000}, 3_600_000)
    assert not watermark.is_idle("a")
    assert watermark.reached == 1_000
    watermark.look("a", 3_600_000, has_given=False)
    assert watermark.is_idle("a")


def test_a_split_without_a_record_yet_that_is_waited_for_holds_everything() -> None:
    watermark = _watermark()
    assert not watermark.advance({"a": None, "b": 5}, 0)
    assert watermark.reached is None


def test_a_quiet_night_moves_the_watermark_less_and_less_often() -> None:
    watermark, moves = _watermark(), 0
    for now in range(0, 12 * 3_600_000, 500):
        watermark.look("a", now, has_given=now == 0)
        moves += watermark.advance({"a": 0}, now)
    assert moves < 600
    assert watermark.reached is not None
    assert 0.98 * now < watermark.reached <= now


# Files that are followed. The clock is ours.


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wait_for_nothing(monkeypatch)


class _Watched(Run):
    """Two files, read round by round, with a clock that stands still until it is told."""

    def __init__(self, more: str = "", timeout: str = "5s") -> None:
        super().__init__(f"a.log b.log --columns n:int --time n --time-unit ms --idle-timeout {timeout} {more}")
        self.now = 0
        self.marks: list[int | None] = []

    def start(self) -> None:
        super().start()
        assert self.feed is not None
        self.feed._now = lambda: self.now  # type: ignore[method-assign]  # a clock of ours

    def after(self, milliseconds: int) -> tuple[int | None, bool]:
        """Where the watermark stands after one more round, and whether the wall clock has moved it."""
        self.now += milliseconds
        feed, is_idle = self._saving(False), False
        for pull in feed.round():
            self._take(pull)
            is_idle |= pull.idle
            self.marks += [mark for batch in pull.batches if "_mark" in batch.frame.columns for mark in batch.frame["_mark"]]
        return feed._reached, is_idle


@pytest.mark.usefixtures("here")
def test_a_silent_file_is_not_waited_for() -> None:
    append("a.log", 1_000)
    append("b.log", 2_000)
    run = _Watched()
    assert run.after(0) == (1_000, False)
    append("b.log", 9_000)
    assert run.after(4_999) == (1_000, False)
    assert run.after(1) == (9_000, True)  # a has given nothing for 5 s
    append("b.log", 10_000)
    assert run.after(1_000) == (10_000, False)


@pytest.mark.usefixtures("here")
def test_a_file_that_wakes_up_is_waited_for_again() -> None:
    """What it gives from before the watermark carries the stream's watermark as its mark; the rest does not."""
    append("a.log", 1_000)
    append("b.log", 9_000)
    run = _Watched()
    run.after(0)
    append("b.log", 9_500)
    assert run.after(5_000) == (9_500, False)
    append("a.log", 2_000, 9_400, 9_600)
    append("b.log", 20_000)
    assert run.after(0) == (9_600, False)
    assert run.marks == [9_500, 9_500, None]
    append("b.log", 30_000)
    assert run.after(4_999) == (9_600, False)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("rule", ["advance", "hold"])
def test_all_files_are_silent(rule: str) -> None:
    append("a.log", 1_000)
    append("b.log", 3_000)
    run = _Watched(f"--on-idle {rule}")
    run.after(0)
    assert run.after(5_000) == (1_000, False)
    assert run.after(2_000) == ((3_000, True) if rule == "advance" else (1_000, False))
    assert run.after(500)[0] == (3_000 if rule == "advance" else 1_000)  # not at each look
    append("a.log", 3_100)
    assert run.after(0) == (3_100, False)


@pytest.mark.usefixtures("here")
def test_bad_lines_are_no_sign_of_life() -> None:
    append("a.log", 1_000)
    append("b.log", 9_000)
    run = _Watched()
    run.after(0)
    append("a.log", rest="oops\n")
    append("b.log", 9_001)
    assert run.after(5_000) == (9_001, False)


@pytest.mark.usefixtures("here")
def test_without_a_timeout_a_silent_file_is_waited_for() -> None:
    append("a.log", 1_000)
    append("b.log", 9_000)
    run = _Watched(timeout="0s")
    run.after(0)
    assert run.after(10**9) == (1_000, False)
    assert run.feed is not None
    assert not run.feed.columns.idles


@pytest.mark.usefixtures("here")
def test_a_restart_counts_anew_and_does_not_go_back() -> None:
    """The watermark is kept where the clock had taken it; each file has its whole timeout again."""
    append("a.log", 1_000)
    append("b.log", 9_000)
    run = _Watched()
    run.read()
    for passed in (5_000, 6_000):
        run.now += passed
        run.read()
    assert run.saved is not None
    assert run.saved["reached"] == 7_000
    assert [split["silent_since"] > 0 for split in run.saved["splits"]] == [True, True]
    run.kill()
    append("a.log", 6_900)
    assert run.after(0) == (7_000, False)
    assert run.marks == [7_000]
    assert run.after(4_999) == (7_000, False)
    append("b.log", 20_000)
    assert run.after(1) == (20_000, False)  # a is idle, b is not


@pytest.mark.usefixtures("here")
def test_falling_silent_is_worth_a_checkpoint() -> None:
    """So that a look from outside sees it, and rows of windows that close by the clock appear."""
    append("a.log", 1_000)
    append("b.log", 9_000)
    run = _Watched()
    run.read()
    assert run.saved is not None
    assert not any("silent_since" in split for split in run.saved["splits"])
    append("b.log", 9_001)
    run.now += 4_000
    run.read()
    run.now += 1_000
    run.read()
    assert [split.get("silent_since") is not None for split in run.saved["splits"]] == [True, False]


# Standard input.


def _live(more: str = "") -> tuple[Ingest, int, RawSplit]:
    reader, writer = os.pipe()
    step = Ingest(("-",), columns="n:int", time="n", time_unit="ms", idle_timeout=Duration(200), on_idle=more or None)
    return step, writer, RawSplit(Inbox(reader, "standard input"))


def test_standard_input_that_pauses() -> None:
    """The watermark goes on without a record, and says so; what comes then is judged by where it stands."""
    step, writer, split = _live()
    os.write(writer, b'{"n": 1000}\n')
    feed = step.feed([split])
    assert feed.columns.idles
    feed.want(None, True)
    seen: list[tuple[int | None, bool]] = []
    marks: list[int | None] = []
    for pull in feed.pulls():
        if pull.watermark is not None and (not seen or seen[-1][0] != pull.watermark):
            seen.append((pull.watermark, pull.idle))
        marks += [mark for batch in pull.batches if "_mark" in batch.frame.columns for mark in batch.frame["_mark"]]
        if len(seen) == 2 and not marks:
            os.write(writer, b'{"n": 1500}\n{"n": 900000}\n')
            os.close(writer)
    assert seen[0] == (1_000, False)
    assert seen[1][1]
    assert seen[1][0] is not None
    assert seen[1][0] >= 2_000
    assert marks == [seen[1][0], None]
    assert seen[2] == (900_000, False)


def test_standard_input_that_pauses_and_is_to_hold() -> None:
    step, writer, split = _live("hold")
    os.write(writer, b'{"n": 1000}\n')
    feed = step.feed([split])
    assert not feed.columns.idles
    feed.epochs = count(1)
    for number, pull in enumerate(feed.pulls()):
        assert pull.watermark == 1_000
        if number == 40:
            os.close(writer)
    assert feed.last is not None
    assert json.loads(json.dumps(feed.last.state[0]["source"]))["reached"] == 1_000


@given(st.booleans(), st.booleans())
def test_a_file_as_standard_input_never_pauses(advances: bool, is_raw: bool) -> None:
    """It has all there is, as a file that is named has: so both give the same columns."""
    with open(__file__, "rb") as file:
        split = RawSplit(Inbox(os.dup(file.fileno()), "standard input"))
        step = Ingest(("-",), columns="n:int", time=None if is_raw else "n", on_idle="advance" if advances else "hold")
        assert not step.feed([split]).columns.idles


# Whole pipelines.


class _Played(Feed):
    """A feed in whose life things happen at given moments, by a clock of ours."""

    def __init__(self, run: _Watched, moments: list[tuple[int, dict[str, list[int]]]]) -> None:
        run.start()
        assert run.feed is not None
        self._run, self._feed, self._moments = run, run.feed, moments
        self.columns, self.floats, self.is_stopped = run.feed.columns, run.feed.floats, True

    def pulls(self) -> Iterator[Pull]:
        for passed, appended in self._moments:
            self._run.now += passed
            for path, times in appended.items():
                append(path, *times)
            yield from self._feed.round()


def _played(moments: list[tuple[int, dict[str, list[int]]]], more: str = "") -> tuple[list[tuple[int, int]], list[int]]:
    """The rows that have appeared, and the times of late records. The run ends with windows open."""
    feed, rows, late = _Played(_Watched(more), moments), list[dict[str, Any]](), list[int]()
    stages, _ = open_stages(parse("filter 'n >= 0' | window tumble 10s | aggregate c='count(*)'"), feed.columns)
    tail = Tail(lambda batch: rows.extend(batch.frame.select("window_start", "c").to_dicts()), lambda _, __: None, ())
    asides = Asides(lambda one: late.extend(one.batch.frame["n"].to_list()), lambda _: None)
    Loop(feed, stages, tail, asides, feed.floats).run()
    return [(row["window_start"], row["c"]) for row in rows], late


WAKES = [
    (0, {"a.log": [1_000], "b.log": [2_000]}),
    (4_000, {"b.log": [12_000]}),
    (1_000, {"b.log": [13_000]}),  # a is idle: the window that ends at 10 s closes
    (1_000, {"a.log": [3_000, 14_000]}),  # 3 s is too late, 14 s counts
    (1_000, {"a.log": [20_000], "b.log": [25_000]}),
]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("rule", ["advance", "hold"])
def test_a_window_does_not_wait_for_a_silent_file(rule: str) -> None:
    rows, late = _played(WAKES, f"--on-idle {rule}")
    assert rows == [(0, 2), (10_000, 3)]
    assert late == [3_000]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("rule", "closed"), [("advance", [(0, 2), (10_000, 3), (20_000, 2)]), ("hold", [(0, 2), (10_000, 3)])])
def test_the_last_window_closes_without_further_input(rule: str, closed: list[tuple[int, int]]) -> None:
    rows, _ = _played([*WAKES, (5_000, {}), (9_000, {}), (1_000, {})], f"--on-idle {rule}")
    assert rows == closed


def test_operators_are_told_what_has_moved_the_watermark() -> None:
    class Told(Operator):
        def __init__(self) -> None:
            self.heard: list[object] = []

        def on_idle(self) -> None:
            self.heard.append("idle")

        def on_watermark(self, time: int) -> Iterator[Any]:
            self.heard.append(time)
            return iter(())

    class Three(Feed):
        sinks, is_stopped, floats = (), True, set[str]()

        def pulls(self) -> Iterator[Pull]:
            yield from (Pull(watermark=1), Pull(watermark=2, idle=True), Pull(watermark=3))

    plan = parse("ingest x | filter 'a > 1' | filter 'a > 2' | sink -")
    stages, _ = open_stages(plan, Ingest(("-",), columns="a:int").feed([RawSplit(Inbox(os.open(os.devnull, 0), ""))]).columns)
    operators = [Told() for _ in stages]
    for stage, operator in zip(stages, operators, strict=True):
        stage.operator = operator
    handed: list[tuple[int | None, bool]] = []
    tail = Tail(lambda _: None, lambda time, is_idle: handed.append((time, is_idle)), ())
    Loop(Three(), stages, tail, Asides(lambda _: None, lambda _: None), set()).run()
    assert [operator.heard for operator in operators] == [[1, "idle", 2, 3]] * 2
    assert handed == [(1, False), (2, True), (3, False)]


def test_processes_tell_each_other(tmp_path: Path) -> None:
    """Rows appear behind a standard input that stays open and gives nothing; the frames say why."""
    command = (
        "clickpipe ingest - --time t --idle-timeout 200ms | clickpipe window tumble 1s | clickpipe filter 't > 0'"
        " | tee seen.ndjson | clickpipe aggregate n='count(*)' | clickpipe sink -"
    )
    environ = environment(tmp_path, PYTHONPATH=os.environ.get("PYTHONPATH", ""))
    words = ["bash", "-c", command]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path, env=environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"t":1700000000500}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["n"] == 1  # it comes, or the test never ends
        process.stdin.close()
        assert process.wait(60) == 0
    said = [json.loads(line) for line in (tmp_path / "seen.ndjson").read_text().splitlines() if line.startswith("\t")]
    assert said[0]["idles"] is True
    frames = [one for one in said if one["@"] == "frame"]
    assert [one.get("idle") for one in frames] == [None, *[True] * (len(frames) - 1)]
    assert frames[0]["watermark"] == 1_700_000_000_500
    assert frames[1]["watermark"] >= 1_700_000_001_500
