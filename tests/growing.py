"""For tests of files that grow: what their writers do, and a reader that can be killed between two rounds."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from clickpipe.batch import Batch
from clickpipe.core import tail, watch
from clickpipe.core.following import Following
from clickpipe.core.operator import Pull
from clickpipe.operators.ingest import Ingest
from clickpipe.plan.parse import parse

LOG = "app.log --format ndjson --columns n:int"


def wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is given time, and none is looked for only now and then."""
    monkeypatch.setattr(tail, "QUIET", 0.0)
    monkeypatch.setattr(tail, "SCAN", 0.0)
    monkeypatch.setattr(watch, "LOOK", 0.0)
    monkeypatch.setattr(watch, "SCAN", 0.0)


@dataclass
class Run:
    """A pipeline's runs, one after the other. `committed`: what took effect."""

    text: str
    committed: list[int] = field(default_factory=list)
    handed: list[int] = field(default_factory=list)
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
        feed = self._saving(save)
        for _ in range(rounds):
            for pull in feed.round():
                self._take(pull)

    def read_until_saved(self) -> None:
        """Up to the first checkpoint in a round, and not a record further."""
        for pull in self._saving(True).round():
            self._take(pull)
            if pull.barrier:
                return

    def _saving(self, save: bool) -> Following:
        if self.feed is None:
            self.start()
        assert self.feed is not None
        self.feed.epochs = count(1) if save else None
        return self.feed

    def _take(self, pull: Pull) -> None:
        self.handed += [number for batch in pull.batches for number in numbers(batch)]
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


def numbers(batch: Batch) -> list[int]:
    return batch.frame["n"].to_list() if batch.height else []


def append(path: str, *numbers: int, rest: str = "") -> None:
    with open(path, "a") as file:
        file.write("".join(f'{{"n": {number}}}\n' for number in numbers) + rest)


def rotate(path: str) -> None:
    """As logrotate does."""
    for number in range(20, 0, -1):
        if os.path.exists(f"{path}.{number}"):
            os.rename(f"{path}.{number}", f"{path}.{number + 1}")
    os.rename(path, f"{path}.1")
