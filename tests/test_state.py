"""What outlives a process is whole or known not to be: every byte changed, every length cut."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from clickpipe.errors import ClickpipeError, OutsideError, PlanError, StateError
from clickpipe.state import snapshot
from clickpipe.state.directory import StateDirectory
from clickpipe.state.files import append_at
from clickpipe.state.home import pipeline_directory
from clickpipe.state.manifest import Manifest, digest

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
    """Also over what an append that was cut short has left behind."""
    path = tmp_path / "late.ndjson"
    assert append_at(str(path), 0, b"one\n") == 4
    path.write_bytes(b"one\ntw")
    for _ in range(2):
        assert append_at(str(path), 4, b"two\n") == 8
        assert path.read_bytes() == b"one\ntwo\n"


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    directory = _saved(tmp_path)
    line = Path(directory.path_of(1, "MANIFEST.json")).read_bytes().split(b"\n")[0].replace(b'"v":1', b'"v":2') + b"\n"
    Path(directory.path_of(1, "MANIFEST.json")).write_bytes(line + digest(line).encode() + b"\n")
    with pytest.raises(StateError, match="format version 2"):
        directory.newest()
    with pytest.raises(ClickpipeError, match="version 9"):
        snapshot.from_bytes(snapshot.to_bytes("x", TABLES).replace(b'"v":1', b'"v":9', 1))
