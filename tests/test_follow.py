"""Files that grow: each whole line takes effect once, through rotation, truncation, new files and kill -9.

Most tests drive the feed round by round, without waiting: a kill is a feed that is dropped, and what it had
handed on since its last barrier does not count.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickpipe.core import tail, watch
from clickpipe.core.following import Following
from clickpipe.errors import DataError, PlanError, StateError
from clickpipe.operators.ingest import Ingest
from clickpipe.plan.parse import parse


@dataclass
class Run:
    """A pipeline's runs, one after the other. `committed`: what took effect."""

    text: str
    committed: list[str] = field(default_factory=list)
    handed: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    watermarks: list[int | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    saved: dict[str, Any] | None = None
    feed: Following | None = None

    def start(self) -> None:
        step = parse(f"ingest {self.text} --follow").nodes[0].step
        assert isinstance(step, Ingest)
        feed = step.open(self.saved, say=self.notes.append)
        assert isinstance(feed, Following)
        feed.want(None, True)
        self.feed, self.handed = feed, []

    def read(self, *, rounds: int = 1, save: bool = True) -> None:
        """Rounds; with a checkpoint behind each that has brought something."""
        if self.feed is None:
            self.start()
        assert self.feed is not None
        self.feed.epochs = count(1) if save else None
        for _ in range(rounds):
            for pull in self.feed.round():
                self.handed += [line for batch in pull.batches for line in _lines(batch)]
                self.dead += [line for dead in pull.dead for line in dead.raw]
                self.watermarks.append(pull.watermark)
                if pull.barrier:
                    self.saved = json.loads(json.dumps(pull.barrier.state[0]["source"]))
                    self.committed += self.handed
                    self.handed = []

    def kill(self) -> None:
        if self.feed is not None:
            self.feed.close()
        self.feed = None


def _lines(batch: Any) -> list[str]:
    return [json.dumps(row) for row in batch.frame.select("n").to_dicts()] if "n" in batch.frame.columns else []


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, and nothing is waited for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tail, "QUIET", 0.0)
    monkeypatch.setattr(tail, "SCAN", 0.0)
    monkeypatch.setattr(watch, "LOOK", 0.0)
    monkeypatch.setattr(watch, "SCAN", 0.0)
    return tmp_path


def _append(path: str, *numbers: int, rest: str = "") -> None:
    with open(path, "a") as file:
        file.write("".join(f'{{"n": {number}}}\n' for number in numbers) + rest)


def _numbers(run: Run) -> list[int]:
    return [json.loads(line)["n"] for line in run.committed]


LOG = "app.log --format ndjson --columns n:int"


def test_growth_and_a_partial_last_line() -> None:
    """The beginning of a line is no record; a restart reads the line from its beginning."""
    _append("app.log", 1, 2, rest='{"n"')
    run = Run(LOG)
    run.read()
    assert _numbers(run) == [1, 2]
    run.read(rounds=3)
    assert _numbers(run) == [1, 2]
    run.kill()
    _append("app.log", rest=": 3")
    run.read(rounds=3)
    assert _numbers(run) == [1, 2]
    _append("app.log", rest="}\n")
    run.read()
    assert _numbers(run) == [1, 2, 3]
    assert run.dead == []


def test_a_line_longer_than_what_is_read_at_once() -> None:
    run = Run(f"{LOG} --batch-bytes 64")
    Path("app.log").write_text(json.dumps({"n": 1, "text": "x" * 1000}) + "\n" + json.dumps({"n": 2}) + "\n")
    run.read(rounds=40)
    assert _numbers(run) == [1, 2]


def test_rotation_by_renaming() -> None:
    """The old file is read to its end, also what its writer adds after the renaming; then the new one."""
    _append("app.log", 1)
    run = Run(LOG)
    run.read()
    os.rename("app.log", "app.log.1")
    _append("app.log.1", 2)
    run.read(rounds=2)
    assert _numbers(run) == [1, 2]
    _append("app.log.1", 3)  # nobody has taken its place yet
    run.read(rounds=2)
    _append("app.log.1", 4)
    _append("app.log", 5)
    run.read(rounds=3)
    assert _numbers(run) == [1, 2, 3, 4, 5]


