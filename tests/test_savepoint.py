"""Savepoints: kept by nobody but the user, and a way back for state and results together."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import PIPELINE, Start, epoch, errors, until

from clickpipe.testing import environment

LINE = (
    "ingest in.ndjson --time ts --name c --checkpoint 1ms --batch-bytes 2KiB | sink all.out --pass"
    " | window tumble 5s | aggregate --by page n='count(*)' | sink view:rows"
)


def _ask(folder: Path, *words: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "clickpipe", *words]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def _stopped(folder: Path, start: Start, line: str, least: int) -> None:
    """Run it for some checkpoints, then stop it."""
    reached = epoch(folder)
    process = start("run", "--restart", "no", "-c", line)
    until(lambda: epoch(folder) >= reached + least, errors(folder))
    process.terminate()
    assert process.wait(60) == 0, errors(folder)


def _late(folder: Path) -> list[str]:
    path = folder / ".home/pipelines/c/late.ndjson"
    return sorted(path.read_text().splitlines()) if path.exists() else []


def _view(folder: Path) -> list[str]:
    rows = [json.loads(line) for line in _ask(folder, "view", "show", "rows").splitlines()]
    return sorted(json.dumps({key: value for key, value in row.items() if key != "_rev"}) for row in rows)


def _results(folder: Path) -> tuple[list[str], list[str], list[str]]:
    return sorted((folder / "all.out").read_text().splitlines()), _view(folder), _late(folder)


@pytest.fixture
def disordered(folder: Path) -> Path:
    """Some records come too late."""
    lines = (folder / "in.ndjson").read_text().splitlines()
    for at in range(500, 6_000, 500):
        lines[at] = lines[at - 499]
    (folder / "in.ndjson").write_text("\n".join(lines) + "\n")
    return folder


def test_a_pipeline_goes_back_with_its_results(disordered: Path, start: Start) -> None:
    """Twice to the same savepoint; then it ends as if it had never been away."""
    folder = disordered
    assert start("run", "-q", "--restart", "no", "-c", LINE).wait(60) == 0, errors(folder)
    expected = _results(folder)
    assert expected[2]
    shutil.rmtree(folder / ".home")
    (folder / "all.out").unlink()

    _stopped(folder, start, LINE, 3)
    assert "is kept as here" in _ask(folder, "savepoint", "create", "c", "here")
    kept = epoch(folder)
    for _ in range(2):
        _stopped(folder, start, LINE, 3)
        assert epoch(folder) > kept
        said = _ask(folder, "savepoint", "restore", "c", "here")
        assert "c: the next run goes on from savepoint here" in said
        assert "view rows keeps the rows that it has until they are given again" in said
        assert epoch(folder) == kept
    assert start("run", "-q", "--restart", "no", "-c", LINE).wait(60) == 0, errors(folder)
    assert _results(folder) == expected
    assert f"c  here  checkpoint {kept}  run 1" in _ask(folder, "savepoint", "ls", "c")
    assert "was put together when the input ended" in _ask(folder, "savepoint", "restore", "c", "here", code=78)


def test_a_savepoint_of_a_running_pipeline(folder: Path, start: Start) -> None:
    """Created while checkpoints come and go; restored only when nobody runs it."""
    os.mkfifo(folder / "pipe")
    line = "ingest pipe --name c --columns a:int --checkpoint 1ms --max-latency 1ms --batch-bytes 8 | sink out.ndjson"
    process = start("run", "-c", line)
    with open(folder / "pipe", "wb", buffering=0) as pipe:
        pipe.write(b'{"a":1}\n' * 100)
        until(lambda: epoch(folder), errors(folder))
        assert "is kept as s" in _ask(folder, "savepoint", "create", "c", "s")
        assert "an earlier run still lives" in _ask(folder, "savepoint", "restore", "c", "s", code=75)
    assert process.wait(60) == 0, errors(folder)


def test_mistakes_are_told(folder: Path, start: Start) -> None:
    _stopped(folder, start, PIPELINE.format(file="in.ndjson", name="c"), 2)
    _ask(folder, "savepoint", "create", "c", "here")
    assert "savepoint create needs a pipeline" in _ask(folder, "savepoint", "create", code=2)
    assert 'no pipeline "d" has saved a checkpoint' in _ask(folder, "savepoint", "create", "d", code=2)
    assert "a savepoint cannot be called" in _ask(folder, "savepoint", "create", "c", "../x", code=2)
    assert 'there is a savepoint "here" already' in _ask(folder, "savepoint", "create", "c", "here", code=2)
    assert "there are: here" in _ask(folder, "savepoint", "restore", "c", code=2)
    assert 'did you mean "here"?' in _ask(folder, "savepoint", "restore", "c", "heer", code=2)


def test_a_damaged_savepoint_is_not_restored(folder: Path, start: Start) -> None:
    """And what the pipeline has is left as it is."""
    _stopped(folder, start, PIPELINE.format(file="in.ndjson", name="c"), 3)
    _ask(folder, "savepoint", "create", "c", "here")
    kept = folder / ".home/pipelines/c/savepoints/here/epochs"
    state = next(kept.glob("*/*.state"))
    state.write_bytes(state.read_bytes()[:-1])
    reached = epoch(folder)
    assert "is damaged" in _ask(folder, "savepoint", "restore", "c", "here", code=78)
    assert epoch(folder) == reached


def test_a_restore_that_was_cut_short_is_done_again(disordered: Path, start: Start) -> None:
    """No run begins in between, and the late records of after the savepoint are not there twice."""
    folder = disordered
    assert start("run", "-q", "--restart", "no", "-c", LINE).wait(60) == 0, errors(folder)
    expected = _results(folder)
    shutil.rmtree(folder / ".home")
    (folder / "all.out").unlink()

    _stopped(folder, start, LINE, 1)
    _ask(folder, "savepoint", "create", "c", "here")
    _stopped(folder, start, LINE, 6)
    done = _die_in_restore(folder)
    assert done == -9
    assert start("run", "-q", "--restart", "no", "-c", LINE).wait(60) == 78
    assert "going back to savepoint here was cut short" in errors(folder)
    assert "the next run goes on" in _ask(folder, "savepoint", "restore", "c", "here")
    assert start("run", "-q", "--restart", "no", "-c", LINE).wait(60) == 0, errors(folder)
    assert _results(folder) == expected


def _die_in_restore(folder: Path) -> int:
    """Between the state and the side files."""
    words = [sys.executable, "-m", "clickpipe", "savepoint", "restore", "c", "here"]
    more = environment(folder, CLICKPIPE_KILL_POINT="after-manifest")
    return subprocess.run(words, cwd=folder, env=more, capture_output=True, check=False).returncode
