"""--workers auto: as many as the load takes, changed at a checkpoint, and the results are those of one."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running import Start, errors, status, until

from clickpipe import spent
from clickpipe.cli.supervised import _pipeline
from clickpipe.core.cores import cores
from clickpipe.core.step import PartitionStep
from clickpipe.engine.scaling import Load, Scaler, loads, wanted
from clickpipe.errors import PlanError
from clickpipe.plan.flags import parse_step
from clickpipe.plan.parse import parse
from clickpipe.state import samples
from clickpipe.state.samples import Sample


def partition(words: str = "--workers auto --min-workers 1 --max-workers 8 --cool-down 30s") -> PartitionStep:
    step = parse_step("partition", ["--by", "user", *words.split()])
    assert isinstance(step, PartitionStep)
    return step


@pytest.mark.parametrize(
    ("busy", "waited", "bounds", "workers"),
    [
        ([0.95], 0.5, (1, 8), 2),  # 1.9 workers' work, at 80 % each: 3, but at most twice as many
        ([0.9, 0.9], 0.25, (1, 8), 3),
        ([0.9, 0.9], 0.25, (1, 2), 2),
        ([0.99, 0.1, 0.1, 0.1], 0.2, (1, 8), 5),  # one key group is hot: one more, and see
        ([0.3, 0.3], 0.9, (1, 8), 2),  # they wait themselves: what is behind them is slow
        ([0.7, 0.7], 0.0, (1, 8), 2),  # well used
        ([0.1, 0.1, 0.1, 0.1], 0.0, (1, 8), 1),
        ([0.1, 0.1, 0.1, 0.1], 0.0, (2, 8), 2),
        ([0.0], 0.0, (1, 8), 1),
        ([0.9], 1.0, (1, 8), 2),
    ],
)
def test_how_many_are_wanted(busy: list[float], waited: float, bounds: tuple[int, int], workers: int) -> None:
    assert wanted(Load(busy, waited, 1_000), *bounds) == workers


def _samples(second: int, workers: int, busy: float, waited: float, rate: float = 1_000) -> list[Sample]:
    """After so many seconds in which all was as it is said."""
    worker = Sample(11, 2, None, 0, second, busy * second, (1 - busy) * second, 0)
    before = Sample(10, 0, None, int(rate * second), second, (1 - waited) * second, 0, waited * second)
    behind = Sample(99, 4, None, 0, second, 0, second, 0)
    return [before, *(replace(worker, process=11 + number, worker=number) for number in range(workers)), behind]


def test_loads_are_of_the_time_between_two_samples() -> None:
    since, now = _samples(10, 2, 0.2, 0.0), _samples(20, 2, 0.5, 0.3, rate=2_000)
    (load,) = loads(since, now)
    assert load == Load([pytest.approx(0.8)] * 2, pytest.approx(0.6), pytest.approx(3_000))


def test_who_stands_still_or_is_new_says_nothing() -> None:
    """A killed process has left its sample; one that has just begun has too little behind it."""
    since, now = _samples(10, 2, 0.5, 0.5), _samples(20, 2, 0.5, 0.5)
    assert loads(since, [now[0], since[1], *now[2:]]) == [None]
    assert loads(since, [now[0], replace(now[1], process=77), *now[2:]]) == [None]
    assert loads([], now) == [None]


@contextmanager
def _scaler(monkeypatch: pytest.MonkeyPatch, *steps: PartitionStep) -> Iterator[tuple[Scaler, list[Sample], list[str]]]:
    found: list[Sample] = []
    monkeypatch.setattr(samples, "read", lambda _: list(found))
    monkeypatch.setattr(samples, "clear", lambda _: found.clear())
    yield Scaler("clicks", steps), found, []


def test_from_few_to_many_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with _scaler(monkeypatch, partition()) as (scaler, found, said):
        now = 0.0

        def lives(busy: float, waited: float, rate: float) -> bool:
            """A life of a minute, until it is stopped or over."""
            nonlocal now
            scaler.begin(now)
            (workers,) = scaler.counts
            for second in (11, 35, 70):
                assert scaler.due <= now + second
                found[:] = _samples(second, workers, busy, waited, rate)
                if scaler.look(now + second, said.append):
                    now += second
                    return True
            return False

        assert scaler.counts == [1]
        assert lives(0.95, 0.6, 1_000)
        assert scaler.counts == [2]
        assert lives(0.95, 0.6, 1_900)
        assert scaler.counts == [4]
        assert lives(0.9, 0.5, 2_000), "four take hardly more than two did"
        assert scaler.counts == [2]
        assert not lives(0.95, 0.6, 1_900), "nor are there so many again"
        assert lives(0.2, 0.0, 400)
        assert scaler.counts == [1]
    assert said == [
        "clicks: records wait for the workers, which are busy for 95 % of their time; goes on with 2",
        "clicks: records wait for the workers, which are busy for 95 % of their time; goes on with 4",
        "clicks: 4 workers take no more than 2 did; goes on with 2",
        "clicks: the workers are busy for 20 % of their time; goes on with 1",
    ]


def test_who_dies_with_more_workers_has_as_many_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: what dies with these too has another reason."""
    with _scaler(monkeypatch, partition()) as (scaler, found, said):
        scaler.begin(0)
        for second in (10, 30):
            found[:] = _samples(second, 1, 0.95, 0.6)
            scaler.look(second, said.append)
        assert scaler.counts == [2]
        for _ in range(2):
            scaler.died(said.append)
            assert scaler.counts == [1]
    assert said[1:] == ["clicks: died with 2 workers, and had not with 1; goes on with 1"]


