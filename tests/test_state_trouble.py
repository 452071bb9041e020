"""State that is not where or what it should be: the run halts, says why, and names the way out."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from clickpipe.errors import OutsideError, PlanError
from clickpipe.state.directory import StateDirectory
from clickpipe.state.files import hold
from clickpipe.state.trust import file_system_of, is_network
from clickpipe.store import viewread, views
from clickpipe.testing import environment, run_steps

LINE = "ingest in.ndjson --time ts --batch-bytes 1KiB --name c --checkpoint 1ms {more}| filter 'id >= 0' | sink {sink}"
MOUNTS = """\
21 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
22 21 0:20 / /proc rw - proc proc rw
30 21 0:40 / /mnt/share rw,relatime shared:7 master:1 - nfs4 server:/export rw
31 30 0:41 / /mnt/share/disk rw - xfs /dev/sdb rw
32 21 0:42 / /mnt/with\\040space rw - fuse.sshfs me@host:/ rw
33 21 0:43 / /twice rw - tmpfs none rw
34 33 0:44 / /twice rw - cifs //server/share rw
odd line
"""


def _prepared(directory: Path) -> Path:
    lines = [f'{{"ts":{1_767_225_600_000 + n},"id":{n},"page":"/p/{n % 7}"}}' for n in range(300)]
    (directory / "in.ndjson").write_text("\n".join([*lines[:150], "oops", *lines[150:]]) + "\n")
    return directory


def _run(directory: Path, more: str = "", kill: str = "", sink: str = "out.ndjson") -> int:
    line = LINE.format(more=f"{more} " if more else "", sink=sink)
    return run_steps([["run", "-q", "--restart", "no", "-c", line]], directory, kill={0: kill} if kill else None)[0]


def _said(directory: Path) -> str:
    return (directory / ".stderr").read_text()


def _killed(directory: Path, sink: str = "out.ndjson") -> Path:
    """A run that was killed after some checkpoints; where its state is."""
    assert _run(_prepared(directory), kill="after-commit:3", sink=sink) == -signal.SIGKILL, _said(directory)
    return directory / ".home" / "pipelines" / "c"


def _newest(state: Path) -> Path:
    """The newest checkpoint that is complete."""
    return max((path.parent for path in state.glob("epochs/*/MANIFEST.json")), key=lambda path: int(path.name))


def _replace_by_link(path: Path) -> Path:
    """A copy elsewhere, and a link to it: to follow it would go well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    elsewhere = path.parent.parent / f"elsewhere-{path.name}"
    if path.exists():
        path.rename(elsewhere)
    path.symlink_to(elsewhere)
    return elsewhere


@pytest.mark.parametrize(
    ("path", "fix"),
    [(".", "directory"), ("lock", ""), ("start.lock", ""), ("identity.json", ""), ("epochs", "directory"), ("late.ndjson", "")],
)
def test_a_link_in_the_state_is_not_followed(path: str, fix: str, tmp_path: Path) -> None:
    state = _killed(tmp_path)
    elsewhere = _replace_by_link(state / path if path != "." else state)
    before = elsewhere.read_bytes() if elsewhere.is_file() else None
    assert _run(tmp_path) == 2, _said(tmp_path)
    assert "is a symbolic link: state must not lead elsewhere" in _said(tmp_path)
    if before is None and not fix:
        assert not elsewhere.exists()
    elif before is not None:
        assert elsewhere.read_bytes() == before


def test_a_checkpoint_behind_a_link_is_not_read(tmp_path: Path) -> None:
    state = _killed(tmp_path)
    for path in (_newest(state) / "MANIFEST.json", _newest(state)):
        elsewhere = _replace_by_link(path)
        assert _run(tmp_path) == 2
        assert f"{path} is a symbolic link" in _said(tmp_path)
        path.unlink()
        elsewhere.rename(path)
    assert _run(tmp_path) == 0, _said(tmp_path)


@pytest.mark.parametrize("with_checkpoints", [True, False])
def test_dead_letters_of_a_first_run_do_not_follow_a_link(with_checkpoints: bool, tmp_path: Path) -> None:
    _prepared(tmp_path)
    elsewhere = _replace_by_link(tmp_path / ".home" / "pipelines" / "c" / "dead.ndjson")
    line = LINE.format(more="", sink="out.ndjson")
    line = line if with_checkpoints else line.replace("--checkpoint 1ms ", "")
    assert run_steps([["run", "-q", "--restart", "no", "-c", line]], tmp_path) == [2], _said(tmp_path)
    assert "is a symbolic link" in _said(tmp_path)
    assert not elsewhere.exists()


