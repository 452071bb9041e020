"""Pipelines whose steps hold records or remember keys, killed and run again, give what an undisturbed run gives."""

from __future__ import annotations

import json
import random
import re
import shlex
import signal
from pathlib import Path

import pytest
from examples import some

from clickpipe.testing import run_steps

INGEST = "ingest in.ndjson --time ts --max-out-of-orderness 2s --batch-bytes 2KiB --name c --columns ts:int,id:str,u:str,x:int"
STEPS = ["dedup --by id --within 10s", "sessionize --by u --gap 2s --max-duration 7s", "filter 'x >= 0'"]
SORTED = ["dedup --by id,u --within 3s", "sort", "select --add 'x + 1 AS y'"]
SINK = "sink out.ndjson"


POINTS = ("after-manifest:3", "before-manifest:6", "after-snapshot:9")
PROCESSES = (("after-snapshot:5", 1), ("after-snapshot:7", 2), ("after-manifest:4", 4))


@pytest.mark.parametrize(("steps", "point"), some((steps, point) for point in POINTS for steps in (STEPS, SORTED)))
def test_a_fused_run_that_is_killed_twice(steps: list[str], point: str, tmp_path: Path) -> None:
    """Records in order, late ones, dead letters and accounts."""
    expected = _undisturbed([_fused([INGEST, *steps, SINK])], tmp_path / "undisturbed")
    folder = _prepared(tmp_path / "killed")
    words = [_fused([f"{INGEST} --checkpoint 1ms", *steps, SINK])]
    for _ in range(2):
        assert run_steps(words, folder, kill={0: point}) == [-signal.SIGKILL], _errors(folder)
    assert run_steps(words, folder) == [0], _errors(folder)
    assert _results(folder) == expected


@pytest.mark.parametrize(("steps", "at"), some((steps, at) for at in PROCESSES for steps in (SORTED, STEPS)))
def test_a_process_that_is_killed(steps: list[str], at: tuple[str, int], tmp_path: Path) -> None:
    """In a plain shell, with a process per step."""
    point, process = at
    expected = _undisturbed([shlex.split(step) for step in [INGEST, *steps, SINK]], tmp_path / "undisturbed")
    folder = _prepared(tmp_path / "killed")
    words = [shlex.split(step) for step in [f"{INGEST} --checkpoint 1ms", *steps, SINK]]
    codes = run_steps(words, folder, kill={process: point})
    assert codes[process] == -signal.SIGKILL, _errors(folder)
    assert run_steps(words, folder) == [0] * 5, _errors(folder)
    assert _results(folder) == expected


def _fused(steps: list[str]) -> list[str]:
    return ["run", "--restart", "no", "-c", " | ".join(steps)]


def _undisturbed(words: list[list[str]], folder: Path) -> dict[str, list[str]]:
    _prepared(folder)
    assert set(run_steps(words, folder)) == {0}, _errors(folder)
    results = _results(folder)
    assert all(results.values()), results
    return results


def _results(folder: Path) -> dict[str, list[str]]:
    sides = {name: "".join(path.read_text() for path in folder.glob(f".home/**/{name}.ndjson")) for name in ("late", "dead")}
    lines = {name: sorted(text.splitlines()) for name, text in sides.items()}
    accounts = re.findall("clickpipe: (read .*)", _errors(folder))
    return lines | {"out": (folder / "out.ndjson").read_text().splitlines(), "accounts": accounts[-1:]}


def _prepared(folder: Path) -> Path:
    """Up to two seconds out of order, a few records later than that, repeats, and values that do not fit."""
    folder.mkdir()
    chance, lines = random.Random(3), []
    for number in range(2_000):
        late = 30_000 if number % 97 == 50 else chance.randrange(2_500)
        record = {"ts": 1_700_000_000_000 + number * 20 - late, "id": f"id-of-a-record-{number - number % 7 % 2 * 40}"}
        lines.append(json.dumps({**record, "u": f"u{chance.randrange(9)}", "x": "?" if number % 101 == 7 else number % 11 - 2}))
    (folder / "in.ndjson").write_text("\n".join(lines) + "\n")
    return folder


def _errors(folder: Path) -> str:
    return (folder / ".stderr").read_text()
