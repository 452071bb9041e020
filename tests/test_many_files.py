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

from clickpipe.core.inorder import InOrder
from clickpipe.core.reading import beginning, parsed
from clickpipe.core.source import Split, splits_of
from clickpipe.errors import DataError, OutsideError
from clickpipe.formats.ndjson import Ndjson
from clickpipe.operators.ingest import Ingest
from clickpipe.sources.file import FileSplit
from clickpipe.testing import environment, run_steps

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


def test_one_that_cannot_be_kept_open_must_be_the_same_later(tmp_path: Path) -> None:
    """It may have grown; its inode alone does not tell, which another file may have got."""
    path = tmp_path / "app.log"
    path.write_text("old\n")
    split = FileSplit(str(path))
    split.let_go()
    with path.open("a") as file:
        file.write("more\n")
    assert b"".join(split.chunks()) == b"old\nmore\n"
    split.let_go()
    path.write_text("new\nmore\n")
    for _ in range(2):
        with pytest.raises(OutsideError, match="has become another file while it waited for its turn"):
            next(split.chunks())
        with pytest.raises(OutsideError, match="has become another file"):
            next(split.peeked(0))


def rotated(split: Split) -> None:
    """Another file has its name."""
    path = Path(split.name)
    path.rename(f"{path}.1")
    path.write_text('{"t": 7}\n')


@pytest.mark.parametrize("options", ["--time t --time-unit ms", ""], ids=["by time", "without time"])
def test_rotation_while_files_wait(tmp_path: Path, options: str) -> None:
    """Also of files that no first time was looked for in."""
    for number in range(3):
        (tmp_path / f"{number}.log").write_text(f'{{"t": {number}}}\n' * 2_000)
    splits = splits_of((str(tmp_path / "*.log"),))
    feed = InOrder(Ingest((str(tmp_path / "*.log"),), time="t" if options else None, time_unit="ms").taking("x"), splits)
    feed.want(["t"], False)
    rotated(splits[2])
    assert sorted(t for pull in feed.pulls() for batch in pull.batches for t in batch.frame["t"]) == sorted([0, 1, 2] * 2_000)
    feed.close()


def test_what_was_read_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    """It is handed on before anybody has written to the next source, which can be read once only."""
    (tmp_path / "a.ndjson").write_text('{"n": 1}\n' * 3_000)
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "clickpipe", "ingest", "a.ndjson", "pipe"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    records = (line for line in process.stdout if not line.startswith("\t"))
    assert [*islice(records, 3_000)] == ['{"n": 1}\n'] * 3_000
    (tmp_path / "pipe").write_text('{"n": 2}\n')
    assert next(records) == '{"n": 2}\n'
    assert process.wait(60) == 0
    process.stdout.close()


@pytest.mark.parametrize("files", [1, 2])
def test_files_that_are_new_to_the_next_run(tmp_path: Path, files: int) -> None:
    """The watermark waits for their beginning, whether they are one or several."""
    whole = [json.dumps({"ts": 1_767_225_600_000 + 1_000 * n}) + "\n" for n in range(2_000)]
    (tmp_path / "a.ndjson").write_text("".join(whole))
    options = "--checkpoint 1ms --batch-bytes 4KiB"
    steps = [["run", "-q", "--restart", "no", "-c", f"ingest '*.ndjson' --time ts --name c {options} | {STEPS}"]]
    assert run_steps(steps, tmp_path, CLICKPIPE_STOP_AFTER="500") == [0]
    for number in range(files):
        (tmp_path / f"b{number}.ndjson").write_text("".join(whole[1_500:]))
    assert run_steps(steps, tmp_path) == [0]
    assert counted(tmp_path) == 2_000 + 500 * files


def test_a_giant_line_is_not_looked_through_for_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * (4 << 20) + b"\nlast")
    split = FileSplit(str(path))
    whole = Ndjson().cut
    assert [*beginning(split, whole, 0, 1 << 20)] == []
    assert [len(block.overlong) + len(block.data) for block in beginning(split, whole, 0, 8 << 20)] == [1, 4]
    split.close()


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