def test_what_a_person_names_may_be_a_link(tmp_path: Path) -> None:
    """The home, the file of the results, that of the dead letters."""
    _prepared(tmp_path)
    for name in ("out.ndjson", "dead.ndjson"):
        (tmp_path / f"real-{name}").touch()
        (tmp_path / name).symlink_to(f"real-{name}")
    (tmp_path / "real-home").mkdir()
    (tmp_path / ".home").symlink_to("real-home")
    for number in range(2):
        assert _run(tmp_path, f"--dead-letter dead.ndjson {'--reset' if number else ''}") == 0, _said(tmp_path)
        assert (tmp_path / "out.ndjson").is_symlink()
        assert len((tmp_path / "real-out.ndjson").read_text().splitlines()) == 300
        assert (tmp_path / "dead.ndjson").is_symlink()
        assert len((tmp_path / "real-dead.ndjson").read_text().splitlines()) == 1


@pytest.mark.parametrize("name", ["out.ndjson.parts", "out.ndjson.parts/000000000001.ndjson"])
def test_parts_of_results_behind_a_link_are_refused(name: str, tmp_path: Path) -> None:
    _killed(tmp_path)
    _replace_by_link(tmp_path / name)
    assert _run(tmp_path) == 2
    assert f"{name} is a symbolic link" in _said(tmp_path)


def test_a_file_where_the_state_would_go(tmp_path: Path) -> None:
    _prepared(tmp_path)
    (tmp_path / ".home").write_text("")
    assert _run(tmp_path) == 2
    assert "is no directory, and state would go there" in _said(tmp_path)
    assert "CLICKPIPE_HOME names another place" in _said(tmp_path)


def test_a_place_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(PlanError, match=f"state would go to {tmp_path}, a directory that is not writable"):
        StateDirectory(str(tmp_path / "pipelines" / "c")).begin()


def test_state_of_another_user(tmp_path: Path) -> None:
    state = _killed(tmp_path)
    try:
        os.chown(state, 65_534, -1)
    except PermissionError:
        pytest.skip("only root can give files away")
    assert _run(tmp_path) == 2
    assert f"{state} belongs to another user (uid 65534)" in _said(tmp_path)


def _shell(directory: Path, line: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*words, "bash", "-c", line], cwd=directory, env=environment(directory), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("what", ["state", "results"])
def test_a_file_system_that_is_read_only(what: str, tmp_path: Path) -> None:
    _prepared(tmp_path)
    folder = ".home" if what == "state" else "out"
    (tmp_path / folder).mkdir()
    sink = "out/out.ndjson" if what == "results" else "x.ndjson"
    command = f'{sys.executable} -m clickpipe run -q --restart no -c "{LINE.format(more="", sink=sink)}"'
    done = _shell(tmp_path, f"mount -t tmpfs -o ro none {folder} || exit 99; {command}", "unshare", "-Urm")
    if done.returncode in (1, 99):
        pytest.skip(f"user namespaces are not allowed here: {done.stderr.strip()}")
    assert done.returncode == 2, done.stderr
    assert "read-only" in done.stderr if what == "state" else "not writable" in done.stderr


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me", "ext4"),
        ("/mnt/share", "nfs4"),
        ("/mnt/share/a/b", "nfs4"),
        ("/mnt/shared", "ext4"),
        ("/mnt/share/disk/state", "xfs"),
        ("/mnt/with space/x", "fuse.sshfs"),
        ("/twice/x", "cifs"),
        ("/proc", "proc"),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert file_system_of(path, MOUNTS) == kind


def test_which_file_systems_are_refused() -> None:
    assert all(map(is_network, "nfs nfs4 cifs smb3 9p ceph afs lustre fuse fuse.sshfs fuse.glusterfs fuse.x glusterfs".split()))
    assert not any(map(is_network, "ext4 xfs btrfs zfs tmpfs overlay f2fs fuseblk fuse.fuse-overlayfs".split()))
    assert not is_network("")


