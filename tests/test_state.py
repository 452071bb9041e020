"""What outlives a process is whole or known not to be: every byte changed, every length cut."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import polars as pl
import pytest

from clickpipe.core.operator import Writer
from clickpipe.core.option import Duration, Size
from clickpipe.core.sink import Commits
from clickpipe.engine import commit as commit_module
from clickpipe.engine import local
from clickpipe.engine.checkpoints import Checkpoints, Place
from clickpipe.engine.commit import Committer
from clickpipe.errors import ClickpipeError, DiskError, OutsideError, PlanError, StateError
from clickpipe.operators.ingest import Ingest
from clickpipe.state import directory as directory_module
from clickpipe.state import snapshot
from clickpipe.state.directory import StateDirectory
from clickpipe.state.files import append_at, write_whole
from clickpipe.state.home import pipeline_directory
from clickpipe.state.manifest import Entry, Manifest, digest
from clickpipe.state.parts import Parts
from clickpipe.wire.frames import Barrier

TABLES = {
    "groups": pl.DataFrame(
        {"window_start": [1, None], "\0s.whole": pl.Series([2**100, -5], dtype=pl.Int128), "page": ["é", None]}
    ),
    "fired": pl.DataFrame({"fired": [7]}),
}


def _saved(path: Path) -> StateDirectory:
    """A pipeline with one checkpoint."""
    directory = StateDirectory(str(path / "pipelines" / "c"))
    run = directory.begin()
    data = snapshot.to_bytes("aggregate", TABLES)
    directory.save(run.epoch, "2-aggregate.state", data)
    entry = {"file": "2-aggregate.state", "bytes": len(data), "hash": digest(data)}
    steps = [{"hop": 2, "step": "aggregate", "says": "n=count(*)"}, {"hop": 2, "state": entry}]
    directory.commit(Manifest("c", run.number, run.epoch, steps, [{"read": 3}]))
    return directory


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    directory = _saved(tmp_path)
    manifest = directory.newest()
    assert manifest is not None
    tables = snapshot.from_bytes(directory.read(manifest.epoch, manifest.entry(2, "state")))
    assert {name: frame.to_dicts() for name, frame in tables.items()} == {n: f.to_dicts() for n, f in TABLES.items()}


@pytest.mark.parametrize("name", ["MANIFEST.json", "2-aggregate.state"])
def test_no_changed_byte_goes_unseen(name: str, tmp_path: Path) -> None:
    directory = _saved(tmp_path)
    path = Path(directory.path_of(1, name))
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        with pytest.raises(StateError, match="damaged"):
            directory.newest()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StateError, match="damaged"):
            directory.newest()
    path.write_bytes(whole)
    assert directory.newest() is not None


def test_a_changed_identity_is_refused(tmp_path: Path) -> None:
    """The run number tells the living from the dead, so it is not guessed at."""
    directory = _saved(tmp_path)
    path = Path(directory.path) / "identity.json"
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        with pytest.raises(StateError, match="damaged"):
            StateDirectory(directory.path).join(1)
        path.write_bytes(whole[:at])
        with pytest.raises(StateError, match="damaged"):
            StateDirectory(directory.path).join(1)


def test_a_file_that_is_gone_is_damage(tmp_path: Path) -> None:
    directory = _saved(tmp_path)
    os.unlink(directory.path_of(1, "2-aggregate.state"))
    with pytest.raises(StateError, match="checkpoint 1 is damaged"):
        directory.newest()


def test_run_and_epoch_numbers_are_never_used_again(tmp_path: Path) -> None:
    """Not even those of a checkpoint that was never completed, and whose folder has gone."""
    directory = _saved(tmp_path)
    directory.save(9, "2-aggregate.state", b"")
    directory.leave()
    second = StateDirectory(directory.path)
    run = second.begin()
    assert (run.number, run.epoch) == (2, 10)
    assert run.restore is not None
    assert run.restore.epoch == 1
    assert os.listdir(os.path.join(directory.path, "epochs")) == ["1"]
    second.leave()
    assert StateDirectory(directory.path).begin().epoch == 11


def test_a_checkpoint_that_is_found_is_made_safe_before_it_is_redone(tmp_path: Path) -> None:
    """Whoever gave the manifest its name may have died before its folder was synced."""
    directory = _saved(tmp_path)
    directory.leave()
    with mock.patch("clickpipe.state.epochs.sync_folder") as synced:
        StateDirectory(directory.path).begin()
    epochs = os.path.join(directory.path, "epochs")
    assert [call.args[0] for call in synced.mock_calls] == [os.path.join(epochs, "1"), epochs]


def test_a_newer_run_keeps_older_processes_out(tmp_path: Path) -> None:
    directory = _saved(tmp_path)
    with pytest.raises(OutsideError, match="a newer run has begun"):
        StateDirectory(directory.path).join(0)
    StateDirectory(directory.path).join(1)


def test_state_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "c").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PlanError, match="symbolic link"):
        StateDirectory(str(tmp_path / "pipelines" / "c")).begin()


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "x" * 101, "a\nb"])
def test_a_pipeline_cannot_be_called_like_a_path(name: str) -> None:
    with pytest.raises(PlanError, match="cannot be called"):
        pipeline_directory(name)


def test_an_append_that_is_repeated_is_one(tmp_path: Path) -> None:
    """Also over what an append that was cut short has left behind, however long."""
    path = tmp_path / "late.ndjson"
    assert append_at(str(path), 0, b"one\n") == 4
    for left in (b"tw", b"three\nand four\n"):
        path.write_bytes(b"one\n" + left)
        for _ in range(2):
            assert append_at(str(path), 4, b"two\n") == 8
            assert path.read_bytes() == b"one\ntwo\n"


FAILS = OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_file_whose_fsync_fails_is_not_there(tmp_path: Path) -> None:
    with mock.patch("os.fsync", side_effect=FAILS), pytest.raises(DiskError, match="Input/output error"):
        write_whole(str(tmp_path / "x.state"), b"x", "state")
    assert os.listdir(tmp_path) == []


def test_an_append_whose_fsync_fails_is_said_to(tmp_path: Path) -> None:
    path = str(tmp_path / "late.ndjson")
    append_at(path, 0, b"one\n")
    folders = mock.patch("clickpipe.state.files.sync_directory")  # only the file's own
    with folders, mock.patch("os.fsync", side_effect=FAILS), pytest.raises(DiskError, match="Input/output error"):
        append_at(path, 4, b"two\n")


def test_a_run_waits_for_every_process_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the one that began it, and for those that joined."""
    monkeypatch.setattr(directory_module, "_PATIENCE", 0.0)
    directory = _saved(tmp_path)
    _is_waited_for(directory)
    joined = StateDirectory(directory.path)
    joined.join(1)
    directory.leave()
    _is_waited_for(joined)
    joined.leave()
    assert StateDirectory(directory.path).begin().number == 2


