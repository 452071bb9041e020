"""Processes that are stopped and wake up later: they have no effect beside a newer run, and nobody waits for them in vain."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from examples import some
from running import PIPELINE, Start, children_of, epoch, errors, expected, lives, rows, until

from clickpipe.state.directory import StateDirectory
from clickpipe.testing import environment

FOLLOWED = PIPELINE.format(file="in.ndjson --follow --on-idle hold", name="c")  # it lives until it is asked to end
STEPS = FOLLOWED.split(" | ")
INGESTS, WINDOWS, AGGREGATES, SINKS = range(4)
Processes = list[subprocess.Popen[bytes]]
Shell = Callable[..., Processes]


@pytest.fixture
def folder(folder: Path) -> Path:
    """The second half of its records comes later."""
    lines = (folder / "in.ndjson").read_text().splitlines(keepends=True)
    (folder / "in.ndjson").write_text("".join(lines[:3_000]))
    (folder / "more").write_text("".join(lines[3_000:]))
    return folder


@pytest.fixture
def shell(folder: Path) -> Iterator[Shell]:
    """Starts the line, or some steps of it, as a shell does; whatever still lives at the end is killed."""
    started: Processes = []

    def go(
        steps: Sequence[str] = STEPS, *, source: int = subprocess.DEVNULL, target: int = subprocess.DEVNULL, asleep: bool = False
    ) -> Processes:
        line: Processes = []
        for number, step in enumerate(steps):
            before = line[-1].stdout if line else source
            after = target if number == len(steps) - 1 else subprocess.PIPE
            line.append(_process(step, folder, before, after, asleep=asleep and not line))
            started.append(line[-1])
            if len(line) > 1:
                before.close()
        return line

    yield go
    for process in started:
        process.kill()
        process.wait()


def _process(step: str, folder: Path, source: Any, target: Any, *, asleep: bool) -> subprocess.Popen[bytes]:
    """`asleep`: it has stopped before its first instruction of ours."""
    script = f"{'kill -STOP $$; ' if asleep else ''}exec {sys.executable} -m clickpipe {step}"
    words = ["bash", "-c", script]
    with open(folder / "errors", "a") as told:
        process = subprocess.Popen(words, stdin=source, stdout=target, stderr=told, cwd=folder, env=environment(folder))
    if asleep:
        until(lambda: _is_stopped(process.pid), "it does not stop")
    return process


@pytest.mark.parametrize("step", some((INGESTS, SINKS, WINDOWS, AGGREGATES), 4))
def test_a_stopped_process_keeps_newer_runs_away(step: int, folder: Path, shell: Shell) -> None:
    """The others are killed, and the line is typed again: it says who still lives, and goes on when that one has woken up."""
    line = shell()
    until(lambda: epoch(folder) >= 2, errors(folder))
    _stop(line[step].pid)
    _kill(process for process in line if process is not line[step])
    before = epoch(folder)
    assert [process.wait(60) for process in shell()] == [75] * 4
    assert "c: an earlier run still lives" in errors(folder)
    assert f"process {line[step].pid}: " in errors(folder)
    assert "clickpipe " + STEPS[step].split()[0] in errors(folder).rsplit(f"process {line[step].pid}: ", 1)[1]
    assert epoch(folder) == before
    _append_the_rest(folder)  # a source that has nothing to write does not hear that its reader is gone
    line[step].send_signal(signal.SIGCONT)
    assert line[step].wait(60) in (0, 75)  # ingest's reader has left, which is no error
    _ends_well(shell(), folder)


ZOMBIES = [(step, when) for step in (WINDOWS, AGGREGATES, SINKS) for when in ("beside it", "after its end")]


@pytest.mark.parametrize(("step", "when"), some(ZOMBIES, 10))
def test_a_zombie_that_had_not_joined_has_no_effect(step: int, when: str, folder: Path, shell: Shell) -> None:
    """It sleeps with the begin of an old run's stream before it, and so does who waits behind it. A newer run goes ahead."""
    reader, writer = os.pipe()
    zombies = shell(STEPS[step:], source=reader, asleep=True)
    first = shell(STEPS[:step], target=writer)
    os.close(writer)
    until(lambda: _waiting_bytes(reader) > 4_000, errors(folder))  # barriers too
    _kill(first)
    os.close(reader)

    newer = shell()
    until(lambda: epoch(folder) >= 2, errors(folder))
    if when == "after its end":
        _ends_well(newer, folder)
    zombies[0].send_signal(signal.SIGCONT)
    assert [zombie.wait(60) for zombie in zombies] == [75] * len(zombies)
    assert "c: a newer run has begun (2, this is 1)" in errors(folder)
    if when == "beside it":
        _ends_well(newer, folder)
    assert rows(folder) == expected(folder)