def test_state_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clickpipe.state.trust.file_system_of", lambda *_: "nfs4")
    with pytest.raises(PlanError, match=r"its locks and its fsync promise less .*nfs4"):
        StateDirectory(str(tmp_path / "pipelines" / "c")).begin()
    assert not (tmp_path / "pipelines").exists()
    assert StateDirectory(str(tmp_path / "pipelines" / "c")).begin(anywhere=True).number == 1


def test_the_option_takes_any_file_system(tmp_path: Path) -> None:
    assert _run(_prepared(tmp_path), "--allow-fs") == 0, _said(tmp_path)


def test_an_identity_that_is_gone(tmp_path: Path) -> None:
    """Without it run numbers would begin again, and a process of an old run could pass for a new one's."""
    state = _killed(tmp_path)
    (state / "identity.json").unlink()
    assert _run(tmp_path) == 78
    assert "identity.json is gone, and checkpoints are there" in _said(tmp_path)
    assert _run(tmp_path, "--reset") == 0, _said(tmp_path)


def test_a_damaged_manifest_halts_the_run(tmp_path: Path) -> None:
    """An older checkpoint is not taken in silence: the results are further on."""
    state = _killed(tmp_path)
    (_newest(state) / "MANIFEST.json").write_text("x")
    assert _run(tmp_path) == 78
    assert "is damaged: MANIFEST.json" in _said(tmp_path)
    assert "back from a copy" in _said(tmp_path)
    assert "--reset" in _said(tmp_path)


def test_a_device_is_not_renamed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert _run(_prepared(tmp_path), sink="pipe") == 2
    assert "pipe is a device or pipe: not with --checkpoint" in _said(tmp_path)
    assert (tmp_path / "pipe").is_fifo()
    assert _run(tmp_path, "--dead-letter /dev/full") == 74
    assert "/dev/full: No space left on device" in _said(tmp_path)


@pytest.mark.parametrize("change", ["shrunk", "gone"])
def test_input_that_is_not_what_it_was(change: str, tmp_path: Path) -> None:
    _killed(tmp_path)
    path = tmp_path / "in.ndjson"
    path.write_bytes(path.read_bytes()[:100]) if change == "shrunk" else path.unlink()
    assert _run(tmp_path) == (78 if change == "shrunk" else 2)
    assert "in.ndjson has shrunk: " in _said(tmp_path) if change == "shrunk" else "No such file" in _said(tmp_path)


@pytest.mark.parametrize("damage", ["gone", "older", "garbage", "link"])
def test_a_view_that_is_not_what_it_was(damage: str, tmp_path: Path) -> None:
    """It is never made anew with only the rows that are still to come."""
    _killed(tmp_path, "view:ids --key id")
    path = tmp_path / ".home" / "views" / "ids.sqlite"
    copy = path.with_name("copy.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    connection.close()
    for file in path.parent.glob("ids.sqlite*"):
        file.unlink()
    if damage == "older":
        with sqlite3.connect(copy) as connection:
            connection.execute("UPDATE _marker SET epoch = epoch - 2")
        connection.close()
        copy.rename(path)
    elif damage == "garbage":
        path.write_bytes(b"x" * 8192)
    elif damage == "link":
        path.symlink_to("copy.sqlite")
    assert _run(tmp_path, sink="view:ids --key id") == (2 if damage == "link" else 78), _said(tmp_path)
    words = {"gone": "is empty or was deleted", "older": "only, and those", "garbage": "not a database", "link": "symbolic link"}
    assert words[damage] in _said(tmp_path)
    if damage in ("gone", "older"):
        assert _run(tmp_path, "--reset", sink="view:ids --key id") == 0, _said(tmp_path)


def test_a_view_takes_all_rows_of_a_checkpoint_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path))
    view = views.View("ids", {"id": "int", "x": "int"}, ["id"])
    rows = pl.DataFrame({"id": [1, 2], "x": [1, 2**70]}, schema={"id": pl.Int64, "x": pl.Int128})
    with pytest.raises(OverflowError):
        view.apply(rows, views.Marker("a", 1), anew=True)
    assert view.marker() is None
    view.apply(rows.head(0), views.Marker("a", 1), anew=False)
    assert viewread.read("ids").height == 0
    view.close()