def _is_waited_for(directory: StateDirectory) -> None:
    other = StateDirectory(directory.path)
    with pytest.raises(OutsideError, match="an earlier run still lives"):
        other.begin()
    other.leave()


class _Idle(Writer):
    """A sink with nothing to write."""


def _committer(checkpoints: Checkpoints) -> Committer:
    return Committer("c", checkpoints, _Idle(), "stdout", Place(3, "sink", "-"), lambda _: None)


def _committed(directory: StateDirectory, *epochs: int, restore: Manifest | None = None) -> list[int]:
    """By a process that goes on from `restore`: the newest manifest at each commit."""
    found: list[int] = []

    class Watched(Commits):
        def commit(self, said: Mapping[str, Any]) -> None:
            found.extend([manifest.epoch for manifest in directory.manifests()][:1])

    with mock.patch("clickpipe.sinks.stdout.Stdout.commits", Watched):
        checkpoints = Checkpoints(directory, 1, restore)
        committer = _committer(checkpoints)
        for epoch in epochs:
            committer.put(Barrier(epoch, ()), [], set(), ended=False)
        committer.close()
        checkpoints.close()
    return found


def test_a_sink_commits_when_the_manifest_is_there(tmp_path: Path) -> None:
    assert _committed(_saved(tmp_path), 2, 3) == [2, 3]


def test_a_start_finishes_what_the_manifest_names(tmp_path: Path) -> None:
    """Before it does anything else: whoever wrote it may have died before."""
    directory = _saved(tmp_path)
    _committed(directory, 2)
    assert _committed(directory, 3, restore=directory.newest()) == [2, 3]


