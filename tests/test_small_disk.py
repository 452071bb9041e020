"""Real file systems that fill up, and limits that a shell sets: nothing is lost, and the words say what to do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from examples import some

from clickpipe.testing import environment

STEPS = "ingest in.ndjson --time ts --batch-bytes 8KiB --name c --checkpoint 1ms | window tumble 1h | {} | sink {}out.ndjson"
COUNTED = "aggregate --by page n='count(*)'"
PASSED = "filter 'id >= 0'"


@pytest.fixture(scope="module")
def namespaces() -> None:
    """A small disk takes a mount, and a mount takes a user namespace of our own."""
    words = ["unshare", "-Urm", "sh", "-c", "mount -t tmpfs none /mnt && mount -o remount,size=1m /mnt"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode:
        pytest.skip(f"user namespaces are not allowed here: {done.stderr.strip()}")


def _prepared(directory: Path) -> Path:
    lines = []
    for number in range(3_000):
        ts = 1_767_225_600_000 + number * 100 - (20_000 if number % 60 == 50 else 0)
        lines.append(json.dumps({"ts": ts, "page": f"/p/{number % 1500}", "id": number}))
        if number % 100 == 50:
            lines.append("not JSON")
    (directory / "in.ndjson").write_text("\n".join(lines) + "\n")
    for name in ("home", "out"):
        (directory / name).mkdir()
    return directory


def _command(middle: str, form: str, out: str = "out/") -> str:
    """One process, or one per step; the last one's exit code."""
    text = STEPS.format(middle, out)
    if form == "fused":
        return f'{sys.executable} -m clickpipe run -q --restart no -c "{text}"'
    return "set -o pipefail; " + " | ".join(f"{sys.executable} -m clickpipe {step}" for step in text.split(" | "))


def _shell(directory: Path, script: str, *, namespace: bool = False) -> subprocess.CompletedProcess[str]:
    words = [*(["unshare", "-Urm"] if namespace else []), "bash", "-c", script]
    env = environment(directory, CLICKPIPE_HOME=str(directory / "home"))
    return subprocess.run(words, cwd=directory, env=env, capture_output=True, text=True, timeout=120, check=False)


def _results(directory: Path, home: str = "home") -> dict[str, list[str]]:
    state = directory / home / "pipelines" / "c"
    paths = {"out": directory / "out" / "out.ndjson", "late": state / "late.ndjson", "dead": state / "dead.ndjson"}
    return {name: sorted(path.read_text().splitlines()) for name, path in paths.items()}


def _undisturbed(directory: Path, middle: str) -> dict[str, list[str]]:
    directory.mkdir()
    done = _shell(_prepared(directory), _command(middle, "fused"))
    assert done.returncode == 0, done.stderr
    return _results(directory)


_FILLS = """
mount -t tmpfs -o size=64k none {full}
( {command} ) 2> said &
until grep -q 'waits for space' said; do sleep 0.02; done
echo "in between: $(ls {full} | wc -l)"
mount -o remount,size=16m {full}
wait %1; code=$?
cp -r {full} kept
exit $code
"""


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("form", ["fused", "shell"])
@pytest.mark.parametrize(("full", "middle"), some([("home", COUNTED), ("out", PASSED)]))
def test_a_disk_that_fills_up_and_grows(full: str, middle: str, form: str, tmp_path: Path) -> None:
    """Of the state, or of the results: the run pauses, says what it waits for, and goes on by itself."""
    expected = _undisturbed(tmp_path / "undisturbed", middle)
    directory = _prepared(tmp_path)
    script = _FILLS.format(full=full, command=_command(middle, form))
    done = _shell(directory, script, namespace=True)
    said = (directory / "said").read_text()
    assert done.returncode == 0, f"{done.stderr}\n{said}"
    assert re.search(rf"waits for space on {directory}/{full}: No space left on device", said), said
    assert re.search(rf"there is space on {directory}/{full} again: .* goes on", said), said
    (directory / full).rmdir()
    (directory / "kept").rename(directory / full)
    assert _results(directory) == expected


@pytest.mark.usefixtures("namespaces")
def test_a_view_whose_disk_fills_up(tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    line = "ingest in.ndjson --name c --batch-bytes 8KiB --checkpoint 1ms | filter 'id >= 0' | sink view:ids --key id"
    (directory / "home" / "views").mkdir()
    command = f'{sys.executable} -m clickpipe run -q --restart no -c "{line}"'
    done = _shell(directory, _FILLS.format(full="home/views", command=command), namespace=True)
    said = (directory / "said").read_text()
    assert done.returncode == 0, f"{done.stderr}\n{said}"
    assert "view ids waits for space" in said
    (directory / "home" / "views").rmdir()
    (directory / "kept").rename(directory / "home" / "views")
    shown = _shell(directory, f"{sys.executable} -m clickpipe view show ids")
    rows = [json.loads(row) for row in shown.stdout.splitlines()]
    assert [row["id"] for row in sorted(rows, key=lambda row: row["id"])] == list(range(3_000))
    assert {row["_rev"] for row in rows} == {0}


@pytest.mark.usefixtures("namespaces")
def test_without_checkpoints_a_full_disk_ends_the_run(tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    command = _command(PASSED, "fused").replace(" --checkpoint 1ms", "")
    done = _shell(directory, f"mount -t tmpfs -o size=64k none out; {command}; code=$?; ls -A out; exit $code", namespace=True)
    assert done.returncode == 74
    assert "out/out.ndjson: No space left on device" in done.stderr
    assert done.stdout == ""  # nothing is left behind


@pytest.mark.parametrize(("kib", "form"), some([(1, "fused"), (8, "fused"), (32, "fused"), (32, "shell")], 3))
def test_a_limit_on_the_size_of_files(kib: int, form: str, tmp_path: Path) -> None:
    """That is no full disk, and waiting would not help."""
    expected = _undisturbed(tmp_path / "undisturbed", PASSED)
    directory = _prepared(tmp_path)
    done = _shell(directory, f"ulimit -f {kib}; {_command(PASSED, form)}")
    assert done.returncode in (74, 75), done.stderr
    assert "File too large" in done.stderr
    assert not (directory / "out" / "out.ndjson").exists()
    done = _shell(directory, _command(PASSED, form))
    assert done.returncode == 0, done.stderr
    assert _results(directory) == expected


@pytest.mark.parametrize("files", [6, 8, 12, 19, 20])
def test_a_limit_on_open_files(files: int, tmp_path: Path) -> None:
    """What is too few is told before anything is computed: Polars panics when it cannot start its threads."""
    directory = _prepared(tmp_path)
    done = _shell(directory, f"ulimit -n {files}; {_command(COUNTED, 'fused')}")
    assert done.returncode == (75 if files < 20 else 0), done.stderr
    if files < 20:
        assert re.search("too many open files|only .* files may be open", done.stderr.lower())
        assert "ulimit -n" in done.stderr
    assert _shell(directory, _command(COUNTED, "fused")).returncode == 0
    assert _results(directory) == _undisturbed(tmp_path / "undisturbed", COUNTED)
