"""How far a bounded run is: on a terminal only, and never among records."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from running import Start, errors

from clickpipe.cli.progress import bar, of_pipelines
from clickpipe.state import samples
from clickpipe.state.samples import Sample
from clickpipe.testing import environment

STEPS = "ingest in.ndjson --time ts --name c --batch-bytes 1KiB | window tumble 5s | aggregate --by page n='count(*)'"


@pytest.fixture
def longer(folder: Path) -> Path:
    """So much that it takes some seconds."""
    (folder / "in.ndjson").write_text((folder / "in.ndjson").read_text() * 6)
    return folder


def on_a_terminal(folder: Path, *words: str, prints: bool = False, **more: str) -> str:
    """What stands on standard error, which is a terminal; with `prints` standard output is the same one."""
    ours, theirs = pty.openpty()
    told: list[bytes] = []

    def read() -> None:
        while True:
            try:
                told.append(os.read(ours, 1 << 16))
            except OSError:
                return

    reader = threading.Thread(target=read)
    command = [sys.executable, "-m", "clickpipe", *words]
    env = environment(folder, **{"TERM": "xterm", "COLUMNS": "100", **more})
    with open(folder / "out", "wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=env, stderr=theirs, stdout=theirs if prints else out)
    os.close(theirs)
    reader.start()
    assert process.wait(240) == 0, told
    reader.join(60)
    os.close(ours)
    return b"".join(told).decode("utf-8", "replace")


@pytest.mark.parametrize("more", ["", " --checkpoint 100ms"])
def test_a_bar_is_shown_and_goes(longer: Path, more: str) -> None:
    """Also of a pipeline that a supervisor runs, whose processes may say their accounts before it has gone."""
    line = STEPS.replace(" --batch", f"{more} --batch") + " | sink c.ndjson"
    said = on_a_terminal(longer, "run", "-c", line)
    assert re.search(r"c .*[0-9]+ %.*records/s", said), said
    last = said.rpartition("\x1b[2K")[2]
    assert "clickpipe: read 36,000 = " in said
    assert "records/s" not in last


@pytest.mark.parametrize(
    ("line", "prints", "more"),
    [
        (STEPS + " | sink -", True, {}),  # records are printed there
        (STEPS + " | sink c.ndjson", False, {"TERM": "dumb"}),
        (STEPS + " | sink c.ndjson", False, {"CLICKPIPE_LOG_FORMAT": "json"}),
    ],
)
def test_there_is_none_where_it_would_be_in_the_way(longer: Path, line: str, prints: bool, more: dict[str, str]) -> None:
    assert "records/s" not in on_a_terminal(longer, "run", "-c", line, prints=prints, **more)


def test_nothing_is_drawn_on_a_pipe(longer: Path, start: Start) -> None:
    assert start("run", "-c", STEPS + " | sink c.ndjson").wait(240) == 0
    assert errors(longer).splitlines()[0].startswith("clickpipe: read 36,000 =")
    assert "\x1b" not in errors(longer)


def test_what_is_known_of_a_run_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of input that has an end, by what its first process says; of other input nothing."""
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path))
    look = of_pipelines(lambda: ["c", "live", "never"])
    born = samples.born(os.getpid()) or 0
    told = Sample(os.getpid(), 0, None, 3_000, 5.0, 1.0, 0.5, 0.0, born, run=1, when=4e9, extent=(25, 100))
    samples.write("c", told)
    samples.write("live", Sample(os.getpid(), 0, None, 3_000, 5.0, 1.0, 0.5, 0.0, born, run=1, when=4e9))
    assert look() == [("c", 25, 100, "2,000 records/s")]


def test_a_bar_that_is_not_wanted_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: True)

    def never() -> list[tuple[str, int, int, str]]:
        raise AssertionError("it was asked")

    with bar(never, quiet=True):
        pass