@pytest.mark.parametrize(
    "entry",
    [
        {"hop": 2, "state": {"stem": "2-aggregate.1"}},
        {"hop": 2, "append": {"file": "2-late.ndjson", "bytes": 1, "hash": "…", "to": "/nowhere"}},
        {"hop": 2, "sink": "file", "staged": {}, "appears": "/nowhere-to-be-seen"},
    ],
    ids=["state", "append", "staged"],
)
def test_a_checkpoint_waits_for_its_files(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not come leaves no manifest behind."""
    monkeypatch.setattr(commit_module, "_GRACE", 0.0)
    monkeypatch.setattr(commit_module, "_are_gone", lambda _: True)
    directory = _saved(tmp_path)
    checkpoints = Checkpoints(directory, 1, None)
    committer = _committer(checkpoints)
    committer.put(Barrier(2, (entry,)), [], set(), ended=False)
    with pytest.raises(OutsideError, match=r" did not come"):
        committer.close()
    checkpoints.close()
    assert directory.manifest(2) is None


def test_a_state_file_of_another_run_is_not_waited_for(tmp_path: Path) -> None:
    """One that a process left behind which was slow to die, under the number of the same checkpoint."""
    directory = _saved(tmp_path)
    stems = [_stem_of_state(directory, run=1), _stem_of_state(directory, run=11)]
    found = [directory.state_file(7, stem) for stem in (*stems, "2-aggregate.111")]
    assert [file is not None and file["file"].startswith(f"{stem}.") for file, stem in zip(found, stems, strict=False)] == [
        True,
        True,
    ]
    assert found[0] != found[1]
    assert found[2] is None


def _stem_of_state(directory: StateDirectory, run: int) -> str:
    """What a barrier says of the state of a step; the file is there."""
    checkpoints = Checkpoints(directory, run, None)
    _, entry = checkpoints.entries(7, [(Place(2, "aggregate", ""), TABLES)], set())
    checkpoints.close()
    return str(entry["state"]["stem"])


def test_a_limit_that_was_reached_before_ends_at_a_new_checkpoint() -> None:
    """Its run sees no barrier: the number that it ends with is one behind the checkpoint that it goes on from."""
    run = object.__new__(local._Run)
    run._checkpoints = SimpleNamespace(restore=SimpleNamespace(ended=False), close=lambda: None)  # type: ignore[assignment]
    run._feed = SimpleNamespace(last=None, restore=5, is_stopped=False)  # type: ignore[assignment]
    run._last_epoch = 0
    run._extended = lambda barrier, **_: barrier  # type: ignore[method-assign]
    assert run._last_barrier() == Barrier(6)


def test_no_checkpoint_is_no_interval() -> None:
    with pytest.raises(PlanError, match="--checkpoint must be longer than 0s"):
        Ingest(("in.ndjson",), checkpoint=Duration(0)).open()


def test_a_part_is_seen_when_it_is_committed(tmp_path: Path) -> None:
    """And not when it is durable: the manifest comes between."""
    parts = Parts(str(tmp_path / "out.ndjson"))
    parts.begin(0, None)
    file = parts.stage()
    file.write(b"{}\n")
    said = parts.said(5, has_rows=True, begun=True, ended=False)
    parts.durable(file, 5)
    assert os.listdir(tmp_path / "out.ndjson.parts") == [".000000000005.part"]
    parts.commit(said)
    assert os.listdir(tmp_path / "out.ndjson.parts") == ["000000000005.ndjson"]


def test_parts_that_no_checkpoint_knows_of_stop_a_run(tmp_path: Path) -> None:
    """Going on would give their rows again."""
    path = str(tmp_path / "out.ndjson")
    parts = Parts(path)
    parts.begin(0, None)
    file = parts.stage()
    file.write(b"{}\n")
    said = parts.said(5, has_rows=True, begun=True, ended=False)
    parts.durable(file, 5)
    parts.commit(said)
    with pytest.raises(StateError, match="results up to checkpoint 5"):
        Parts(path).begin(4, said | {"parts": 0})
    Parts(path).begin(5, said)


def test_a_late_record_right_behind_a_checkpoint_is_late(tmp_path: Path) -> None:
    """The first record of a run is measured by what the runs before have seen."""
    frames = _gone_on(tmp_path, [(60_000, 60_001, 0)], after=2)
    assert frames[-1]["_mark"].to_list() == [1_767_225_660_001]


def test_a_file_is_measured_by_itself_behind_a_checkpoint_too(tmp_path: Path) -> None:
    """The stream's watermark waits for the second file; a record of the first is late by what that one had seen."""
    frames = _gone_on(tmp_path, [(0, 60_000, 60_001, 55_000), (50_000,)], after=3)
    assert frames[0]["_mark"].to_list() == [1_767_225_660_001]


def _gone_on(folder: Path, files: list[tuple[int, ...]], after: int) -> list[pl.DataFrame]:
    """The records that a run reads which goes on from a checkpoint behind the first `after` records, one by one."""
    for number, times in enumerate(files):
        text = "".join(json.dumps({"ts": 1_767_225_600_000 + n}) + "\n" for n in times)
        (folder / f"{number}.ndjson").write_text(text)
    paths = tuple(str(folder / f"{number}.ndjson") for number in range(len(files)))
    step = Ingest(paths, time="ts", batch_bytes=Size(1), checkpoint=Duration(1))
    feed = step.open()
    feed.epochs = count(1)
    barrier = None
    for _, pull in zip(range(after), feed.pulls(), strict=False):
        barrier = pull.barrier or barrier
        time.sleep(0.01)  # longer than a checkpoint takes to be due
    feed.close()
    assert barrier is not None
    return [batch.frame for pull in step.open(barrier.state[0]["source"]).pulls() for batch in pull.batches if batch.height]


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    directory = _saved(tmp_path)
    line = Path(directory.path_of(1, "MANIFEST.json")).read_bytes().split(b"\n")[0].replace(b'"v":1', b'"v":2') + b"\n"
    Path(directory.path_of(1, "MANIFEST.json")).write_bytes(line + digest(line).encode() + b"\n")
    with pytest.raises(StateError, match="format version 2"):
        directory.newest()
    with pytest.raises(ClickpipeError, match="version 9"):
        snapshot.from_bytes(snapshot.to_bytes("x", TABLES).replace(b'"v":1', b'"v":9', 1))
