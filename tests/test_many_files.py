"""Very many files: memory and open files do not grow with them, and what takes the place of one that waits is not read for it."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from clickpipe.core.reading import parsed
from clickpipe.errors import DataError, OutsideError
from clickpipe.sources.file import FileSplit
from clickpipe.testing import environment

STEPS = "window tumble 10s | aggregate n='count(*)' | sink out.ndjson"


def fill(folder: Path, files: int, records: int, pad: int = 0) -> None:
    for number in range(files):
        begin = 1_767_225_600_000 + 1_000 * number
        some = [json.dumps({"ts": begin + n % 1_000, "pad": "x" * pad}) for n in range(records)]
        (folder / f"{number:03}.ndjson").write_text("\n".join(some) + "\n")


def run(folder: Path, options: str, limit: str = "") -> tuple[subprocess.CompletedProcess[str], int]:
    """And the most memory that the process had, in bytes."""
    line = f"ingest '*.ndjson' --time ts --name c {options} | {STEPS}"
    command = ["bash", "-c", f'{limit or ":"}; exec {sys.executable} -m clickpipe run -q -c "$0"', line]
    with open(folder / "said", "w+") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=said, stderr=said, text=True)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        done = subprocess.CompletedProcess(command, process.returncode, "", said.read())
    return done, used.ru_maxrss << 10


def counted(folder: Path) -> int:
    return sum(json.loads(line)["n"] for line in (folder / "out.ndjson").read_text().splitlines())


@pytest.mark.parametrize("options", ["", "--follow --until now --drain"], ids=["read", "followed"])
def test_memory_does_not_grow_with_them(tmp_path: Path, options: str) -> None:
    """They are looked at when a run begins, for their first time or for what the columns are, and none is kept for that."""
    peaks = []
    for files in (10, 90):
        folder = tmp_path / str(files)
        folder.mkdir()
        fill(folder, files, 600, 3_000)
        done, peak = run(folder, options)
        assert done.returncode == 0, done.stderr
        assert counted(folder) == files * 600
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 70 << 20, "80 more files have 144 MB"


@pytest.mark.parametrize("options", ["", "--follow --until now --drain"], ids=["read", "followed"])
def test_the_soft_limit_of_open_files_is_no_limit(tmp_path: Path, options: str) -> None:
    """A shell has 1,024, and a process may raise that by itself."""
    fill(tmp_path, 150, 2)
    done, _ = run(tmp_path, options, "ulimit -Sn 100")
    assert done.returncode == 0, done.stderr
    assert counted(tmp_path) == 300


def test_more_files_than_may_be_open_at_once(tmp_path: Path) -> None:
    """Those that are read one after the other need not be open; those that are followed do."""
    fill(tmp_path, 150, 2)
    done, _ = run(tmp_path, "", "ulimit -n 130")
    assert done.returncode == 0, done.stderr
    assert counted(tmp_path) == 300
    done, _ = run(tmp_path, "--follow --until now", "ulimit -n 130")
    assert done.returncode == 75
    assert "Too many open files" in done.stderr
    assert "Traceback" not in done.stderr
    assert "ulimit -n raises" in done.stderr


def test_a_file_that_waits_is_the_one_that_was_looked_at(tmp_path: Path) -> None:
    """Whatever rotation puts in its place meanwhile."""
    path = tmp_path / "app.log"
    path.write_text("old\n")
    split = FileSplit(str(path))
    assert next(split.peeked(0)) == b"old\n"
    path.rename(tmp_path / "app.log.1")
    path.write_text("new\n")
    assert b"".join(split.chunks()) == b"old\n"
    split.close()
    with pytest.raises(OutsideError, match="has become another file"):
        next(split.chunks())


def test_a_pipe_is_not_looked_at(tmp_path: Path) -> None:
    """Its writer would hear a reader leave."""
    os.mkfifo(tmp_path / "pipe")
    assert not FileSplit(str(tmp_path / "pipe")).can_be_read_again


def test_what_is_packed_is_looked_at_too(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"one\ntwo\n" * 100_000))
    split = FileSplit(str(path))
    assert next(split.peeked(4)).startswith(b"two\none\n")
    assert b"".join(split.chunks()) == b"one\ntwo\n" * 100_000
    split.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_in_its_place(workers: int) -> None:
    """What stands before a damage is handed on, however far ahead it was seen."""

    def items() -> Iterator[int]:
        yield from range(3)
        raise DataError("damaged")

    found = parsed(items(), lambda n: n * n, workers)
    assert [*islice(found, 3)] == [0, 1, 4]
    with pytest.raises(DataError, match="damaged"):
        next(found)


def test_files_are_closed_again(tmp_path: Path) -> None:
    """As soon as they were read: a hundred files are read with few more descriptors than one."""
    fill(tmp_path, 100, 2)
    soft = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 130)
    done, _ = run(tmp_path, "--checkpoint 1ms", f"ulimit -n {soft}")
    assert done.returncode == 0, done.stderr
    assert counted(tmp_path) == 200
