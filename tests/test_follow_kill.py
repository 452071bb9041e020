"""Files that grow, read by processes that are killed: the results are those of a run without faults."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from growing import append, rotate
from running import children_of

from clickpipe.testing import environment


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Process:
    """A pipeline that follows, with its results so far."""

    def __init__(self, text: str, form: Sequence[str] = ("--restart", "no")) -> None:
        self._text, self._form, self._process = text, form, None
        self.start()

    def start(self) -> None:
        words = [sys.executable, "-m", "clickpipe", "run", *self._form, "-c", self._text]
        with open("stderr", "ab") as errors:
            self._process = subprocess.Popen(words, stderr=errors, env=environment(Path.cwd()))

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        assert self._process.wait() == -signal.SIGKILL, Path("stderr").read_text()

    def kill_a_child(self, number: int) -> None:
        """Of a supervisor; none if it waits for a restart."""
        assert self._process is not None
        if children := children_of(self._process.pid):
            os.kill(children[number % len(children)], signal.SIGKILL)

    def drain(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)
        assert self._process.wait(60) == 0, Path("stderr").read_text()

    def results(self) -> list[int]:
        parts = sorted(Path("out.ndjson.parts").glob("*.ndjson"))
        return [json.loads(line)["n"] for part in parts for line in part.read_text().splitlines()]

    def wait_for(self, number: int) -> None:
        deadline = time.monotonic() + 60
        while number not in self.results():
            assert self._process is not None
            assert self._process.poll() is None, Path("stderr").read_text()
            assert time.monotonic() < deadline, Path("stderr").read_text()
            time.sleep(0.05)


PIPELINE = "ingest app.log 'web-*.txt' --follow --format ndjson --columns n:int --checkpoint 50ms --name f | sink out.ndjson"


def test_kill_9_and_everything_happens_meanwhile() -> None:
    """Growth, a partial line, rotation, copying and truncation, a new file: each line is in the results once."""
    append("app.log", 1, 2)
    process = Process(PIPELINE)
    process.wait_for(2)
    append("app.log", 3, rest='{"n"')  # growth: perhaps read and not committed
    process.kill()
    append("app.log", rest=": 4}\n")
    process.start()
    process.wait_for(4)
    process.kill()
    append("app.log", 5)
    rotate("app.log")
    append("app.log", 6)
    process.start()
    process.wait_for(6)
    append("app.log", 7)
    process.wait_for(7)
    process.kill()
    append("app.log", 8)
    shutil.copy("app.log", "app.log.0")
    os.truncate("app.log", 0)
    append("app.log", 9)
    append("web-1.txt", 10)
    process.start()
    process.wait_for(9)
    process.wait_for(10)
    append("web-1.txt", 11)
    process.kill()
    process.start()
    process.wait_for(11)
    process.kill()
    assert sorted(process.results()) == [*range(1, 12)]
    words = [sys.executable, "-m", "clickpipe", "checkpoint", "show", "f"]
    shown = subprocess.run(words, env=environment(Path.cwd()), capture_output=True, text=True, check=False)
    assert re.search(r"web-1.txt read to byte 20 of inode \d+\n", shown.stdout), shown.stdout + shown.stderr
    assert Path("stderr").read_text().count("was truncated") == 1


def test_a_shell_pipeline_that_is_killed_goes_on() -> None:
    append("app.log", 1)
    first, second = PIPELINE.split(" | ")
    line = f"{sys.executable} -m clickpipe {first} | {sys.executable} -m clickpipe {second}"
    for number in (1, 2, 3):
        running = subprocess.Popen(["bash", "-c", line], env=environment(Path.cwd()), start_new_session=True)
        deadline = time.monotonic() + 60
        while f'{{"n": {number}}}' not in "".join(path.read_text() for path in Path.cwd().glob("out.ndjson.parts/*.ndjson")):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        append("app.log", number + 1)
    lines = "".join(path.read_text() for path in sorted(Path.cwd().glob("out.ndjson.parts/*.ndjson"))).splitlines()
    assert lines == [f'{{"n": {number}}}' for number in (1, 2, 3)]


@pytest.mark.parametrize("form", [[], ["--no-fuse"]], ids=["fused", "no-fuse"])
def test_killed_under_the_supervisor_while_files_grow_and_are_rotated(form: list[str]) -> None:
    """The supervisor starts it again each time, and the writer waits for nobody."""
    append("app.log", 0)
    process = Process(PIPELINE, form)
    process.wait_for(0)
    for number in range(1, 301):
        append("app.log", number)
        time.sleep(0.005)
        if number % 60 == 20:
            process.kill_a_child(number // 60)
        if number % 60 == 30:
            rotate("app.log")
    process.wait_for(300)
    process.drain()
    assert sorted(json.loads(line)["n"] for line in Path("out.ndjson").read_text().splitlines()) == [*range(301)]
    assert "goes on from checkpoint" in Path("stderr").read_text()


def test_what_is_gone_stops_the_run_with_78() -> None:
    append("app.log", 1)
    process = Process(PIPELINE)
    process.wait_for(1)
    process.kill()
    Path("app.log").write_text("")  # a new file, and the old one packed
    os.rename("app.log", "app.new")
    append("other", 1)
    os.rename("other", "app.log")
    os.remove("app.new")
    words = [sys.executable, "-m", "clickpipe", "run", "--restart", "no", "-c", PIPELINE]
    done = subprocess.run(words, env=environment(Path.cwd()), capture_output=True, text=True, check=False)
    assert done.returncode == 78, done.stderr
    assert "app.log: the file that was being read is not beside it any more; 9 bytes of it had been read" in done.stderr


@pytest.mark.parametrize("is_there", [False, True])
def test_explain_does_not_wait(is_there: bool) -> None:
    if is_there:
        append("app.log", 1)
    words = [sys.executable, "-m", "clickpipe", "explain", "-c", "ingest app.log --follow --format ndjson | filter 'n > 0'"]
    done = subprocess.run(words, env=environment(Path.cwd()), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert ("\n│  columns    n int\n" in done.stdout) is is_there
    assert ("\n│  columns    known when the stream comes\n" in done.stdout) is not is_there
    assert "\n│  guarantee  whole or not there: files are followed" in done.stdout
