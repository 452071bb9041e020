"""Files that grow, with their writers and their reader doing anything in any order."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from examples import examples
from growing import Run, append, rotate, wait_for_nothing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, and nothing is waited for."""
    monkeypatch.chdir(tmp_path)
    wait_for_nothing(monkeypatch)
    return tmp_path


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


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(EVENTS), max_size=25))
def test_any_order_of_events(here: Path, events: list[str]) -> None:
    """Appending, rotating, truncating what was read, new files, kills: each whole line is there once."""
    for name in os.listdir(here):
        os.remove(name)
    world = _World()
    for event in events:
        world.happen(event)
    world.end()
    assert sorted(world.run.committed) == list(range(1, world.number + 1)), events
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
        append("app.log", *[self._next() for _ in range(3)])

    def _next(self) -> int:
        self.number += 1
        return self.number

    def _partial(self) -> None:
        self._complete()
        line = json.dumps({"n": self._next()}) + "\n"
        append("app.log", rest=line[:5])
        self.rest = line[5:]

    def _complete(self) -> None:
        if self.rest:
            append("app.log", rest=self.rest)
        self.rest = ""

    def _rotate(self) -> None:
        self._rename()
        self._append()

    def _rename(self) -> None:
        self._complete()
        if os.path.exists("app.log"):
            rotate("app.log")

    def _copytruncate(self) -> None:
        self._append()
        self._read_twice()
        self._read_twice()
        self._append()
        rotate("app.log")
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
        append(f"web-{self.files}.txt", self._next(), self._next())

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