def test_a_key_that_keeps_one_worker_busy_takes_no_other_away() -> None:
    assert wanted(Load([0.9, 0.1, 0.1], 0.05, 1_000), 1, 8) == 3


def test_what_brought_nothing_is_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    with _scaler(monkeypatch, partition()) as (scaler, found, said):
        counts = []
        second = 0
        scaler.begin(0)
        for _ in range(30):
            second += 30
            found[:] = _samples(second, *scaler.counts, 0.95, 0.6)
            if scaler.look(second, said.append):
                scaler.begin(second)
                second = 0
            counts.append(scaler.counts[0])
        assert counts[:8] == [1, 2, 2, 2, 1, 1, 1, 1]
        assert 2 in counts[10:]


def test_more_workers_that_take_all_there_is_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """That no more come, because there are no more, is not their fault."""
    with _scaler(monkeypatch, partition()) as (scaler, found, said):
        for busy, waited, workers in ((0.95, 0.6, 2), (0.7, 0.0, 2)):
            scaler.begin(0)
            for second in (10, 30):
                found[:] = _samples(second, *scaler.counts, busy, waited)
                scaler.look(second, said.append)
            assert scaler.counts == [workers]


def test_several_partitions_each_have_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = partition("--workers 3")
    with _scaler(monkeypatch, fixed, partition()) as (scaler, found, said):
        assert scaler.counts == [3, 1]
        scaler.begin(0)
        for second in (10, 30):
            first, second_ = _samples(second, 3, 0.1, 0.0), _samples(second, 1, 0.95, 0.5)
            found[:] = first[:-1] + [replace(one, hop=one.hop + 4, process=one.process + 100) for one in second_]
            scaler.look(second, said.append)
        assert scaler.counts == [3, 2]


def test_it_begins_with_what_the_last_run_had() -> None:
    assert Scaler("clicks", [partition()], [4]).counts == [4]
    assert Scaler("clicks", [partition("--workers auto --max-workers 3")], [4]).counts == [3]
    assert Scaler("clicks", [partition("--workers auto --min-workers 2")], [1]).counts == [2]
    assert Scaler("clicks", [partition()], [4, 2]).counts == [1], "of another plan"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--workers few", '"few" is neither a number of workers nor auto'),
        ("--workers 0", "--workers can be auto, or 1 to 128, and not 0"),
        ("--workers 129", "--workers can be auto, or 1 to 128, and not 129"),
        ("--workers auto --min-workers 0", "--min-workers can be 1 to 128, and not 0"),
        ("--workers auto --min-workers 4 --max-workers 3", "--max-workers 3 is less than --min-workers 4"),
        ("--workers 4 --max-workers 8", "--max-workers is for --workers auto"),
        ("--workers 4 --max-workers 1", "--max-workers is for --workers auto"),
        ("--workers 4 --cool-down 1m", "--cool-down is for --workers auto"),
        ("--workers auto --cool-down 1s", "--cool-down is at least 3s"),
        ("--workers -3", '"-3" is neither a number of workers nor auto'),
    ],
)
def test_what_cannot_be(words: str, error: str) -> None:
    with pytest.raises(PlanError, match=error):
        partition(words)


def test_more_workers_than_cores_are_said(folder: Path, start: Start) -> None:
    line = f"ingest in.ndjson --checkpoint 1s | partition --by page --workers {cores() + 1} | filter 'ts > 0' | merge | sink -"
    assert start("run", "-c", line).wait(60) == 0, errors(folder)
    assert f"in: {cores() + 1} workers share {cores()} core" in errors(folder)


def test_without_a_supervisor_there_are_as_many_as_there_may_be(folder: Path, start: Start) -> None:
    """In a shell, and where no checkpoints are taken."""
    line = "ingest in.ndjson --time ts | partition --by page --workers auto | filter 'ts > 0' | merge | sink out.ndjson"
    assert start("run", "-c", line).wait(60) == 0, errors(folder)
    assert sorted((folder / "out.ndjson").read_text().splitlines()) == sorted((folder / "in.ndjson").read_text().splitlines())


