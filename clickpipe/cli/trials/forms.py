"""How the pipeline of a test is run. All forms must give the same.

fused      all steps in one process, the records in one batch
single     the same, and every record is a batch of its own
piped      a process per step
resumed    stopped after some records, a checkpoint behind each stop, and going on from there; up to five lives
workers    two workers, where the recipe has a partition
shuffled   where the test says shuffle: three other orders, each from a seed of its own
crashed    where the test says crash_after = N: killed then, and started again; with checkpoints one is complete after half of N
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from clickpipe.cli.nursery import fork_steps
from clickpipe.cli.supervised import step_words
from clickpipe.cli.trials.arranged import GIVEN, ROWS, Arranged, Way
from clickpipe.cli.trials.given import Line, shuffled, text_of
from clickpipe.engine.group import verdict
from clickpipe.plan.cases import Row
from clickpipe.plan.parse import parse
from clickpipe.state.parts import Parts

FORMS = ("fused", "single", "piped", "resumed", "workers", "shuffled", "crashed")
ORDERS = 3  # that shuffled tries
_STOPS = 4
_HOUR = 3_600_000  # an interval of checkpoints after which none comes but the last


@dataclass(frozen=True)
class Came:
    """What came of the pipeline. `error`: what it said, if it failed."""

    rows: list[Row] = field(default_factory=list)
    late: list[Row] = field(default_factory=list)
    dead: list[Row] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class Run:
    """One run in a form. `seed`: of the order of the records."""

    form: str
    came: Callable[[Path], Came]
    seed: int | None = None


def forms_of(arranged: Arranged) -> list[str]:
    """Those that a test has."""
    case = arranged.case
    has = {
        "resumed": case.error is None and arranged.taken() > 0,
        "workers": arranged.has_partition,
        "shuffled": case.shuffles,
        "crashed": case.crash_after is not None,
    }
    return [form for form in FORMS if has.get(form, True)]


def runs_of(arranged: Arranged, form: str, seed: int) -> Iterator[Run]:
    """One, but for the orders of shuffled."""
    if form != "shuffled":
        yield Run(form, lambda folder: _FORMS[form](_Trial(arranged, folder)))
        return
    for number in range(seed, seed + ORDERS):
        lines = shuffled(arranged, number)
        yield Run(form, lambda folder, lines=lines: _fused(_Trial(arranged, folder, lines)), number)  # type: ignore[misc]  # each its own


class _Trial:
    """A pipeline in a folder of its own. Some lives of it may follow each other."""

    def __init__(self, arranged: Arranged, folder: Path, lines: Sequence[Line] | None = None) -> None:
        self.arranged, self._folder, self._code = arranged, folder, 0
        folder.mkdir()
        (folder / GIVEN).write_bytes(text_of(arranged.case.given if lines is None else lines))

    def live(self, way: Way, **faults: str) -> bool:
        """One life, all steps in one process. Whether it ended well."""
        recipe = self.arranged.recipe
        head = "\n" * (recipe.first_line - 1)
        (self._folder / self._recipe).write_text(f"{head}pipeline = {_quoted(self._text(way))}\n", encoding="utf-8")
        return self._ran([["run", "--restart=no", "--quiet", self._recipe]], faults)

    def live_in_steps(self) -> bool:
        plan = parse(self._text(Way()), name=self.arranged.recipe.name)
        return self._ran(step_words(plan, quiet=True), {})

    def came(self) -> Came:
        if self._code:
            return Came(error=self._error())
        return Came(self._rows(), self._side("late"), self._side("dead"))

    @property
    def was_killed(self) -> bool:
        return self._code == -signal.SIGKILL

    @property
    def _recipe(self) -> str:
        return f"{self.arranged.recipe.name}.toml"

    def _text(self, way: Way) -> str:
        if self.arranged.case.ends or way.checkpoint is not None or self.arranged.ingest.checkpoint is not None:
            return self.arranged.text(way)
        return self.arranged.text(Way(way.batch_bytes, way.workers, _HOUR))

    def _ran(self, steps: Sequence[Sequence[str]], faults: Mapping[str, str]) -> bool:
        if not self.arranged.case.ends:
            faults = {"CLICKPIPE_STOP_AFTER": "end", **faults}
        codes = fork_steps(steps, self._folder, os.devnull, {**_environment(self._folder), **faults})
        self._code = verdict(codes)
        return not self._code

    def _error(self) -> str:
        if self._code == -signal.SIGALRM:
            return "it did not come to an end"
        told = (self._folder / ".stderr").read_text(encoding="utf-8", errors="replace")
        told = told.replace(f"clickpipe: {self._recipe}:", f"clickpipe: {self.arranged.recipe.path}:")
        told = re.sub(r"^clickpipe: ", "", told, flags=re.MULTILINE).rstrip()
        return told or (f"signal {-self._code}" if self._code < 0 else f"exit code {self._code}")

    def _rows(self) -> list[Row]:
        if self.arranged.view is not None:
            return _rows_of_view(self._folder / ".home" / "views" / f"{self.arranged.view}.sqlite", self.arranged.view)
        return [row for path in Parts(str(self._folder / ROWS)).files() for row in _records(Path(path))]

    def _side(self, name: str) -> list[Row]:
        paths = sorted((self._folder / ".home" / "pipelines").glob(f"*/{name}.ndjson"))
        return [row for path in paths for row in _records(path)]


# The forms.


def _fused(trial: _Trial) -> Came:
    trial.live(Way())
    return trial.came()


def _single(trial: _Trial) -> Came:
    trial.live(Way(batch_bytes=1))
    return trial.came()


def _piped(trial: _Trial) -> Came:
    trial.live_in_steps()
    return trial.came()


def _workers(trial: _Trial) -> Came:
    trial.live(Way(workers=2))
    return trial.came()


def _resumed(trial: _Trial) -> Came:
    way, records = Way(batch_bytes=1, checkpoint=_HOUR), trial.arranged.taken()
    every = -(-records // _STOPS)
    for _ in range(records // every):
        if not trial.live(way, CLICKPIPE_STOP_AFTER=str(every)):
            return trial.came()
    trial.live(way)
    return trial.came()


def _crashed(trial: _Trial) -> Came:
    case, saves = trial.arranged.case, trial.arranged.ingest.takes_checkpoints
    assert case.crash_after is not None
    half = case.crash_after // 2 if saves else 0
    if half and not trial.live(Way(batch_bytes=1), CLICKPIPE_STOP_AFTER=str(half)):
        return trial.came()
    if not trial.live(Way(batch_bytes=1), CLICKPIPE_KILL_AFTER=str(case.crash_after - half)) and not trial.was_killed:
        return trial.came()
    trial.live(Way(batch_bytes=1))
    return trial.came()


_FORMS: Mapping[str, Callable[[_Trial], Came]] = {
    "fused": _fused,
    "single": _single,
    "piped": _piped,
    "resumed": _resumed,
    "workers": _workers,
    "crashed": _crashed,
}


# What they leave.


def _environment(folder: Path) -> dict[str, str]:
    """Ours, less what was said of other pipelines. All that is written is below the folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLICKPIPE_")}
    return {**kept, "CLICKPIPE_HOME": str(folder / ".home"), "COLUMNS": "100"}


def _records(path: Path) -> list[Row]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def _rows_of_view(path: Path, name: str) -> list[Row]:
    """In the order of their keys, without what the view itself keeps of them."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        tables = [row["name"] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        if name not in tables:
            return []
        types = orjson.loads(connection.execute("SELECT said FROM _about").fetchone()["said"])["types"]
        rows = connection.execute(f'SELECT * FROM "{name}" ORDER BY _key')
        return [{column: _value(row[column], types[column]) for column in row.keys() if column in types} for row in rows]  # noqa: SIM118  # a Row gives its values


def _value(stored: Any, kind: str) -> Any:
    if stored is None or kind not in ("bool", "json"):
        return stored
    return bool(stored) if kind == "bool" else orjson.loads(stored)


def _quoted(text: str) -> str:
    """As TOML: what JSON escapes, and DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
