"""Every system call that writes state fails, one after the other; the same line again gives what an undisturbed run gives.

A full disk is waited for. Any other failure ends the run with a message, and nothing is believed that was not synced.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import polars as pl
import pytest
from examples import every, some

from clickpipe.store.logs import Log
from clickpipe.testing import environment, run_steps

CALLS = ("open", "write", "fsync", "close", "replace", "mkdir", "ftruncate")
PATIENT = ("open", "write", "mkdir")  # a full disk is waited for in these
TEXT = (
    "ingest in.ndjson --time ts --max-out-of-orderness 2s --batch-bytes 8KiB --name c --checkpoint 1ms | window tumble 5s"
    " | aggregate --by page n='count(*)' | {sink}"
)
SINKS = {"file": "sink out.ndjson", "view": "sink view:pages", "archive": "sink archive:pages", "log": "sink log:pages"}
STEPS = 4


def _prepared(directory: Path) -> Path:
    """Some late records, some bad ones, and four checkpoints."""
    directory.mkdir(parents=True, exist_ok=True)
    chance = random.Random(7)
    lines = []
    for number in range(300):
        ts = 1_767_225_600_000 + number * 100 - chance.randrange(3_000) - (20_000 if number % 60 == 50 else 0)
        lines.append(json.dumps({"ts": ts, "page": f"/p/{chance.randrange(3)}", "id": number}))
        if number % 100 == 50:
            lines.append("not JSON")
    (directory / "in.ndjson").write_text("\n".join(lines) + "\n")
    return directory


def _run(directory: Path, sink: str, fail: str = "", *, fused: bool = True, step: int = 0) -> list[int]:
    """`step`: the process in which a call fails."""
    text = TEXT.format(sink=SINKS[sink])
    steps = [["run", "-q", "--restart", "no", "-c", text]] if fused else [shlex.split(words) for words in text.split(" | ")]
    return run_steps(steps, directory, fail={step: fail} if fail else None)


def _said(directory: Path) -> str:
    return (directory / ".stderr").read_text()


def _results(directory: Path, sink: str) -> dict[str, list[str]]:
    state = directory / ".home" / "pipelines" / "c"
    found = {name: (state / f"{name}.ndjson").read_text() for name in ("late", "dead")}
    read = {"file": _file, "view": _view, "archive": _archive, "log": _log}
    found["out"] = read[sink](directory)
    return {name: sorted(re.sub(r'"_?time":\d+', "", text).splitlines()) for name, text in found.items()}


def _file(directory: Path) -> str:
    return (directory / "out.ndjson").read_text()


def _log(directory: Path) -> str:
    with mock.patch.dict(os.environ, CLICKPIPE_HOME=str(directory / ".home")):
        return "".join(text.decode() for _, text in Log("pages").batches(0))


def _archive(directory: Path) -> str:
    files = directory / ".home" / "archives" / "pages" / "**/*.parquet"
    return "\n".join(map(str, pl.read_parquet(files, hive_partitioning=False).rows()))


def _view(directory: Path) -> str:
    connection = sqlite3.connect(directory / ".home" / "views" / "pages.sqlite")
    rows = connection.execute("SELECT * FROM pages").fetchall()
    connection.close()
    return "\n".join(map(str, rows))


Results = dict[str, list[str]]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """What undisturbed runs give, by sink."""
    found = {}
    for sink in SINKS:
        directory = _prepared(tmp_path_factory.mktemp(sink))
        assert _run(directory, sink) == [0], _said(directory)
        found[sink] = _results(directory, sink)
        assert all(found[sink].values())
    return found


def _ends_well(directory: Path, codes: list[int], context: str) -> None:
    """With an exit code and words that mean it."""
    said = _said(directory)
    assert set(codes) <= {0, 74, 75}, f"{context}: {codes}\n{said}"
    assert "Traceback" not in said, context
    assert "a fault of clickpipe" not in said, f"{context}\n{said}"


def _recovers(directory: Path, sink: str, fail: str, expected: dict[str, Results], *, fused: bool = True, step: int = 0) -> bool:
    """Fail, run the same line again, compare. Whether the call came at all."""
    _prepared(directory)
    context = f"{fail} in step {step} with {sink}"
    codes = _run(directory, sink, fail, fused=fused, step=step)
    _ends_well(directory, codes, context)
    call, _, code = fail.split(":")
    struck = "fault: " in _said(directory)
    if not struck or (code == "ENOSPC" and call in PATIENT):
        assert not any(codes), f"{context}\n{_said(directory)}"
    elif code != "ENOSPC":
        assert any(codes), f"{context} went unheard\n{_said(directory)}"
    if any(codes):
        assert not any(_run(directory, sink, fused=fused)), f"{context}\n{_said(directory)}"
    assert _results(directory, sink) == expected[sink], context
    return struck


@pytest.mark.parametrize(
    ("call", "code"),
    some([*((call, "EIO") for call in CALLS), *((call, "ENOSPC") for call in (*PATIENT, "fsync")), ("open", "EMFILE")]),
)
def test_each_call_fails_once(call: str, code: str, tmp_path: Path, expected: dict[str, Results]) -> None:
    """The first, the second … until there are no more. After a failed fsync what was written is lost."""
    number = 1
    while _recovers(tmp_path / str(number), "file", f"{call}:{number}:{code}", expected):
        number += every(3)
    assert number > 2, f"{call} was called {number - 1} times"


@pytest.mark.parametrize("sink", some(["archive", "view", "log"]))
@pytest.mark.parametrize("call", some(["write", "fsync", "replace"]))
def test_each_call_of_a_run_into_a_store_fails_once(call: str, sink: str, tmp_path: Path, expected: dict[str, Results]) -> None:
    number = 1
    while _recovers(tmp_path / str(number), sink, f"{call}:{number}:EIO", expected):
        number += every(3)
    assert number > 2


@pytest.mark.parametrize("call", some(CALLS))
def test_calls_fail_for_good(call: str, tmp_path: Path, expected: dict[str, Results]) -> None:
    number = 1
    while _recovers(tmp_path / str(number), "file", f"{call}:{number}+:EIO", expected):
        number += every(4)


FAILURES = ("write:1:EIO", "write:2:EIO", "open:2-5:ENOSPC", "fsync:3:EIO", "replace:2:EIO", "close:2+:EIO")


@pytest.mark.parametrize(("fail", "step"), some(((fail, step) for fail in FAILURES for step in range(STEPS)), 6))
def test_calls_of_one_process_fail(fail: str, step: int, tmp_path: Path, expected: dict[str, Results]) -> None:
    """In a shell pipeline: the others end too, and none of them before its time."""
    _recovers(tmp_path, "file", fail, expected, fused=False, step=step)


@pytest.mark.parametrize("step", range(STEPS))
def test_a_disk_that_is_full_for_a_while(step: int, tmp_path: Path, expected: dict[str, Results]) -> None:
    """It is said once what waits, and once that it goes on; nobody loses patience."""
    if _recovers(tmp_path, "file", "write:2-8:ENOSPC", expected, fused=False, step=step):
        assert len(re.findall("waits for space on .*: No space left on device", _said(tmp_path))) == 1, _said(tmp_path)
        assert len(re.findall("there is space on .* again: .* goes on", _said(tmp_path))) == 1, _said(tmp_path)


def _waiting(directory: Path, line: str, fail: str) -> subprocess.Popen[bytes]:
    """A process that waits for space, and will do so for good."""
    words = [sys.executable, "-m", "clickpipe", *shlex.split(line)]
    with open(directory / ".stderr", "wb") as stderr:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=stderr, cwd=directory, env=environment(directory, CLICKPIPE_FAIL=fail)
        )
    deadline = time.monotonic() + 60
    while "waits for space" not in _said(directory):
        assert time.monotonic() < deadline, _said(directory)
        assert process.poll() is None, _said(directory)
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [1, 3, 6])
def test_who_waits_for_space_can_be_stopped(number: int, tmp_path: Path, expected: dict[str, Results]) -> None:
    directory = _prepared(tmp_path)
    process = _waiting(directory, f'run -q --restart no -c "{TEXT.format(sink=SINKS["file"])}"', f"write:{number}+:ENOSPC")
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert process.stdout is not None
    process.stdout.close()
    assert _run(directory, "file") == [0], _said(directory)
    assert _results(directory, "file") == expected["file"]


@pytest.mark.parametrize("number", [1, 2])
def test_nobody_waits_for_space_without_a_reader(number: int, tmp_path: Path) -> None:
    """As `| head` does: the process ends, and says nothing of it."""
    directory = _prepared(tmp_path)
    process = _waiting(directory, TEXT.split(" | ")[0], f"write:{number}+:ENOSPC")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(30) == 0, _said(directory)
