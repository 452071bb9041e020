"""Two pipelines under one supervisor, killed at every named place and at any time: both give what undisturbed ones give."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from examples import some
from running import Start, children_of, errors
from test_crash import ONCE, POINTS

from clickpipe.testing import environment

INGEST = "ingest in.ndjson --time ts --max-out-of-orderness 2s --batch-bytes 2KiB"
COUNT = 'window tumble 5s | aggregate --by page n="count(*)" s="sum(x)" l="last(x)"'
RECIPES = {
    "a": f'{INGEST} | filter "x >= 0" | sink a.ndjson',
    "b": f"{INGEST} | sink all.ndjson --pass | {COUNT} | sink view:pages",
}
RUN = ("run", "--quiet", "a.toml", "b.toml")
SUPERVISED = (*RUN, "--checkpoint", "1ms")
ALL_POINTS = [*POINTS, "before-view-commit", "after-view-commit"]
# A process per step costs three times as much.
KILLS = some((pytest.param([], point, id=point) for point in ALL_POINTS if point != "after-join"), 12)  # a fused run begins only
KILLS += some((pytest.param(["--no-fuse"], point, id=f"no-fuse-{point}") for point in ALL_POINTS), 20)
Results = dict[str, list[str]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What runs without checkpoints give."""
    folder = _prepared(tmp_path_factory.mktemp("undisturbed"))
    words = [sys.executable, "-m", "clickpipe", *RUN]
    subprocess.run(words, cwd=folder, env=environment(folder), check=True, stderr=subprocess.DEVNULL)
    seen = _results(folder)
    assert set(seen) == {"a.ndjson", "all.ndjson", "pages", "a dead", "b dead", "b late"}
    assert all(seen.values())
    return seen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _prepared(tmp_path)


@pytest.mark.parametrize(("form", "point"), KILLS)
def test_a_process_killed_there(form: list[str], point: str, folder: Path, start: Start, undisturbed: Results) -> None:
    """Once, in whichever process comes there first. Its pipeline is started again; the other one is not disturbed."""
    died = folder / "died"
    hit = 1 if point in ONCE else 3
    process = start(*SUPERVISED, *form, CLICKPIPE_KILL_POINT=f"{point}:{hit}", CLICKPIPE_KILL_ONCE=str(died))
    assert process.wait(60) == 0, errors(folder)
    assert died.exists(), f"{point} was not passed"
    assert len(re.findall(r"^clickpipe: [ab]: killed by SIGKILL; goes on from checkpoint \d", errors(folder), re.M)) == 1
    assert errors(folder).count("goes on from") == 1, errors(folder)
    assert _results(folder) == undisturbed


@pytest.mark.parametrize("form", [[], ["--no-fuse"]], ids=["fused", "no-fuse"])
def test_some_random_kills(form: list[str], tmp_path: Path, start: Start, undisturbed: Results) -> None:
    _kill_at_random(4, form, tmp_path, start, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("form", [[], ["--no-fuse"]], ids=["fused", "no-fuse"])
def test_random_kills(form: list[str], tmp_path: Path, start: Start, undisturbed: Results) -> None:
    """A hundred in each form, of any process at any time; a supervisor that was killed is started again."""
    _kill_at_random(100, form, tmp_path, start, undisturbed)


def _kill_at_random(kills: int, form: list[str], folder: Path, start: Start, undisturbed: Results) -> None:
    """So many that struck. Pipelines that have come to their end before begin anew."""
    chance = random.Random(len(form))
    process = start(*SUPERVISED, *form)
    while kills:
        time.sleep(chance.uniform(0.1, 1.2))
        if process.poll() is not None:
            assert process.returncode in (0, -signal.SIGKILL), errors(folder)
            if process.returncode == 0:
                assert _results(folder) == undisturbed
                _clear(folder)
            process = start(*SUPERVISED, *form)
        else:
            kills -= _has_killed(chance.choice([process.pid, *children_of(process.pid)]))
    while process.wait(120) == -signal.SIGKILL:
        process = start(*SUPERVISED, *form)
    assert process.returncode == 0, errors(folder)
    assert _results(folder) == undisturbed


def _clear(folder: Path) -> None:
    """As if nothing had been run."""
    shutil.rmtree(folder / ".home")
    for name in ("a.ndjson", "all.ndjson"):
        (folder / name).unlink()


def _has_killed(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _prepared(folder: Path) -> Path:
    """Recipes, and records out of order, of which some are late and some bad."""
    for name, pipeline in RECIPES.items():
        (folder / f"{name}.toml").write_text(f"pipeline = '''\n{pipeline}\n'''\n")
    chance = random.Random(7)
    lines = []
    for number in range(700):
        time_ms = 1_767_225_600_000 + number * 50 - chance.randrange(2_000) - (20_000 if number % 97 == 50 else 0)
        lines.append(json.dumps({"ts": time_ms, "page": f"/p/{chance.randrange(5)}", "x": number % 13, "id": number}))
        if number % 100 == 50:
            lines.append("not JSON")
    (folder / "in.ndjson").write_text("\n".join(lines) + "\n")
    return folder


def _results(folder: Path) -> Results:
    """All that was given, in any order. A repetition shows, and so does a loss; in a view, as the _rev of its row."""
    assert not list(folder.glob("*.parts*"))
    found = {name: _lines(folder / name) for name in ("a.ndjson", "all.ndjson")}
    for path in (folder / ".home" / "pipelines").glob("*/*.ndjson"):
        if path.stem != "watermarks":  # notes of when it moved, not results
            found[f"{path.parent.name} {path.stem}"] = _lines(path)
    connection = sqlite3.connect(folder / ".home" / "views" / "pages.sqlite")
    found["pages"] = [str(row) for row in connection.execute("SELECT * FROM pages ORDER BY _key")]
    connection.close()
    return found


def _lines(path: Path) -> list[str]:
    return sorted(path.read_text().splitlines())