def test_a_file_is_left_only_after_a_while_without_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "QUIET", 3600.0)
    _append("app.log", 1)
    run = Run(LOG)
    run.read()
    os.rename("app.log", "app.log.1")
    _append("app.log", 3)
    run.read(rounds=3)
    _append("app.log.1", 2)
    run.read(rounds=3)
    assert _numbers(run) == [1, 2]
    monkeypatch.setattr(tail, "QUIET", 0.0)
    run.read(rounds=2)
    assert _numbers(run) == [1, 2, 3]


@pytest.mark.parametrize("is_killed", [False, True])
def test_several_rotations_between_two_looks(is_killed: bool) -> None:
    """Files that came and were renamed meanwhile are found beside the path; older ones are left alone."""
    _append("app.log.1", -1)
    _append("app.log.bak", -2)
    _append("app.log", 1)
    run = Run(LOG)
    run.read()
    if is_killed:
        run.kill()
    for number in (2, 4, 6):
        _append("app.log", number)
        _rotate("app.log")
        _append("app.log", number + 1)
    run.read(rounds=6)
    assert _numbers(run) == [1, 2, 3, 4, 5, 6, 7]


def _rotate(path: str) -> None:
    """As logrotate does."""
    for number in range(20, 0, -1):
        if os.path.exists(f"{path}.{number}"):
            os.rename(f"{path}.{number}", f"{path}.{number + 1}")
    os.rename(path, f"{path}.1")


def test_rotation_while_nobody_reads() -> None:
    _append("app.log", 1, 2)
    run = Run(LOG)
    run.read()
    run.kill()
    _append("app.log", 3)
    _rotate("app.log")
    _append("app.log", 4)
    run.read(rounds=3)
    assert _numbers(run) == [1, 2, 3, 4]
    run.kill()
    run.read(rounds=3)
    assert _numbers(run) == [1, 2, 3, 4]


@pytest.mark.parametrize("is_killed", [False, True])
def test_copy_and_truncate(is_killed: bool) -> None:
    """What had not been read is found in the copy. It is said once that something may be lost."""
    _append("app.log", 1, 2)
    run = Run(LOG)
    run.read()
    for number in (3, 6):
        if is_killed:
            run.kill()
        _append("app.log", number)
        for older in (2, 1):
            if os.path.exists(f"app.log.{older}"):
                os.rename(f"app.log.{older}", f"app.log.{older + 1}")
        shutil.copy("app.log", "app.log.1")
        os.truncate("app.log", 0)
        _append("app.log", number + 1, number + 2)
        run.read(rounds=3)
    assert _numbers(run) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [note for note in run.notes if "was truncated" in note][1:] == ([run.notes[0]] if is_killed else [])


@pytest.mark.parametrize("is_killed", [False, True])
def test_truncation_without_a_copy(is_killed: bool) -> None:
    """Also when the file has grown beyond where reading was."""
    _append("app.log", 1, 2)
    run = Run(LOG)
    run.read()
    if is_killed:
        run.kill()
    os.truncate("app.log", 0)
    _append("app.log", 3, 4, 5, 6)
    run.read(rounds=2)
    assert _numbers(run) == [1, 2, 3, 4, 5, 6]
    assert len([note for note in run.notes if "was truncated" in note]) == 1


def test_a_new_file_that_a_glob_matches() -> None:
    run = Run("'*.log' --format ndjson --columns n:int")
    run.read()
    assert run.notes == ["waiting for a file that matches *.log"]
    _append("a.log", 1)
    run.read()
    run.kill()
    _append("b.log", 2)
    run.read(rounds=2)
    _append("a.log", 3)
    run.read(rounds=2)
    assert _numbers(run) == [1, 2, 3]


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_file_renamed_inside_the_glob_is_not_read_again(is_killed: bool) -> None:
    run = Run("'app.log*' --format ndjson --columns n:int")
    _append("app.log.1", 1)
    _append("app.log", 2)
    run.read(rounds=2)
    for number in (3, 5, 7):
        if is_killed:
            run.kill()
        _append("app.log", number)
        _rotate("app.log")
        _append("app.log", number + 1)
        run.read(rounds=4)
    assert sorted(_numbers(run)) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_copy_inside_the_glob_is_not_read_again() -> None:
    run = Run("'app.log*' --format ndjson --columns n:int")
    _append("app.log", 1)
    run.read()
    _append("app.log", 2)
    shutil.copy("app.log", "app.log.1")
    run.read(rounds=2)
    os.truncate("app.log", 0)
    _append("app.log", 3)
    run.read(rounds=3)
    assert _numbers(run) == [1, 2, 3]


