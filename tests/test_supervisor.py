"""`clickpipe run` keeps pipelines running, and leaves no process behind, whoever is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clickpipe.testing import environment

PIPELINE = (
    "ingest {file} --time ts --name {name} --checkpoint 1ms --batch-bytes 2KiB | window tumble 5s"
    " | aggregate --by page n='count(*)' | sink {name}.ndjson"
)
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [json.dumps({"ts": 1_767_225_600_000 + n * 20, "page": f"/p/{n % 7}"}) for n in range(6_000)]
    (tmp_path / "in.ndjson").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `clickpipe …` in the folder; whatever still lives at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def go(*words: str, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "clickpipe", *words]
        with open(folder / "errors", "a") as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=errors, text=True, cwd=folder, env=environment(folder, **more)
            )
        started.append(process)
        return process

    yield go
    for process in started:
        process.kill()
        process.wait()


def _until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _epoch(folder: Path, name: str = "c") -> int:
    epochs = folder / ".home" / "pipelines" / name / "epochs"
    return max((int(path.parent.name) for path in epochs.glob("*/MANIFEST.json") if path.parent.name.isdigit()), default=0)


def _has_ended_before(process: subprocess.Popen[str], epoch: int, folder: Path) -> bool:
    """Waits for a checkpoint, or the end."""
    _until(lambda: _epoch(folder) >= epoch or process.poll() is not None, "no checkpoint comes")
    return process.poll() is not None


def _expected(folder: Path) -> list[str]:
    line = "ingest in.ndjson --time ts --name plain | window tumble 5s | aggregate --by page n='count(*)' | sink plain.ndjson"
    subprocess.run([sys.executable, "-m", "clickpipe", "run", "-q", "-c", line], cwd=folder, env=environment(folder), check=True)
    return sorted((folder / "plain.ndjson").read_text().splitlines())


def _rows(folder: Path, name: str = "c") -> list[str]:
    return sorted((folder / f"{name}.ndjson").read_text().splitlines())


def _errors(folder: Path) -> str:
    return (folder / "errors").read_text()


@pytest.mark.parametrize("more", [[], ["--no-fuse"]])
def test_what_is_killed_is_started_again(more: list[str], folder: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("run", *more, "-c", PIPELINE.format(file="in.ndjson", name="c"))
    for number in range(3):
        if not _has_ended_before(process, _epoch(folder) + 3, folder) and (children := _children(process.pid)):
            os.kill(children[number % len(children)], signal.SIGKILL)
    assert process.wait(60) == 0, _errors(folder)
    assert "goes on from checkpoint" in _errors(folder)
    assert _rows(folder) == _expected(folder)


def test_the_supervisor_loads_no_polars(folder: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("run", "-c", PIPELINE.format(file="in.ndjson", name="c"))
    _until(lambda: _epoch(folder) or process.poll() is not None, "no checkpoint")
    assert "polars" not in Path(f"/proc/{process.pid}/maps").read_text()
    assert process.wait(60) == 0, _errors(folder)


@pytest.mark.parametrize("form", [[], ["--no-fuse"]])
def test_nobody_outlives_the_supervisor(form: list[str], folder: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    """Killed alone, then killed with all the others, then twice while it recovers."""
    words = ["run", *form, "-c", PIPELINE.format(file="in.ndjson", name="c")]
    for kill_all in (False, True, False, False):
        process = start(*words)
        if _has_ended_before(process, _epoch(folder) + 1, folder):
            break
        children = _children(process.pid)
        process.kill()
        for child in children if kill_all else []:
            os.kill(child, signal.SIGKILL)
        process.wait()
        _until(lambda children=children: not any(_lives(child) for child in children), f"{children} live")
    assert start(*words).wait(60) == 0, _errors(folder)
    assert _rows(folder) == _expected(folder)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_several_recipes_at_once(folder: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    """One is killed, one fails for good; the others are not disturbed, and the exit code says what happened."""
    for name in ("one", "two"):
        text = PIPELINE.format(file="in.ndjson", name=name).replace("'", '"')
        (folder / f"{name}.toml").write_text(f"pipeline = '''\n{text}\n'''\n")
    (folder / "bad.ndjson").write_text('{"ts":1}\noops\n')
    (folder / "bad.toml").write_text('pipeline = "ingest bad.ndjson --checkpoint 1ms --max-errors 0 | sink bad.out"\n')
    process = start("run", "one.toml", "two.toml", "bad.toml")
    _until(lambda: _epoch(folder, "one") and _epoch(folder, "two"), _errors(folder))
    children = _children(process.pid)
    if children:
        os.kill(children[0], signal.SIGKILL)
    assert process.wait(60) == 65, _errors(folder)
    assert _rows(folder, "one") == _rows(folder, "two") == _expected(folder)
    assert "bad: not started again: its data" in _errors(folder)


def test_a_second_supervisor_is_refused(folder: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    os.mkfifo(folder / "pipe")
    line = "ingest pipe --name c --columns a:int --checkpoint 1s | sink out.ndjson"
    first = start("run", "-c", line)
    _until(lambda: (folder / ".home/pipelines/c/supervisor.json").exists(), "it does not start")
    assert start("run", "-c", line).wait(60) == 75
    assert re.search(rf"c: it has a supervisor already\n  process {first.pid}: ", _errors(folder))


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


def test_a_pipeline_without_checkpoints_is_not_started_again(folder: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    (folder / "bad.ndjson").write_text("oops\n")
    assert start("run", "--no-fuse", "-c", "ingest bad.ndjson --max-errors 0 | sink out.ndjson").wait(60) == 65
    assert "goes on" not in _errors(folder)


def test_status_says_what_runs(folder: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    os.mkfifo(folder / "pipe")
    line = "ingest pipe --name c --columns a:int --checkpoint 1s | sink out.ndjson"
    process = start("run", "-c", line)
    _until(lambda: _status(folder).get("processes"), _errors(folder))
    told = _status(folder)
    assert (told["state"], told["supervisor"], told["run"], told["checkpoint"]) == ("running", process.pid, 1, None)
    assert told["processes"] == _children(process.pid)
    process.kill()
    _until(lambda: not _status(folder)["processes"], "it lives")
    assert _status(folder)["state"] == "stopped"


def _status(folder: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "clickpipe", "status", "--json"]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=True)
    told: dict[str, object] = json.loads(done.stdout or "{}")
    return told
