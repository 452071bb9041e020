"""Whatever a power loss leaves behind, no checkpoint that was complete is lost, and the results are those of one run.

Real runs are recorded with strace, call by call; from that, disks are rebuilt as they may be when the power goes behind
any of the calls (tests/power/disk.py says what may be left). From each the real code begins a run; for some of them the
pipeline is run to its end, and must give what a run gives that nothing disturbed.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from examples import examples
from power.calls import missing, record
from power.disk import Disk, Name, State, Sync, Tree
from power.recorder import Recorder
from test_crash import _prepared

from clickpipe.errors import ClickpipeError
from clickpipe.sinks.archive import ArchiveCommits
from clickpipe.sinks.log import LogCommits
from clickpipe.state.directory import StateDirectory
from clickpipe.state.manifest import Manifest
from clickpipe.state.parts import Parts
from clickpipe.store import archives
from clickpipe.store.archives import Archive
from clickpipe.store.logs import Log
from clickpipe.testing import environment, run_steps

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

INGEST = "ingest in.ndjson --time ts --max-out-of-orderness 2s --batch-bytes 8KiB --name c"
PIPELINE = ".home/pipelines/c"
SINK = 3  # its hop
STEPS = [INGEST + " --checkpoint 1ms", "window tumble 5s", "aggregate --by page n='count(*)' s='sum(x)'"]
# Side files sync the folders that they share with views, which then would be safe by chance.
ALONE = [f"{STEPS[0]} --dead-letter /dev/null", f"{STEPS[1]} --late /dev/null", STEPS[2]]


class Scene(NamedTuple):
    """How a pipeline is run. `kills`: where it dies, before it is run to its end."""

    sink: str
    kills: tuple[str, ...] = ()
    fused: bool = True
    steps: Sequence[str] = STEPS


SCENES = {
    "file": Scene("sink out.ndjson", ("after-part-rename:4", "after-manifest-rename:3")),
    "shell": Scene("sink out.ndjson", fused=False),
    "view": Scene("sink view:pages", ("before-view-commit:6",), steps=ALONE),
    "log": Scene("sink log:pages", ("before-log-fsync:3", "after-log-fsync:2"), steps=ALONE),
    "archive": Scene("sink archive:pages", ("before-archive-rename:2", "before-version-rename:3"), steps=ALONE),
}
STATES = examples(700)  # of each scene, all different
SAMPLES = 6  # behind each call, so often that there are enough:
ROUNDS = 6
RUNS = examples(30)  # of each scene


@dataclass(frozen=True)
class Recording:
    """What a pipeline did to the disk below `root`, what it left there, and which checkpoint was complete when."""

    root: Path
    line: str
    disk: Disk
    left: Tree
    complete: Sequence[int]  # after so many operations
    begun: int  # operations before the first run
    states: Sequence[State]

    def run(self) -> tuple[int, dict[str, list[Any]]]:
        """To its end, from what is there."""
        code = run_steps([["run", "-q", "--restart", "no", "-c", self.line]], self.root)[0]
        return code, _results(self.root) if code == 0 else {}


@pytest.fixture(scope="module", params=SCENES)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return _recorded(SCENES[request.param], tmp_path_factory.mktemp(request.param))


def _recorded(scene: Scene, directory: Path) -> Recording:
    root = _prepared(directory / "disk")
    recorder = Recorder(root)
    recorder.start(_tree(root))
    begun = len(recorder.disk.log)
    line = " | ".join([*scene.steps, scene.sink])
    texts = [line] if scene.fused else line.split(" | ")
    program = [sys.executable, "-m", "clickpipe"]
    steps = (
        [[*program, "run", "-q", "--restart", "no", "-c", line]]
        if scene.fused
        else [[*program, *shlex.split(text)] for text in texts]
    )
    for number, kill in enumerate([*scene.kills, ""]):
        codes, calls = record(steps, root, environment(root), directory / f"traces{number}", kill)
        assert bool(kill) == (codes[-1] < 0) == any(codes), codes
        recorder.follow(calls)
    disk = recorder.disk
    return Recording(root, line, disk, _tree(root), _complete(disk), begun, _states(disk, begun, STATES))


def _complete(disk: Disk) -> list[int]:
    """By number of operations: the newest checkpoint that its process has taken for complete by then.

    That is when its folder and the one above were synced behind the manifest, and at the latest when the next
    manifest is made.
    """
    names = {op.node: op for op in reversed(disk.log) if isinstance(op, Name)}  # the first that each had
    complete, newest, made = [0], 0, (0, 0)
    waits: list[int] = []  # folders that are to be synced
    for at, operation in enumerate(disk.log):
        if isinstance(operation, Name) and operation.name == "MANIFEST.json":
            newest, folder = made[0], names[operation.folder]
            made, waits = (int(folder.name), at), [folder.node, folder.folder]
        elif isinstance(operation, Sync) and waits[:1] == [operation.node] and operation.covers > made[1]:
            waits.pop(0)
            newest = newest if waits else made[0]
        complete.append(newest)
    return [*complete[:-1], made[0]]


def test_a_recording_is_complete(recorded: Recording) -> None:
    """What the calls add up to is what is there: no call that changes files has been overlooked."""
    assert recorded.disk.final() == recorded.left


def test_no_complete_checkpoint_is_lost(recorded: Recording) -> None:
    """And none is damaged: after every power loss a run begins at the newest that was complete, or at a newer one."""
    assert len(recorded.states) == STATES
    complaints = [f"{state}\n    {complaint}" for state in recorded.states if (complaint := _complaint(recorded, state))]
    assert not complaints, "\n".join([f"{len(complaints)} of {STATES} states", *complaints[:5]])


def test_results_after_a_power_loss_are_those_of_one_run(recorded: Recording) -> None:
    _rebuild(recorded.root, {"in.ndjson": recorded.left["in.ndjson"]})
    _, expected = recorded.run()
    for state in recorded.states[:: STATES // RUNS]:
        _rebuild(recorded.root, state.tree)
        assert recorded.run() == (0, expected), f"{state}\n{(recorded.root / '.stderr').read_text()}"


@pytest.mark.parametrize("what", ["folders", "files"])
def test_without_fsync_checkpoints_are_lost(what: str, recorded: Recording) -> None:
    """The instrument would show it."""
    states = _states(_without_syncs(recorded, what), recorded.begun, 100)
    assert any(_complaint(recorded, state) for state in states)


def _without_syncs(recorded: Recording, what: str) -> Disk:
    """The same run, had it not synced its folders or its files."""
    log, folders = list(recorded.disk.log), recorded.disk.folders
    for at, operation in enumerate(log):
        if at >= recorded.begun and isinstance(operation, Sync) and (operation.node in folders) == (what == "folders"):
            log[at] = replace(operation, covers=recorded.begun)
    return Disk(log, folders)


def _states(disk: Disk, begun: int, most: int) -> list[State]:
    """Different ones, spread over all of the run, in its order."""
    chance = random.Random(11)
    found: dict[bytes, State] = {}
    for _ in range(ROUNDS):
        for cut in range(begun, len(disk.log) + 1):
            for state in disk.states(cut, SAMPLES, chance):
                found.setdefault(_digest(state.tree), state)
        if len(found) >= most:
            break
    states = sorted(found.values(), key=lambda state: state.cut)
    return [states[number * len(states) // most] for number in range(most)] if len(states) > most else states


def _digest(tree: Tree) -> bytes:
    """Of all names and data."""
    sums = blake2b(digest_size=16)
    for path in sorted(tree):
        data = tree[path]
        sums.update(f"{path}\0{-1 if data is None else len(data)}\0".encode() + (data or b""))
    return sums.digest()


def _complaint(recorded: Recording, state: State) -> str:
    """What is wrong with a run that begins there, if anything."""
    _rebuild(recorded.root, state.tree)
    directory = StateDirectory(str(recorded.root / PIPELINE))
    try:
        with mock.patch("os.fsync"):  # nobody takes the power from us, and it is most of the time
            restore = directory.begin().restore
            _redo(recorded.root, restore)
    except ClickpipeError as error:
        return f"{error}"
    finally:
        directory.leave()
    epoch, least = restore.epoch if restore else 0, recorded.complete[state.cut]
    return f"checkpoint {least} was complete, and {epoch} is there" if epoch < least else ""


def _redo(root: Path, restore: Manifest | None) -> None:
    """What a start does for a file. Raises StateError when its parts are not those that the checkpoint knows of."""
    saved = restore.entry(SINK, "staged") if restore else None
    if saved is not None and "archive" in saved:
        with mock.patch.dict(os.environ, CLICKPIPE_HOME=str(root / ".home")):
            ArchiveCommits(StateDirectory(str(root / PIPELINE))).commit(saved)
            archives.scan(Archive(saved["archive"], is_new=True).snapshot()).collect()
    elif saved is not None and "log" in saved:
        with mock.patch.dict(os.environ, CLICKPIPE_HOME=str(root / ".home")):
            commits = LogCommits(StateDirectory(str(root / PIPELINE)))
            try:
                commits.commit(saved)
            finally:
                commits.close()
            _logged(saved["log"])
    elif saved is None or "parts" in saved:
        parts = Parts(str(root / "out.ndjson"))
        parts.begin(restore.epoch if restore else 0, saved)
        if saved:
            parts.commit(saved)


def _rebuild(root: Path, tree: Tree) -> None:
    """Nothing but this. What is as it should be is left alone: removing it all is what takes longest."""
    for path in root.rglob("*-shm"):
        path.unlink()
    there = _tree(root)
    for name in sorted(there, reverse=True):
        if name not in tree or (there[name] is None) != (tree[name] is None):
            _remove(root / name)
    for name in sorted(tree):
        data = tree[name]
        if data is None:
            (root / name).mkdir(mode=0o700, exist_ok=True)
        elif data != there.get(name):
            (root / name).write_bytes(data)


def _remove(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()


def _tree(root: Path) -> Tree:
    """What is there."""
    paths = [path for path in sorted(root.rglob("*")) if not path.name.endswith("-shm")]
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in paths}


def _results(root: Path) -> dict[str, list[Any]]:
    """All that was given, in any order."""
    results: dict[str, list[Any]] = {}
    for path in (root / "out.ndjson", root / PIPELINE / "late.ndjson", root / PIPELINE / "dead.ndjson"):
        text = path.read_text() if path.exists() else ""
        results[path.name] = sorted(re.sub(r"\.0(?=[,}])", "", text).splitlines())  # a sum of floats may be spelt 7 or 7.0
    for path in (root / ".home" / "views").glob("*.sqlite"):
        connection = sqlite3.connect(path)
        results[path.name] = connection.execute("SELECT * FROM pages ORDER BY _key").fetchall()
        connection.close()
    for path in (root / ".home" / "archives").glob("*"):
        with mock.patch.dict(os.environ, CLICKPIPE_HOME=str(root / ".home")):
            results[path.name] = sorted(map(str, archives.scan(Archive(path.name).snapshot()).collect().rows()))
    for path in (root / ".home" / "logs").glob("*"):
        with mock.patch.dict(os.environ, CLICKPIPE_HOME=str(root / ".home")):
            results[path.name] = _logged(path.name)
    return results


def _logged(name: str) -> list[str]:
    """1 and 1.0 are one value."""
    return sorted(str(json.loads(line)).replace(".0", "") for _, text in Log(name).batches(0) for line in text.splitlines())