def test_a_removed_file_is_read_to_its_end() -> None:
    """If its path appears again, that is the same split; one that is gone holds nothing back."""
    run = Run(LOG)
    _append("app.log", 1)
    run.read()
    with open("app.log", "a") as file:
        os.remove("app.log")
        file.write('{"n": 2}\n')
    run.read(rounds=3)
    assert _numbers(run) == [1, 2]
    assert run.saved is not None
    assert [split["done"] for split in run.saved["splits"]] == [True]
    run.kill()
    run.read(rounds=2)
    _append("app.log", 3)
    run.read(rounds=2)
    assert _numbers(run) == [1, 2, 3]


def test_files_that_come_later() -> None:
    run = Run(f"web.log {LOG}")
    run.read()
    run.read(rounds=2)
    assert run.notes == ["waiting for web.log", "waiting for app.log"]
    _append("web.log", 1)
    run.read()
    assert _numbers(run) == [1]


def test_columns_are_inferred_from_the_first_records() -> None:
    """Which are waited for."""
    run = Run("app.log")
    waiting = threading.Thread(target=run.start, daemon=True)
    waiting.start()
    while not run.notes:
        time.sleep(0.01)
    _append("app.log", 1, 2)
    waiting.join(60)
    assert run.feed is not None
    assert dict(run.feed.columns.types) == {"n": "int"}
    run.read()
    assert _numbers(run) == [1, 2]


def test_what_cannot_be_followed() -> None:
    Path("packed.log").write_bytes(b"\x1f\x8b\x08\x00abc")
    Path("folder").mkdir()
    os.mkfifo("pipe")
    for source, reason in {
        "packed.log": "packed.log is packed",
        "folder": "folder is a directory",
        "pipe": "pipe is a pipe",
        "/dev/null": "/dev/null is a pipe or a device",
        "-": "--follow is for files that grow: - is none",
        "app.log app.log": "app.log is named twice",
    }.items():
        with pytest.raises(PlanError, match=reason):
            Run(f"{source} --columns n:int").start()


def test_in_a_glob_it_is_passed_over() -> None:
    """With one note. Also when it comes later, and when it has the path after a rotation."""
    Path("old.log").write_bytes(b"\x1f\x8b\x08\x00abc")
    run = Run("'*.log' --format ndjson --columns n:int")
    run.read(rounds=2)
    os.mkfifo("pipe.log")
    Path("new.log").write_bytes(b"\x1f")
    run.read(rounds=2)
    Path("new.log").write_bytes(b"\x1f\x8b\x08\x00abc")
    _append("app.log", 1)
    run.read(rounds=3)
    assert _numbers(run) == [1]
    assert run.dead == []
    assert len([note for note in run.notes if note.startswith("old.log is packed")]) == 1
    assert len([note for note in run.notes if note.startswith("new.log is packed")]) == 1
    assert len([note for note in run.notes if note.startswith("pipe.log is a pipe")]) == 1


def test_what_cannot_be_found_any_more_stops_the_run(here: Path) -> None:
    _append("app.log", 1, 2)
    run = Run(LOG)
    run.read()
    run.kill()
    _append("app.log", 3)
    os.rename("app.log", "elsewhere")
    shutil.move("elsewhere", here.parent / f"{here.name}-elsewhere")
    _append("app.log", 4)
    with pytest.raises(StateError) as caught:
        run.start()
    assert "app.log: the file that was being read is not beside it any more; 18 bytes of it had been read" in str(caught.value)
    assert "put it back" in str(caught.value)
    assert "--reset" in str(caught.value)
    shutil.move(here.parent / f"{here.name}-elsewhere", "any-name")
    run.read(rounds=3)
    assert _numbers(run) == [1, 2, 3, 4]


def test_each_file_has_its_header_line() -> None:
    run = Run("app.csv --columns n:int")
    Path("app.csv").write_text("n,m\n1,2\n")
    run.read()
    run.kill()
    os.rename("app.csv", "app.csv.1")
    Path("app.csv").write_text("n,m\n3,4\n")
    run.read(rounds=3)
    assert _numbers(run) == [1, 3]
    os.rename("app.csv", "app.csv.2")
    Path("app.csv").write_text("m,n\n5,6\n")
    with pytest.raises(DataError, match=r"app.csv: this file has the columns m, n; the first file has n, m"):
        run.read(rounds=3)