def test_a_source_that_wakes_up_beside_a_newer_run_is_refused(folder: Path, shell: Shell) -> None:
    zombies = shell(asleep=True)
    newer = shell()
    until(lambda: epoch(folder) >= 2, errors(folder))
    zombies[INGESTS].send_signal(signal.SIGCONT)
    assert [zombie.wait(60) for zombie in zombies] == [75] * 4
    assert f"process {newer[INGESTS].pid}: " in errors(folder)
    _ends_well(newer, folder)


def test_a_source_that_wakes_up_after_the_end_adds_nothing(folder: Path, shell: Shell) -> None:
    zombies = shell(asleep=True)
    _ends_well(shell(), folder)
    zombies[INGESTS].send_signal(signal.SIGCONT)
    assert [zombie.wait(60) for zombie in zombies] == [0] * 4, errors(folder)
    assert "c had come to its end at checkpoint" in errors(folder)
    assert rows(folder) == expected(folder)


def test_a_stopped_supervisor_is_still_the_only_one(folder: Path, start: Start) -> None:
    """A second one is refused. What died meanwhile, the first one starts again when it wakes up."""
    first = start("run", "-c", FOLLOWED)
    until(lambda: epoch(folder) >= 2, errors(folder))
    _stop(first.pid)
    assert start("run", "-c", FOLLOWED).wait(60) == 75
    assert f"c: it has a supervisor already\n  process {first.pid}: " in errors(folder)
    os.kill(children_of(first.pid)[0], signal.SIGKILL)
    first.send_signal(signal.SIGCONT)
    _goes_on(first, folder)


@pytest.mark.parametrize("form", some([[], ["--no-fuse"]]))
def test_a_worker_killed_while_it_is_stopped(form: list[str], folder: Path, start: Start) -> None:
    supervisor = start("run", *form, "-c", FOLLOWED)
    until(lambda: epoch(folder) >= 2, errors(folder))
    worker = children_of(supervisor.pid)[-1]
    _stop(worker)
    os.kill(worker, signal.SIGKILL)
    _goes_on(supervisor, folder)


@pytest.mark.parametrize("victim", some([INGESTS, SINKS]))
def test_a_stopped_worker_does_not_hinder_a_restart(victim: int, folder: Path, start: Start) -> None:
    """A process beside it is killed. It hears of nothing, so the supervisor kills it too."""
    supervisor = start("run", "--no-fuse", "-c", FOLLOWED)
    until(lambda: epoch(folder) >= 2, errors(folder))
    processes = children_of(supervisor.pid)
    _stop(processes[AGGREGATES])
    os.kill(processes[victim], signal.SIGKILL)
    _goes_on(supervisor, folder)


def test_a_stopped_worker_dies_with_its_supervisor(folder: Path, start: Start) -> None:
    first = start("run", "-c", FOLLOWED)
    until(lambda: epoch(folder) >= 2, errors(folder))
    worker = children_of(first.pid)[0]
    _stop(worker)
    first.kill()
    until(lambda: not lives(worker), "it lives")
    _is_drained(start("run", "-c", FOLLOWED), folder)


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    until(lambda: _is_stopped(pid), "it does not stop")


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def _kill(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def _waiting_bytes(pipe: int) -> int:
    """What was written to it and not yet read."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def _reads_the_rest(folder: Path, last: subprocess.Popen[Any]) -> None:
    """Which only now comes, so that it is no earlier run that has read it."""
    _append_the_rest(folder)
    until(lambda: _records(folder) == 6_000 or last.poll() is not None, errors(folder))


def _append_the_rest(folder: Path) -> None:
    with open(folder / "in.ndjson", "a") as file:
        file.write((folder / "more").read_text())
    (folder / "more").write_text("")


def _records(folder: Path) -> int:
    """That the newest checkpoint holds."""
    newest = next(StateDirectory(str(folder / ".home" / "pipelines" / "c")).manifests(), None) if epoch(folder) else None
    return newest.accounts[0]["read"] if newest else 0


def _ends_well(line: Processes, folder: Path) -> None:
    _reads_the_rest(folder, line[-1])
    line[INGESTS].send_signal(signal.SIGUSR1)
    assert [process.wait(60) for process in line] == [0] * 4, errors(folder)
    assert rows(folder) == expected(folder)


def _goes_on(supervisor: subprocess.Popen[str], folder: Path) -> None:
    """What has died is started again, and comes to a good end."""
    until(lambda: "goes on from checkpoint" in errors(folder), "it does not restart")
    _is_drained(supervisor, folder)


def _is_drained(supervisor: subprocess.Popen[str], folder: Path) -> None:
    _reads_the_rest(folder, supervisor)
    supervisor.send_signal(signal.SIGUSR1)
    assert supervisor.wait(60) == 0, errors(folder)
    assert rows(folder) == expected(folder)
