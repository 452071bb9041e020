"""clickpipe doctor: what it looks at on this machine, and what it would say of others."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from sqlite3 import OperationalError
from typing import Any

import pytest
from running import PIPELINE, Start, children_of, epoch, until

from clickpipe.cli.doctor import (
    cgroup,
    clock,
    compiled,
    filesystem,
    fsync,
    interpreter,
    leftovers,
    libraries,
    locks,
    machine,
    openfiles,
    pipes,
    sqlite,
    terminal,
    trial,
)
from clickpipe.cli.doctor.checks import CHECKS
from clickpipe.cli.doctor.verdict import BAD, NOTE, OK, Check, Verdict, ok
from clickpipe.errors import DiskError
from clickpipe.state.directory import StateDirectory
from clickpipe.testing import environment

GIB = 1 << 30


def _doctor(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clickpipe", "doctor", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(folder, **more), check=False)


def _objects(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {one["check"]: one for one in map(json.loads, done.stdout.splitlines())}


# As a whole


def test_each_check_has_its_line_and_remedies_stand_below(tmp_path: Path) -> None:
    done = _doctor(tmp_path)
    names = re.findall(r"^(?:ok|note|bad) {2,4}((?:\S| (?! ))+)  ", done.stdout, re.MULTILINE)
    assert names == [check.name for check in CHECKS]
    lines = done.stdout.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert re.match(r"ok  |note|bad | {19}\S", line)
        assert not line.startswith(("note", "bad")) or following.startswith(" " * 19) or "could not be tried" in line
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""


def test_who_has_read_enough_may_leave(tmp_path: Path) -> None:
    script = f"set -o pipefail; {sys.executable} -m clickpipe doctor | head -1"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, env=environment(tmp_path), check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok    python ")


def test_programs_are_given_what_was_found(tmp_path: Path) -> None:
    told = _objects(_doctor(tmp_path, "--json"))
    assert list(told) == [check.name for check in CHECKS]
    assert all(set(one) == {"check", "verdict", "text", "remedies", "found"} for one in told.values())
    assert told["file system"]["found"]["path"] == str(tmp_path / ".home")
    assert len(told["fsync"]["found"]["seconds"]) > 1
    assert told["python"]["found"]["python"] == list(sys.version_info[:3])
    assert told["locks"]["found"] == {"excludes": True, "is_told": True, "replaces": True}
    assert told["sqlite"]["found"]["journal"] == "wal"


def test_nothing_that_was_tried_stays(tmp_path: Path) -> None:
    (tmp_path / ".home").mkdir()
    _doctor(tmp_path)
    assert list((tmp_path / ".home").iterdir()) == []


def test_a_home_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    assert _objects(_doctor(tmp_path, "--json"))["file system"]["verdict"] == OK
    assert not (tmp_path / ".home").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_one_is_bad_and_the_rest_is_told(tmp_path: Path) -> None:
    (tmp_path / ".home").write_text("a file")
    done = _doctor(tmp_path, "--json")
    assert done.returncode == 75
    told = _objects(done)
    assert told["file system"]["verdict"] == BAD
    assert len(told) == len(CHECKS)


@pytest.mark.parametrize("name", ["red\x1b[31m", "a\nb", os.fsdecode(b"\xff"), '"quoted"', "spaces in it"])
def test_a_hostile_home_is_shown_harmless(name: str, tmp_path: Path) -> None:
    home = str(tmp_path / name)
    done = _doctor(tmp_path, CLICKPIPE_HOME=home)
    assert done.returncode == 0, done.stderr
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert _objects(_doctor(tmp_path, "--json", CLICKPIPE_HOME=home))["file system"]["verdict"] == OK


def test_what_cannot_be_looked_at_is_a_note() -> None:
    def look(_: str) -> None:
        raise DiskError("home: Input/output error")

    verdict, found = Check("disk", look, lambda _: ok("")).run("home")
    assert (verdict, found) == (Verdict(NOTE, "could not be tried: home: Input/output error"), None)


def test_a_trial_ends_without_a_trace_when_a_signal_comes(tmp_path: Path) -> None:
    script = (
        "import sys, time; from clickpipe.cli.doctor.trial import trial; from clickpipe.stopping import clean_up\n"
        "with trial(sys.argv[1]) as folder:\n"
        "    open(folder + '/file', 'w').close(); clean_up(); import os; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert list(tmp_path.iterdir()) == []


# Verdicts


def _marks(verdict: Any, *cases: tuple[Any, str, str]) -> None:
    """Of each that was found the mark, and words that must be in the text or below it; whoever is not ok is told what to do."""
    for found, mark, words in cases:
        said = verdict(found)
        assert said.mark == mark, said
        assert words in "\n".join([said.text, *said.remedies])
        assert (mark == OK) == (not said.remedies), said


def test_python() -> None:
    found = interpreter.Found("0.1.0", (3, 11, 2), "CPython", "Linux", "x86_64")
    _marks(
        interpreter.verdict,
        (found, OK, "CPython 3.11.2"),
        (replace(found, python=(3, 10, 9)), BAD, "3.11 or newer"),
        (replace(found, system="Darwin"), NOTE, "Linux only"),
    )


def test_libraries() -> None:
    polars = libraries.Library("polars", ">=2.1,<2.2", "2.1.0")
    _marks(
        libraries.verdict,
        ([polars], OK, "polars 2.1.0"),
        ([replace(polars, version="2.1.7")], OK, "polars 2.1.7"),
        ([replace(polars, version="2.2.0")], NOTE, "pip install 'polars>=2.1,<2.2'"),
        ([replace(polars, version="2.0.9")], NOTE, "polars 2.0.9"),
        ([replace(polars, version=None)], BAD, "pip install polars"),
        ([replace(polars, trouble="ImportError: illegal instruction")], BAD, "illegal instruction"),
    )


def test_every_library_that_is_needed_is_looked_at() -> None:
    found = {one.name: one for one in libraries.look("")}
    assert {"polars", "orjson", "zstandard", "sqlglot", "click"} <= set(found)
    assert "deltalake" not in found
    assert found["polars"].needed


def test_modules_that_are_not_compiled() -> None:
    found = compiled.Found(500, 500, ("/opt/clickpipe",), False)
    _marks(
        compiled.verdict,
        (found, OK, "500"),
        (replace(found, compiled=499), OK, ""),
        (replace(found, compiled=100), NOTE, "-m compileall -q /opt/clickpipe"),
        (replace(found, compiled=100, is_switched_off=True), NOTE, "PYTHONDONTWRITEBYTECODE"),
    )


def test_an_installation_without_compiled_modules_is_seen(tmp_path: Path) -> None:
    """PYTHONPYCACHEPREFIX names a place that has none."""
    more = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(tmp_path / "cache")}
    told = _objects(_doctor(tmp_path, "--json", **more))["compiled"]
    assert told["verdict"] == NOTE
    assert told["found"]["compiled"] == 0


def test_cores_and_memory() -> None:
    found = machine.Found(8, None, "", 16 * GIB, 12 * GIB, None)
    _marks(
        machine.verdict,
        (found, OK, "8 cores"),
        (replace(found, cores_allowed=8.0), OK, "8 cores"),
        (replace(found, cores_allowed=1.5), NOTE, "POLARS_MAX_THREADS=2"),
        (replace(found, cores_allowed=1.5, threads="2"), OK, "allows 1.5"),
        (replace(found, free_bytes=300 << 20), NOTE, "clickpipe run"),
        (replace(found, memory_allowed=64 << 20), BAD, "the control group allows 64 MiB"),
        (replace(found, memory_bytes=None, free_bytes=None), OK, "8 cores"),
    )


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({}, None, None),
        (
            {"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "max 100000\n", "/sys/fs/cgroup/memory.max": "max\n"},
            None,
            None,
        ),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5, None),
        (
            {
                "/proc/self/cgroup": "0::/a.slice/b.service\n",
                "/sys/fs/cgroup/a.slice/memory.max": "1048576\n",
                "/sys/fs/cgroup/a.slice/b.service/memory.max": "2097152\n",
                "/sys/fs/cgroup/a.slice/b.service/cpu.max": "400000 100000\n",
                "/sys/fs/cgroup/a.slice/cpu.max": "200000 100000\n",
            },
            2.0,
            1 << 20,
        ),
        (
            {
                "/proc/self/cgroup": "4:memory:/docker/1\n1:cpu,cpuacct:/docker/1\n",
                "/sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "50000\n",
                "/sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n",
                "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "9223372036854771712\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
            },
            0.5,
            GIB,
        ),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "nonsense\n", "/sys/fs/cgroup/memory.max": "-1"}, None, None),
    ],
)
def test_limits_of_control_groups_of_both_versions(files: dict[str, str], cores: float | None, memory: int | None) -> None:
    assert cgroup.limits(files.get) == cgroup.Limits(cores, memory)


def test_file_systems() -> None:
    found = filesystem.Found("/state", "ext4", False, "", 100 * GIB, 1_000_000, 900_000)
    _marks(
        filesystem.verdict,
        (found, OK, "/state on ext4, 100.0 GiB free"),
        (replace(found, kind="nfs4"), BAD, "--allow-fs"),
        (replace(found, kind="fuse.sshfs"), BAD, "network"),
        (replace(found, kind="tmpfs"), NOTE, "memory"),
        (replace(found, kind="overlay"), NOTE, "mount a volume"),
        (replace(found, kind=""), OK, "/state"),
        (replace(found, is_read_only=True), BAD, "read-only"),
        (replace(found, trouble="Permission denied"), BAD, "Permission denied"),
        (replace(found, free_bytes=0, trouble="No space left on device"), BAD, "the disk is full"),
        (replace(found, free_bytes=500 << 20), NOTE, "keep 1 GiB free"),
        (replace(found, free_inodes=3), BAD, "3 free inodes"),
        (replace(found, free_inodes=5_000), NOTE, "5,000 free inodes"),
        (replace(found, inodes=0, free_inodes=0), OK, "/state"),  # btrfs makes them as needed
    )


def test_how_long_fsync_takes() -> None:
    found = fsync.Found((0.001,) * 20, False)
    _marks(
        fsync.verdict,
        (found, OK, "1.0 ms"),
        (replace(found, seconds=(0.001,) * 19 + (0.3,)), OK, "at worst 300 ms"),
        (replace(found, seconds=(0.020,) * 20), NOTE, "--checkpoint 1s"),
        (replace(found, seconds=(0.100,) * 20), NOTE, "waits 1.0 s for it"),
        (replace(found, seconds=(0.100,) * 20), NOTE, "--checkpoint 5s"),
        (replace(found, seconds=(2.0, 2.0)), BAD, "--checkpoint 1m"),
        (replace(found, is_disabled=True), BAD, "LD_PRELOAD"),
    )


def test_locks() -> None:
    found = locks.Found(True, True, True)
    _marks(
        locks.verdict,
        (found, OK, "flock"),
        (replace(found, excludes=False), BAD, "held twice"),
        (replace(found, replaces=False), BAD, "renamed"),
        (replace(found, is_told=False), NOTE, "/proc/locks"),
    )


def test_locks_that_exclude_nobody_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clickpipe.state.files.fcntl.flock", lambda *_: None)
    assert locks.look(str(tmp_path)).excludes is False


def test_sqlite() -> None:
    found = sqlite.Found((3, 40, 1), "wal", "")
    _marks(
        sqlite.verdict,
        (found, OK, "3.40.1"),
        (replace(found, version=(3, 7, 15)), BAD, "3.24 or newer"),
        (replace(found, journal="delete"), BAD, "it has delete"),
        (replace(found, trouble="locking protocol"), BAD, "locking protocol"),
    )


def test_a_full_disk_says_nothing_of_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        error = OperationalError("database or disk is full")
        error.sqlite_errorname = "SQLITE_FULL"
        raise error

    monkeypatch.setattr("clickpipe.cli.doctor.sqlite.sqlite3.connect", connect)
    verdict, _ = Check("sqlite", sqlite.look, sqlite.verdict).run(str(tmp_path))
    assert verdict == Verdict(NOTE, "could not be tried: No space left on device")


def test_pipes() -> None:
    found = pipes.Found(1 << 20, 1 << 20, 16_384, 4_096)
    _marks(
        pipes.verdict,
        (found, OK, "64 pipes"),
        (replace(found, pages=0), OK, "1 MiB"),
        (replace(found, granted_bytes=65_536, largest_bytes=65_536), NOTE, "sysctl fs.pipe-max-size=1048576"),
        (replace(found, granted_bytes=65_536), NOTE, "sysctl fs.pipe-user-pages-soft=65536"),
        (replace(found, granted_bytes=4_096, pages=None, largest_bytes=None), NOTE, "4 KiB each"),
    )


def test_open_files() -> None:
    found = openfiles.Found(65_536, 65_536)
    _marks(
        openfiles.verdict,
        (found, OK, "65,536"),
        (replace(found, soft=None), OK, "as many"),
        (replace(found, soft=256), OK, "raises that to 65,536"),
        (replace(found, soft=256, hard=None), OK, "what it likes"),
        (replace(found, soft=256, hard=1_000), NOTE, "ulimit -Hn 8192"),
        (replace(found, soft=10, hard=10), BAD, "no step can begin"),
    )


def test_a_low_limit_of_open_files_is_seen(tmp_path: Path) -> None:
    command = f"ulimit -n 64; {sys.executable} -m clickpipe doctor --json"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, env=environment(tmp_path), check=True
    )
    assert _objects(done)["open files"]["found"]["soft"] == 64
    assert _objects(done)["open files"]["verdict"] == NOTE


def test_clocks() -> None:
    found = clock.Found(1_795_000_000.0, 0.001, True, False)
    _marks(
        clock.verdict,
        (found, OK, "2026-11-18T11:06:40Z, synchronised"),
        (replace(found, is_synchronised=None), OK, "2026"),
        (replace(found, is_synchronised=False), NOTE, "timedatectl set-ntp true"),
        (replace(found, now=86_400.0), BAD, "1970-01-02"),
        (replace(found, ahead=90.0), NOTE, "90 s ahead of"),
        (replace(found, ahead=-90.0), NOTE, "90 s behind"),
        (replace(found, ahead=None), OK, "2026"),
        (replace(found, goes_back=True), BAD, "monotonic"),
    )


def test_terminals() -> None:
    found = terminal.Found(True, "xterm-256color", "", 120, 40, "utf-8", False)
    _marks(
        terminal.verdict,
        (found, OK, "256 colours"),
        (replace(found, colorterm="truecolor"), OK, "all colours"),
        (replace(found, has_no_color=True), OK, "NO_COLOR"),
        (replace(found, is_terminal=False, term="", columns=0), OK, "is none"),
        (replace(found, term="dumb"), NOTE, "export TERM=xterm-256color"),
        (replace(found, columns=40), NOTE, "80 by 24"),
        (replace(found, encoding="ascii"), NOTE, "LANG=C.UTF-8"),
    )


# What pipelines have left


@pytest.fixture
def saved(folder: Path, start: Start) -> Path:
    """A pipeline that has ended with checkpoints, its home."""
    start("run", "-q", "--restart", "no", "-c", "ingest in.ndjson --name c --checkpoint 1s | sink out.ndjson").wait()
    return folder / ".home"


def test_pipelines_that_are_whole_need_nobody(saved: Path) -> None:
    found = leftovers.look(str(saved))
    assert found == leftovers.Found(1, ())
    assert leftovers.verdict(found).mark == OK


def test_a_damaged_checkpoint_is_bad_and_named(saved: Path) -> None:
    newest = StateDirectory(str(saved / "pipelines" / "c")).newest_epoch()
    manifest = saved / "pipelines" / "c" / "epochs" / str(newest) / "MANIFEST.json"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    done = _doctor(saved.parent, "--json")
    told = _objects(done)["leftovers"]
    assert (done.returncode, told["verdict"]) == (75, BAD)
    assert f"c: checkpoint {newest} is damaged" in told["remedies"][0]


@pytest.mark.parametrize(
    ("name", "content"), [("identity.json", b"nonsense"), ("restoring.json", b"[1]"), ("supervisor.json", b"[1]")]
)
def test_files_with_anything_in_them_are_told_and_do_no_harm(name: str, content: bytes, saved: Path) -> None:
    (saved / "pipelines" / "c" / name).write_bytes(content)
    (trouble,) = leftovers.look(str(saved)).troubles
    assert trouble.pipeline == "c"
    assert leftovers.verdict(leftovers.look(str(saved))).mark == BAD


def test_a_restore_that_was_cut_short_names_its_command(saved: Path) -> None:
    StateDirectory(str(saved / "pipelines" / "c")).begin_restoring({"savepoint": "monday"})
    (trouble,) = leftovers.look(str(saved)).troubles
    assert trouble.remedy == "clickpipe savepoint restore c monday"


def test_a_link_where_state_should_be_is_bad(saved: Path, tmp_path: Path) -> None:
    (saved / "pipelines" / "d").symlink_to(tmp_path)
    (trouble,) = leftovers.look(str(saved)).troubles
    assert (trouble.pipeline, trouble.is_bad) == ("d", True)
    assert "symbolic link" in trouble.text


def test_a_process_that_was_stopped_keeps_its_lock_and_is_named(folder: Path, start: Start) -> None:
    process = start("run", "-q", "--restart", "no", "-c", PIPELINE.format(file="in.ndjson --follow", name="c"))
    until(lambda: (folder / ".home/pipelines/c/lock").exists() and _holds(folder, process.pid), "it begins")
    os.kill(process.pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T", "it stops")
    (trouble,) = leftovers.look(str(folder / ".home")).troubles
    assert trouble.remedy.startswith(f"kill -CONT {process.pid} ")
    assert leftovers.verdict(leftovers.look(str(folder / ".home"))).mark == NOTE
    os.kill(process.pid, signal.SIGCONT)


def _holds(folder: Path, process: int) -> bool:
    return process in StateDirectory(str(folder / ".home/pipelines/c")).processes()


def test_a_supervisor_that_was_killed_is_told(folder: Path, start: Start) -> None:
    line = PIPELINE.format(file="in.ndjson --follow", name="c")
    process = start("run", "-q", "-c", line)
    until(lambda: epoch(folder) and children_of(process.pid), "it runs")
    process.kill()
    process.wait()
    directory = StateDirectory(str(folder / ".home/pipelines/c"))
    until(lambda: not directory.processes(), "its processes end with it")
    (trouble,) = leftovers.look(str(folder / ".home")).troubles
    assert "supervisor was killed" in trouble.text
    assert not trouble.is_bad


def test_of_many_troubles_ten_are_told() -> None:
    troubles = tuple(leftovers.Trouble(f"p{number}", "damaged", "mend it") for number in range(30))
    said = leftovers.verdict(leftovers.Found(30, troubles))
    assert len(said.remedies) == 10
    assert "and others" in said.text


def test_the_nearest_folder_stands_for_one_that_is_not_there(tmp_path: Path) -> None:
    assert trial.standing(str(tmp_path / "a" / "b")) == os.path.realpath(tmp_path)
    with trial.trial(str(tmp_path / "a")) as folder:
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