def test_the_watermark_is_the_least_and_never_goes_back() -> None:
    """Of the files that have given records; one that is gone does not count, one that comes late is late."""
    run = Run("'*.log' --format ndjson --columns n:int --time n --time-unit ms")
    _append("a.log", 5_000)
    _append("b.log", 3_000)
    run.read()
    assert run.watermarks[-1] == 3_000
    _append("a.log", 9_000)
    run.read()
    assert run.watermarks[-1] == 3_000
    os.remove("b.log")
    run.read(rounds=3)
    assert run.watermarks[-1] == 9_000
    _append("c.log", 1_000)
    run.read(rounds=2)
    assert run.watermarks[-1] == 9_000
    assert run.feed is not None
    (late,) = [one for one in run.feed._watch.tails if one.name == "c.log"]
    assert late.clock.watermark == 9_000
    seen = [mark for mark in run.watermarks if mark is not None]
    assert seen == sorted(seen)


def test_the_clock_of_a_path_goes_on_over_a_rotation_and_a_restart() -> None:
    run = Run(f"{LOG} --time n --time-unit ms --max-out-of-orderness 1s")
    _append("app.log", 9_000)
    run.read()
    run.kill()
    _rotate("app.log")
    _append("app.log", 8_500, 10_000)
    run.read(rounds=3)
    assert run.watermarks[-1] == 9_000
    assert _numbers(run) == [9_000, 8_500, 10_000]


# Any order of events.

EVENTS = (
    "append",
    "partial",
    "rotate",
    "rename",
    "copytruncate",
    "truncate",
    "new",
    "read",
    "read twice",
    "read unsaved",
    "kill",
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(EVENTS), max_size=25))
def test_any_order_of_events(here: Path, events: list[str]) -> None:
    """Appending, rotating, truncating what was read, new files, kills: each whole line is there once."""
    for name in os.listdir(here):
        os.remove(name)
    world = _World()
    for event in events:
        world.happen(event)
    world.end()
    assert sorted(_numbers(world.run)) == list(range(1, world.number + 1)), events
    assert world.run.dead == []


class _World:
    """Writers and a reader. A file is truncated only when something of it has been read."""

    def __init__(self) -> None:
        self.run = Run("app.log 'web-*.txt' --format ndjson --columns n:int")
        self.number = self.files = 0
        self.rest = ""
        self._append()
        self._read()

    def happen(self, event: str) -> None:
        getattr(self, f"_{event.replace(' ', '_')}")()

    def _append(self) -> None:
        self._complete()
        _append("app.log", *[self._next() for _ in range(3)])

    def _next(self) -> int:
        self.number += 1
        return self.number

    def _partial(self) -> None:
        self._complete()
        line = json.dumps({"n": self._next()}) + "\n"
        _append("app.log", rest=line[:5])
        self.rest = line[5:]

    def _complete(self) -> None:
        if self.rest:
            _append("app.log", rest=self.rest)
        self.rest = ""

    def _rotate(self) -> None:
        self._rename()
        self._append()

    def _rename(self) -> None:
        self._complete()
        if os.path.exists("app.log"):
            _rotate("app.log")

    def _copytruncate(self) -> None:
        self._append()
        self._read_twice()
        self._read_twice()
        self._append()
        _rotate("app.log")
        shutil.copy("app.log.1", "copy")
        os.rename("app.log.1", "app.log")
        os.rename("copy", "app.log.1")
        os.truncate("app.log", 0)

    def _truncate(self) -> None:
        self._append()
        for _ in range(15):
            self._read_twice()
        os.truncate("app.log", 0)

    def _new(self) -> None:
        self.files += 1
        _append(f"web-{self.files}.txt", self._next(), self._next())

    def _read(self) -> None:
        self.run.read()

    def _read_twice(self) -> None:
        self.run.read(rounds=2)

    def _read_unsaved(self) -> None:
        self.run.read(save=False)

    def _kill(self) -> None:
        self.run.kill()

    def end(self) -> None:
        self._complete()
        self.run.read(rounds=40)
        self.run.kill()
        self.run.read(rounds=3)
        self.run.kill()