def test_a_view_that_is_taken_away_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path))
    view = views.View("ids", {"id": "int"}, ["id"])
    view.apply(pl.DataFrame({"id": [1]}), views.Marker("a", 1), anew=True)
    Path(views.path_of("ids")).unlink()
    with pytest.raises(views.StateError, match="was taken away while it was written to"):
        view.apply(pl.DataFrame({"id": [2]}), views.Marker("a", 2), anew=False)
    view.close()


def test_a_view_that_another_process_writes_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path))
    monkeypatch.setattr(views, "PATIENCE", 0.1)
    view = views.View("ids", {"id": "int"}, ["id"])
    other = sqlite3.connect(views.path_of("ids"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OutsideError, match="another process has held it"):
        view.apply(pl.DataFrame({"id": [1]}), views.Marker("a", 1), anew=True)
    other.execute("ROLLBACK")
    view.apply(pl.DataFrame({"id": [1]}), views.Marker("a", 1), anew=True)
    assert viewread.read("ids").height == 1
    other.close()
    view.close()


def test_two_pipelines_into_one_file(tmp_path: Path) -> None:
    """The second is refused, whether the first one runs or not; until that has ended."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.ndjson").write_text("".join(json.dumps({"n": n, "who": name}) + "\n" for n in range(3_000)))
    line = "ingest {0}.ndjson --name {0} --batch-bytes 2KiB --checkpoint 1ms | sink same.ndjson"
    steps = {name: [["run", "-q", "--restart", "no", "-c", line.format(name)]] for name in ("a", "b")}
    assert run_steps(steps["a"], tmp_path, kill={0: "after-commit:3"}) == [-9]
    assert run_steps(steps["b"], tmp_path) == [78]
    assert "same.ndjson is written by another pipeline, a" in (tmp_path / ".stderr").read_text()
    assert run_steps(steps["a"], tmp_path) == [0]
    assert (tmp_path / "same.ndjson").read_text() == (tmp_path / "a.ndjson").read_text()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ingest in.ndjson --dead-letter in.ndjson | sink -", "--dead-letter in.ndjson is the input itself"),
        ("ingest in.ndjson --dead-letter x | sink x", "that is where dead letters go"),
        ("ingest in.ndjson --time ts | window tumble 1m --late x | sink ./x", "that is where late records go"),
        ("ingest in.ndjson | sink in.ndjson", "that is the input"),
        ("ingest in.ndjson | sink in.ndjson --pass | sink -", "that is the input"),
    ],
)
@pytest.mark.parametrize("more", ["", " --checkpoint 1s"])
def test_nothing_is_written_over_what_else_a_pipeline_uses(line: str, said: str, more: str, tmp_path: Path) -> None:
    data = '{"ts":1}\noops\n'
    (tmp_path / "in.ndjson").write_text(data)
    words = line.replace("in.ndjson", f"in.ndjson{more}", 1)
    assert run_steps([["run", "-q", "--restart", "no", "-c", words]], tmp_path) == [2]
    assert said in (tmp_path / ".stderr").read_text()
    assert (tmp_path / "in.ndjson").read_text() == data


def test_two_pipelines_with_one_file_for_dead_letters(tmp_path: Path) -> None:
    """While one of them runs it is its own, and what another has added is not written over."""
    (tmp_path / "in.ndjson").write_text('{"n":1}\noops\n' * 1_000)
    line = "ingest in.ndjson --name {0} --batch-bytes 1KiB --checkpoint 1ms --dead-letter dead | sink {0}.ndjson"
    steps = {name: [["run", "-q", "--restart", "no", "-c", line.format(name)]] for name in ("a", "b")}
    assert run_steps(steps["a"], tmp_path, kill={0: "after-commit:3"}) == [-9]
    held = hold(str(tmp_path / "dead"))
    try:
        for name in ("a", "b"):
            assert run_steps(steps[name], tmp_path) == [75]
            assert "dead is written by another pipeline" in (tmp_path / ".stderr").read_text()
    finally:
        os.close(held)
    with open(tmp_path / "dead", "a") as file:
        file.write("another's\n")
    assert run_steps(steps["a"], tmp_path) == [78]
    assert "has grown since checkpoint" in (tmp_path / ".stderr").read_text()
    (tmp_path / "dead").write_text((tmp_path / "dead").read_text().replace("another's\n", ""))
    assert run_steps(steps["a"], tmp_path) == [0]
    assert len((tmp_path / "dead").read_text().splitlines()) == 1_000