def test_input_that_cannot_be_read_again_is_never_stopped_for_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in a pipe would be lost with the process that has read it."""
    monkeypatch.chdir(folder)
    words = "ingest - --time ts --checkpoint 1s | partition --by page --workers auto | filter 'ts > 0' | merge | sink out.ndjson"
    plan = parse(words.replace("ingest -", "ingest in.ndjson"))
    with_file = _pipeline(plan, [["run"]], rescales=True)
    assert with_file.partitions
    assert not _pipeline(parse(words), [["run"]], rescales=True).partitions
    assert not _pipeline(plan, [["run"]], rescales=False).partitions, "nothing is started again"


def test_samples_are_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is none is passed over: half a file, one of other types, a link, a pipe that nobody writes to."""
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path))
    told = [Sample(1, 2, None, 5, 1.5, 1.0, 0.25, 0.25, run=1), Sample(2, 3, 0, 5, 1.5, 1.0, 0.25, 0.25, run=1)]
    for one in told:
        samples.write("clicks", one)
    folder = tmp_path / "run" / "clicks"
    (folder / "4.json").write_text('{"process":')
    (folder / "5.json").write_text((folder / "2.json").read_text().replace("5,", '"5",', 1))
    (folder / "6.json").symlink_to(folder / "2.json")
    os.mkfifo(folder / "7.json")
    (folder / "2.json.99.part").write_text((folder / "2.json").read_text())
    assert samples.read("clicks") == told
    samples.clear("clicks")
    assert samples.read("clicks") == []


def test_time_is_spent_once() -> None:
    """Waits count while they last, and those of other threads do not."""
    spent.begin()
    with spent.waiting(spent.IDLE):
        asked: list[Any] = []
        other = threading.Thread(target=lambda: asked.append(_waits_elsewhere()))
        other.start()
        other.join()
    assert asked[0].idle > 0
    assert asked[0].backpressured == 0
    now = spent.spent()
    assert now.idle >= asked[0].idle
    assert now.backpressured == 0
    assert now.busy > 0
    spent.begin()
    assert spent.spent().idle == 0


def _waits_elsewhere() -> spent.Spent:
    with spent.waiting(spent.BACKPRESSURED):
        return spent.spent()


def test_time_is_told_apart_by_steps() -> None:
    """What a step hands on to the next is not its own, nor is what it waits."""
    spent.begin()
    with spent.working(1):
        _compute()
        with spent.working(2):
            _compute()
            with spent.waiting(spent.IDLE):
                _compute()
        before = spent.spent(3)
        _compute()
    now = spent.spent(3)
    assert all(now.steps), now
    assert (now.steps[1] - before.steps[1], now.steps[2], now.idle) == (pytest.approx(now.steps[1] / 2, rel=0.9), *_same(before))
    assert now.busy == pytest.approx(sum(now.steps))


def _same(one: spent.Spent) -> tuple[float, float]:
    return one.steps[2], one.idle


def _compute() -> None:
    sum(range(100_000))


STEPS = "window tumble 10s | aggregate --by user " + " ".join(
    f"q{n}='approx_quantile(x + {n}, 0.5)' d{n}='count(DISTINCT x + {n})'" for n in range(3)
)
LINE = "ingest in.ndjson {how} --time ts --name c | partition --by user {workers} | " + STEPS + " | merge | sink {out}.ndjson"


def _given(folder: Path) -> int:
    """How many records all its lives have been given, by what they say of themselves."""
    told = sum(map(int, re.findall(r"read ([\d,]+)", errors(folder).replace(",", ""))[-1:]))
    return told + sum(one["records"] for path in folder.glob(".home/run/c/0.json") if (one := json.loads(path.read_text())))


def _lines(number: int) -> str:
    records = (
        {"ts": 1_700_000_000_000 + 10 * n, "user": f"u{n % 997}", "x": n * 31 % 1_009} for n in range(number, number + 20_000)
    )
    return "".join(json.dumps(record) + "\n" for record in records)


def test_a_followed_file_has_workers_by_its_load(folder: Path, start: Start) -> None:
    """While more is written than one can take there are more; when no more comes, one; and no result is another."""
    path = folder / "in.ndjson"
    path.write_text(_lines(0))
    workers = "--workers auto --max-workers 2 --cool-down 3s"
    process = start("run", "-c", LINE.format(how="--follow --checkpoint 200ms --batch-bytes 256KiB", workers=workers, out="c"))
    until(lambda: "workers share" in errors(folder) or (folder / ".home/pipelines/c").exists(), "it does not begin")
    written = 20_000
    over = threading.Event()

    def write() -> None:
        nonlocal written
        while not over.wait(0.005):
            if (
                written - _given(folder) < 300_000
            ):  # as much as makes it wait, also where a second goes by before it says what it was given
                with path.open("a") as file:
                    file.write(_lines(written))
                written += 20_000

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until(lambda: "goes on with 2" in errors(folder), "no worker is added")
        until(lambda: status(folder).get("workers") == [2], "status does not know")
    finally:
        over.set()
        writer.join()
    until(lambda: re.search("the workers are busy for .*; goes on with 1", errors(folder)), "none is taken away")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 0, errors(folder)
    whole = start("run", "-c", LINE.format(how="", workers="--workers 1", out="whole").replace("--name c", "--name whole"))
    assert whole.wait(60) == 0, errors(folder)
    assert _rows(folder / "c.ndjson") == _rows(folder / "whole.ndjson")
    assert f"read {written:,}" in errors(folder)


def _rows(path: Path) -> list[str]:
    """But for what only live input says."""
    return sorted(re.sub(r',"closed_by":"\w+"', "", path.read_text()).splitlines())
