"""`clickpipe run` keeps pipelines running, and leaves no process behind, whoever is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from examples import some
from running import PIPELINE, Start, children_of, epoch, errors, expected, has_ended_before, lives, rows, status, until

from clickpipe.engine.group import Group, verdict
from clickpipe.testing import environment

# Deaths cost nothing here: a supervisor with short delays, over commands of its own.
QUICK = """
import os, sys
from clickpipe.engine.restart import Policy
from clickpipe.engine.supervisor import Pipeline, Supervisor
def fds(): return len(os.listdir("/proc/self/fd"))
pipelines = [Pipeline("c", {commands}, {state!r})]
before = fds()
code = Supervisor(pipelines, os.environ, print, Policy(first=0.001, most=0.002, tries={tries})).run()
try:
    os.waitpid(-1, os.WNOHANG)
    print("a child is left")
except ChildProcessError:
    pass
print("code", code, "descriptors", fds() - before)
"""


@pytest.mark.parametrize("more", [[], ["--no-fuse"]])
def test_what_is_killed_is_started_again(more: list[str], folder: Path, start: Start) -> None:
    process = start("run", *more, "-c", PIPELINE.format(file="in.ndjson", name="c"))
    for number in range(3):
        if not has_ended_before(process, epoch(folder) + 3, folder) and (children := children_of(process.pid)):
            os.kill(children[number % len(children)], signal.SIGKILL)
    assert process.wait(60) == 0, errors(folder)
    assert "goes on from checkpoint" in errors(folder)
    assert rows(folder) == expected(folder)


def test_the_supervisor_loads_no_polars(folder: Path, start: Start) -> None:
    process = start("run", "-c", PIPELINE.format(file="in.ndjson", name="c"))
    until(lambda: epoch(folder) or process.poll() is not None, "no checkpoint")
    assert "polars" not in Path(f"/proc/{process.pid}/maps").read_text()
    assert process.wait(60) == 0, errors(folder)


@pytest.mark.parametrize("form", some([[], ["--no-fuse"]]))
def test_nobody_outlives_the_supervisor(form: list[str], folder: Path, start: Start) -> None:
    """Killed alone, then killed with all the others, then twice while it recovers."""
    words = ["run", *form, "-c", PIPELINE.format(file="in.ndjson", name="c")]
    for kill_all in (False, True, False, False):
        process = start(*words)
        if has_ended_before(process, epoch(folder) + 1, folder):
            break
        children = children_of(process.pid)
        process.kill()
        for child in children if kill_all else []:
            os.kill(child, signal.SIGKILL)
        process.wait()
        until(lambda children=children: not any(lives(child) for child in children), f"{children} live")
    assert start(*words).wait(60) == 0, errors(folder)
    assert rows(folder) == expected(folder)


def test_several_recipes_at_once(folder: Path, start: Start) -> None:
    """One is killed, one fails for good; the others are not disturbed, and the exit code says what happened."""
    for name in ("one", "two"):
        text = PIPELINE.format(file="in.ndjson", name=name).replace("'", '"')
        (folder / f"{name}.toml").write_text(f"pipeline = '''\n{text}\n'''\n")
    (folder / "bad.ndjson").write_text('{"ts":1}\noops\n')
    (folder / "bad.toml").write_text('pipeline = "ingest bad.ndjson --checkpoint 1ms --max-errors 0 | sink bad.out"\n')
    process = start("run", "one.toml", "two.toml", "bad.toml")
    until(lambda: epoch(folder, "one") and epoch(folder, "two"), errors(folder))
    children = children_of(process.pid)
    if children:
        os.kill(children[0], signal.SIGKILL)
    assert process.wait(60) == 65, errors(folder)
    assert rows(folder, "one") == rows(folder, "two") == expected(folder)
    assert "bad: not started again: its data" in errors(folder)


def test_a_second_supervisor_is_refused(folder: Path, start: Start) -> None:
    os.mkfifo(folder / "pipe")
    line = "ingest pipe --name c --columns a:int --checkpoint 1s | sink out.ndjson"
    first = start("run", "-c", line)
    until(lambda: (folder / ".home/pipelines/c/supervisor.json").exists(), "it does not start")
    assert start("run", "-c", line).wait(60) == 75
    assert re.search(rf"c: it has a supervisor already\n  process {first.pid}: ", errors(folder))


def test_no_progress_is_an_end(folder: Path) -> None:
    """A pipeline that always dies at the same place is given up."""
    commands = [
        [sys.executable, "-m", "clickpipe", *words.split()] for words in ("ingest in.ndjson --name c --checkpoint 1s", "sink x")
    ]
    done = _quick(folder, commands, tries=3, CLICKPIPE_KILL_POINT="after-begin")
    assert "code 1 descriptors 0" in done, done
    assert done.count("goes on from checkpoint 0 in") == 3
    assert "3 restarts from checkpoint 0 have brought no new one" in done
    assert "clickpipe checkpoint show c" in done


def test_two_hundred_deaths_leave_nothing_behind(folder: Path) -> None:
    commands = [["bash", "-c", "exec cat"], ["bash", "-c", "kill -9 $$"]]
    done = _quick(folder, commands, tries=200)
    assert done.count("killed by SIGKILL") == 200
    assert "code 1 descriptors 0" in done, done[-300:]
    assert "a child is left" not in done


def _quick(folder: Path, commands: list[list[str]], tries: int, **more: str) -> str:
    state = str(folder / ".home" / "pipelines" / "c")
    script = QUICK.format(commands=commands, state=state, tries=tries)
    with open(folder / "words", "w+") as words:  # no pipe: a process that is left behind would keep it open
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=folder,
            env=environment(folder, **more),
            stdout=words,
            stderr=words,
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=300,
        )
        words.seek(0)
        return words.read()


def test_a_pipeline_without_checkpoints_is_not_started_again(folder: Path, start: Start) -> None:
    (folder / "bad.ndjson").write_text("oops\n")
    assert start("run", "--no-fuse", "-c", "ingest bad.ndjson --max-errors 0 | sink out.ndjson").wait(60) == 65
    assert "goes on" not in errors(folder)


def test_status_says_what_runs(folder: Path, start: Start) -> None:
    os.mkfifo(folder / "pipe")
    line = "ingest pipe --name c --columns a:int --checkpoint 1s | sink out.ndjson"
    process = start("run", "-c", line)
    until(lambda: status(folder).get("processes"), errors(folder))
    told = status(folder)
    assert (told["state"], told["supervisor"], told["run"], told["checkpoint"]) == ("running", process.pid, 1, None)
    assert told["processes"] == children_of(process.pid)
    process.kill()
    until(lambda: not status(folder)["processes"], "it lives")
    assert status(folder)["state"] == "stopped"


@pytest.mark.parametrize("form", [[], ["--no-fuse"]], ids=["fused", "no-fuse"])
def test_a_reader_that_leaves_is_no_death(form: list[str], tmp_path: Path) -> None:
    """As in any pipe that ends in head. The input is longer than what pipes and queues hold."""
    record = '{"page":"' + "p" * 1_000 + '"}\n'
    (tmp_path / "in.ndjson").write_text(record * 20_000)
    words = " ".join(["clickpipe", "run", *form, "-c", "'ingest in.ndjson --name c --checkpoint 10ms | sink -'"])
    done = subprocess.run(
        ["bash", "-c", f"{words} | head -1; echo ${{PIPESTATUS[@]}}"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == f"{record}0 0\n"
    assert done.stderr == ""


def test_what_begins_anew_does_so_once(folder: Path, start: Start) -> None:
    """--reset is for the first life, not for those after a death."""
    line = PIPELINE.format(file="in.ndjson", name="c").replace("--checkpoint", "--reset --checkpoint")
    process = start("run", "-c", line)
    if not has_ended_before(process, 4, folder):
        os.kill(children_of(process.pid)[0], signal.SIGKILL)
    assert process.wait(60) == 0, errors(folder)
    assert not list((folder / ".home/pipelines/c").glob("epochs.before*"))
    assert not list(folder.glob("c.ndjson.parts.before*"))
    assert rows(folder) == expected(folder)


def test_who_was_killed_is_not_to_blame() -> None:
    """One fails and says why; that the others had to be killed says nothing."""
    group = Group([["sleep", "600"], ["bash", "-c", "exit 78"]], dict(os.environ))
    until(lambda: group.codes()[1] is not None, "it lives")
    group.kill()
    assert verdict([code for code in group.codes() if code is not None]) == 78


def test_a_failure_in_the_background_is_heard_of_while_nothing_comes(folder: Path, start: Start) -> None:
    """Of a followed file that is silent."""
    line = PIPELINE.format(file="in.ndjson --follow --on-idle hold", name="c")
    process = start("run", "--restart", "no", "-c", line, CLICKPIPE_FAIL="fsync:30+:EIO")
    assert process.wait(60) == 74, errors(folder)
    assert "Input/output error" in errors(folder)
