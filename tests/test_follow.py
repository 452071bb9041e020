"""Files that grow: each whole line takes effect once, through rotation, truncation, new files and kill -9.

Most tests drive the feed round by round, without waiting: a kill is a feed that is dropped, and what it had
handed on since its last barrier does not count.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickpipe.core import tail, watch
from clickpipe.core.following import Following
from clickpipe.core.intake import IngestFeed
from clickpipe.core.option import Duration
from clickpipe.engine.feeds import RawSplit
from clickpipe.errors import DataError, PlanError, StateError
from clickpipe.operators.ingest import Ingest
from clickpipe.plan.parse import parse
from clickpipe.testing import environment
from clickpipe.wire.pump import Inbox


@dataclass
class Run:
    """A pipeline's runs, one after the other. `committed`: what took effect."""

    text: str
    committed: list[str] = field(default_factory=list)
    handed: list[str] = field(default_factory=list)
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
        if self.feed is None:
            self.start()
        assert self.feed is not None
        self.feed.epochs = count(1) if save else None
        for _ in range(rounds):
            for pull in self.feed.round():
                self.handed += [line for batch in pull.batches for line in _lines(batch)]
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


def _lines(batch: Any) -> list[str]:
    return [json.dumps(row) for row in batch.frame.select("n").to_dicts()] if "n" in batch.frame.columns else []


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, and nothing is waited for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tail, "QUIET", 0.0)
    monkeypatch.setattr(tail, "SCAN", 0.0)
    monkeypatch.setattr(watch, "LOOK", 0.0)
    monkeypatch.setattr(watch, "SCAN", 0.0)
    return tmp_path


def _append(path: str, *numbers: int, rest: str = "") -> None:
    with open(path, "a") as file:
        file.write("".join(f'{{"n": {number}}}\n' for number in numbers) + rest)


def _numbers(run: Run) -> list[int]:
    return [json.loads(line)["n"] for line in run.committed]


LOG = "app.log --format ndjson --columns n:int"


def test_growth_and_a_partial_last_line() -> None:
    """The beginning of a line is no record; a restart reads the line from its beginning."""
    _append("app.log", 1, 2, rest='{"n"')
    run = Run(LOG)
    run.read()
    assert _numbers(run) == [1, 2]
    run.read(rounds=3)
    assert _numbers(run) == [1, 2]
    run.kill()
    _append("app.log", rest=": 3")
    run.read(rounds=3)
    assert _numbers(run) == [1, 2]
    _append("app.log", rest="}\n")
    run.read()
    assert _numbers(run) == [1, 2, 3]
    assert run.dead == []


def test_a_line_longer_than_what_is_read_at_once() -> None:
    run = Run(f"{LOG} --batch-bytes 64")
    Path("app.log").write_text(json.dumps({"n": 1, "text": "x" * 1000}) + "\n" + json.dumps({"n": 2}) + "\n")
    run.read(rounds=40)
    assert _numbers(run) == [1, 2]


def test_rotation_by_renaming() -> None:
    """The old file is read to its end, also what its writer adds after the renaming; then the new one."""
    _append("app.log", 1)
    run = Run(LOG)
    run.read()
    os.rename("app.log", "app.log.1")
    _append("app.log.1", 2)
    run.read(rounds=2)
    assert _numbers(run) == [1, 2]
    _append("app.log.1", 3)  # nobody has taken its place yet
    run.read(rounds=2)
    _append("app.log.1", 4)
    _append("app.log", 5)
    run.read(rounds=3)
    assert _numbers(run) == [1, 2, 3, 4, 5]


def test_a_file_is_left_only_after_a_while_without_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "QUIET", 3600.0)
    _append("app.log", 1)
    run = Run(LOG)
    run.read()
    os.rename("app.log", "app.log.1")
    _append("app.log", 3)
    run.read(rounds=3)
    _append("app.log.1", 2)
    run.read(rounds=3)
    assert _numbers(run) == [1, 2]
    monkeypatch.setattr(tail, "QUIET", 0.0)
    run.read(rounds=2)
    assert _numbers(run) == [1, 2, 3]


@pytest.mark.parametrize("is_killed", [False, True])
def test_several_rotations_between_two_looks(is_killed: bool) -> None:
    """Files that came and were renamed meanwhile are found beside the path; older ones are left alone."""
    _append("app.log.1", -1)
    _append("app.log.bak", -2)
    _append("app.log", 1)
    run = Run(LOG)
    run.read()
    if is_killed:
        run.kill()
    for number in (2, 4, 6):
        _append("app.log", number)
        _rotate("app.log")
        _append("app.log", number + 1)
    run.read(rounds=6)
    assert _numbers(run) == [1, 2, 3, 4, 5, 6, 7]


def _rotate(path: str) -> None:
    """As logrotate does."""
    for number in range(20, 0, -1):
        if os.path.exists(f"{path}.{number}"):
            os.rename(f"{path}.{number}", f"{path}.{number + 1}")
    os.rename(path, f"{path}.1")


def test_rotation_while_nobody_reads() -> None:
    _append("app.log", 1, 2)
    run = Run(LOG)
    run.read()
    run.kill()
    _append("app.log", 3)
    _rotate("app.log")
    _append("app.log", 4)
    run.read(rounds=3)
    assert _numbers(run) == [1, 2, 3, 4]
    run.kill()
    run.read(rounds=3)
    assert _numbers(run) == [1, 2, 3, 4]


@pytest.mark.parametrize("is_killed", [False, True])
def test_copy_and_truncate(is_killed: bool) -> None:
    """What had not been read is found in the copy. It is said once that something may be lost."""
    _append("app.log", 1, 2)
    run = Run(LOG)
    run.read()
    for number in (3, 6):
        if is_killed:
            run.kill()
        _append("app.log", number)
        for older in (2, 1):
            if os.path.exists(f"app.log.{older}"):
                os.rename(f"app.log.{older}", f"app.log.{older + 1}")
        shutil.copy("app.log", "app.log.1")
        os.truncate("app.log", 0)
        _append("app.log", number + 1, number + 2)
        run.read(rounds=3)
    assert _numbers(run) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [note for note in run.notes if "was truncated" in note][1:] == ([run.notes[0]] if is_killed else [])


@pytest.mark.parametrize("is_killed", [False, True])
def test_truncation_without_a_copy(is_killed: bool) -> None:
    """Also when the file has grown beyond where reading was."""
    _append("app.log", 1, 2)
    run = Run(LOG)
    run.read()
    if is_killed:
        run.kill()
    os.truncate("app.log", 0)
    _append("app.log", 3, 4, 5, 6)
    run.read(rounds=2)
    assert _numbers(run) == [1, 2, 3, 4, 5, 6]
    assert len([note for note in run.notes if "was truncated" in note]) == 1


def test_a_new_file_that_a_glob_matches() -> None:
    run = Run("'*.log' --format ndjson --columns n:int")
    run.read()
    assert run.notes == ["waiting for a file that matches *.log"]
    _append("a.log", 1)
    run.read()
    run.kill()
    _append("b.log", 2)
    run.read(rounds=2)
    _append("a.log", 3)
    run.read(rounds=2)
    assert _numbers(run) == [1, 2, 3]


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_file_renamed_inside_the_glob_is_not_read_again(is_killed: bool) -> None:
    run = Run("'app.log*' --format ndjson --columns n:int")
    _append("app.log.1", 1)
    _append("app.log", 2)
    run.read(rounds=2)
    for number in (3, 5, 7):
        if is_killed:
            run.kill()
        _append("app.log", number)
        _rotate("app.log")
        _append("app.log", number + 1)
        run.read(rounds=4)
    assert sorted(_numbers(run)) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_copy_inside_the_glob_is_not_read_again() -> None:
    run = Run("'app.log*' --format ndjson --columns n:int")
    _append("app.log", 1)
    run.read()
    _append("app.log", 2)
    shutil.copy("app.log", "app.log.1")
    run.read(rounds=2)
    os.truncate("app.log", 0)
    _append("app.log", 3)
    run.read(rounds=3)
    assert _numbers(run) == [1, 2, 3]


def test_a_removed_file_is_read_to_its_end() -> None:
    """If its path appears again, that is the same split; one that is gone holds nothing back."""
    run = Run(LOG)
    _append("app.log", 1)
    run.read()
    with open("app.log", "a") as file:
        os.remove("app.log")
        file.write('{"n": 2}\n')
    run.read(rounds=3)
    assert _numbers(run) == [1, 2]
    assert run.saved is not None
    assert [split["done"] for split in run.saved["splits"]] == [True]
    run.kill()
    run.read(rounds=2)
    _append("app.log", 3)
    run.read(rounds=2)
    assert _numbers(run) == [1, 2, 3]


def test_files_that_come_later() -> None:
    run = Run(f"web.log {LOG}")
    run.read()
    run.read(rounds=2)
    assert run.notes == ["waiting for web.log", "waiting for app.log"]
    _append("web.log", 1)
    run.read()
    assert _numbers(run) == [1]


def test_columns_are_inferred_from_the_first_records() -> None:
    """Which are waited for."""
    run = Run("app.log")
    waiting = threading.Thread(target=run.start, daemon=True)
    waiting.start()
    while not run.notes:
        time.sleep(0.01)
    _append("app.log", 1, 2)
    waiting.join(60)
    assert run.feed is not None
    assert dict(run.feed.columns.types) == {"n": "int"}
    run.read()
    assert _numbers(run) == [1, 2]


def test_what_cannot_be_followed() -> None:
    Path("packed.log").write_bytes(b"\x1f\x8b\x08\x00abc")
    Path("folder").mkdir()
    os.mkfifo("pipe")
    for source, reason in {
        "packed.log": "packed.log is packed",
        "folder": "folder is a directory",
        "pipe": "pipe is a pipe",
        "/dev/null": "/dev/null is a pipe or a device",
        "-": "--follow is for files that grow: - is none",
        "app.log app.log": "app.log is named twice",
    }.items():
        with pytest.raises(PlanError, match=reason):
            Run(f"{source} --columns n:int").start()


def test_in_a_glob_it_is_passed_over() -> None:
    """With one note. Also when it comes later, and when it has the path after a rotation."""
    Path("old.log").write_bytes(b"\x1f\x8b\x08\x00abc")
    run = Run("'*.log' --format ndjson --columns n:int")
    run.read(rounds=2)
    os.mkfifo("pipe.log")
    Path("new.log").write_bytes(b"\x1f")
    run.read(rounds=2)
    Path("new.log").write_bytes(b"\x1f\x8b\x08\x00abc")
    _append("app.log", 1)
    run.read(rounds=3)
    assert _numbers(run) == [1]
    assert run.dead == []
    assert len([note for note in run.notes if note.startswith("old.log is packed")]) == 1
    assert len([note for note in run.notes if note.startswith("new.log is packed")]) == 1
    assert len([note for note in run.notes if note.startswith("pipe.log is a pipe")]) == 1


def test_what_cannot_be_found_any_more_stops_the_run(here: Path) -> None:
    _append("app.log", 1, 2)
    run = Run(LOG)
    run.read()
    run.kill()
    _append("app.log", 3)
    os.rename("app.log", "elsewhere")
    shutil.move("elsewhere", here.parent / f"{here.name}-elsewhere")
    _append("app.log", 4)
    with pytest.raises(StateError) as caught:
        run.start()
    assert "app.log: the file that was being read is not beside it any more; 18 bytes of it had been read" in str(caught.value)
    assert "put it back" in str(caught.value)
    assert "--reset" in str(caught.value)
    shutil.move(here.parent / f"{here.name}-elsewhere", "any-name")
    run.read(rounds=3)
    assert _numbers(run) == [1, 2, 3, 4]


def test_each_file_has_its_header_line() -> None:
    run = Run("app.csv --columns n:int")
    Path("app.csv").write_text("n,m\n1,2\n")
    run.read()
    run.kill()
    os.rename("app.csv", "app.csv.1")
    Path("app.csv").write_text("n,m\n3,4\n")
    run.read(rounds=3)
    assert _numbers(run) == [1, 3]
    os.rename("app.csv", "app.csv.2")
    Path("app.csv").write_text("m,n\n5,6\n")
    with pytest.raises(DataError, match=r"app.csv: this file has the columns m, n; the first file has n, m"):
        run.read(rounds=3)


@pytest.mark.parametrize("is_killed", [False, True])
def test_files_that_begin_with_the_same_header_line_are_no_copies(is_killed: bool) -> None:
    """A file of which only the header line was read is renamed, and two more have come and gone."""
    run = Run("app.csv --columns n:int")
    Path("app.csv").write_text("n,m\n1,0\n")
    run.read()
    _rotate("app.csv")
    Path("app.csv").write_text("n,m\n")
    run.read(rounds=3)
    if is_killed:
        run.kill()
    for number in (2, 3, 4):
        _rotate("app.csv")
        Path("app.csv").write_text(f"n,m\n{number},0\n")
    run.read(rounds=6)
    assert _numbers(run) == [1, 2, 3, 4]


def test_that_a_file_was_left_is_saved() -> None:
    """Though the next one is empty: the old one may be packed from now on."""
    _append("app.log", 1)
    run = Run(LOG)
    run.read()
    _rotate("app.log")
    _append("app.log")
    run.read(rounds=3)
    run.kill()
    os.remove("app.log.1")
    _append("app.log", 2)
    run.read()
    assert _numbers(run) == [1, 2]


@pytest.mark.parametrize("is_read", [False, True])
def test_a_removed_file_that_was_read_to_its_end_is_not_missed(is_read: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill in the second in which its writer might have gone on. Bytes that were not read are missed."""
    monkeypatch.setattr(tail, "QUIET", 3600.0)
    _append("app.log", 1)
    _append("web.log", 2)
    run = Run(f"web.log {LOG}")
    run.read()
    _append("app.log", 3)
    if is_read:
        run.read()
    os.remove("app.log")
    _append("web.log", 4)
    if is_read:
        run.read()
    run.kill()
    if is_read:
        run.read()
        assert sorted(_numbers(run)) == [1, 2, 3, 4]
    else:
        with pytest.raises(StateError):
            run.start()


def test_a_link_that_is_set_to_another_file() -> None:
    """As daily files have it."""
    _append("app-1.txt", 1)
    os.symlink("app-1.txt", "app.log")
    run = Run(LOG)
    run.read()
    run.kill()
    _append("app-1.txt", 2)
    run.read()
    run.kill()
    _append("app-1.txt", 3)
    _append("app-2.txt", 4)
    os.remove("app.log")
    os.symlink("app-2.txt", "app.log")
    run.read(rounds=3)
    assert _numbers(run) == [1, 2, 3, 4]


def test_the_last_line_of_a_file_that_is_left() -> None:
    """Nobody will complete it: without its newline it is a record all the same, or a dead letter."""
    _append("app.log", 1, rest='{"n": 2}')
    run = Run(LOG)
    run.read(rounds=3)
    assert _numbers(run) == [1]
    _rotate("app.log")
    _append("app.log", 3, rest="oops")
    run.read(rounds=3)
    _rotate("app.log")
    _append("app.log", 4)
    run.read(rounds=3)
    assert _numbers(run) == [1, 2, 3, 4]
    assert run.dead == ["oops"]


def test_the_watermark_is_the_least_and_never_goes_back() -> None:
    """Of the files that have given records; one that is gone does not count, one that comes late is late."""
    run = Run("'*.log' --format ndjson --columns n:int --time n --time-unit ms")
    _append("a.log", 5_000)
    _append("b.log", 3_000)
    run.read()
    assert run.watermarks[-1] == 3_000
    _append("a.log", 9_000)
    run.read()
    assert run.watermarks[-1] == 3_000
    os.remove("b.log")
    run.read(rounds=3)
    assert run.watermarks[-1] == 9_000
    _append("c.log", 1_000)
    run.read(rounds=2)
    assert run.watermarks[-1] == 9_000
    assert run.feed is not None
    (late,) = [one for one in run.feed._watch.tails if one.name == "c.log"]
    assert late.clock.watermark == 9_000
    seen = [mark for mark in run.watermarks if mark is not None]
    assert seen == sorted(seen)


def test_the_clock_of_a_path_goes_on_over_a_rotation_and_a_restart() -> None:
    run = Run(f"{LOG} --time n --time-unit ms --max-out-of-orderness 1s")
    _append("app.log", 9_000)
    run.read()
    run.kill()
    _rotate("app.log")
    _append("app.log", 8_500, 10_000)
    run.read(rounds=3)
    assert run.watermarks[-1] == 9_000
    assert _numbers(run) == [9_000, 8_500, 10_000]


# How it ends.


def test_stop_saves_where_it_is() -> None:
    """Soon, also while nothing comes; the splits stay open, and a later run goes on."""
    run = _stopped_while_waiting(drain=False)
    assert run.feed is not None
    assert run.feed.is_stopped
    assert run.feed.last is not None
    run.saved = json.loads(json.dumps(run.feed.last.state[0]["source"]))
    assert run.saved is not None
    assert [split["done"] for split in run.saved["splits"]] == [False]
    run.kill()
    _append("app.log", rest=": 3}\n")
    run.read()
    assert _numbers(run) == [3]


def test_drain_ends_the_input() -> None:
    """A line without its newline stays unread, and this is said."""
    run = _stopped_while_waiting(drain=True)
    assert run.feed is not None
    assert not run.feed.is_stopped
    assert run.feed.last is not None
    assert run.notes == ["app.log ends with 4 bytes of a line without its newline, which is left unread"]


def _stopped_while_waiting(*, drain: bool) -> Run:
    _append("app.log", 1, 2, rest='{"n"')
    run = Run(LOG)
    run.start()
    assert run.feed is not None
    run.feed.epochs = count(1)
    for pull in run.feed.pulls():
        run.handed += [line for batch in pull.batches for line in _lines(batch)]
        threading.Timer(0.3, run.feed.stop, kwargs={"drain": drain}).start()
    assert [json.loads(line)["n"] for line in run.handed] == [1, 2]
    return run


@pytest.mark.parametrize("drain", [False, True])
def test_stop_of_files_at_rest(drain: bool) -> None:
    """In the middle of a file; the rest is read by a later run."""
    _append("app.log", *range(1_000))
    step = parse(f"ingest {LOG} --batch-bytes 1KiB").nodes[0].step
    assert isinstance(step, Ingest)
    first = step.open()
    first.epochs = count(1)
    numbers = _numbers_until_stopped(first, drain=drain)
    assert 0 < len(numbers) < 1_000
    assert first.is_stopped is not drain
    assert first.last is not None
    second = step.open(json.loads(json.dumps(first.last.state[0]["source"])))
    assert numbers + _numbers_until_stopped(second, drain=None) == [*range(1_000)]
    assert not second.is_stopped


@pytest.mark.parametrize("drain", [False, True])
def test_stop_of_live_standard_input(drain: bool) -> None:
    """While it waits for more; a line that has begun is no record."""
    reader, writer = os.pipe()
    os.write(writer, b'{"n": 1}\n{"n": 2}\n{"n"')
    feed = Ingest(("-",), checkpoint=Duration(60_000)).feed([RawSplit(Inbox(reader, "standard input"))])
    feed.epochs = count(1)
    timer = threading.Timer(0.5, feed.stop, kwargs={"drain": drain})
    timer.start()
    assert _numbers_until_stopped(feed, drain=None) == [1, 2]
    assert feed.is_stopped is not drain
    assert feed.last is not None
    os.close(writer)


def _numbers_until_stopped(feed: IngestFeed, *, drain: bool | None) -> list[int]:
    """`drain` None: nobody stops it here."""
    feed.want(["n"], True)
    numbers: list[int] = []
    for pull in feed.pulls():
        numbers += [row["n"] for batch in pull.batches for row in batch.frame.select("n").to_dicts()]
        if drain is not None and numbers:
            feed.stop(drain=drain)
    return numbers


# As processes.


class Process:
    """A pipeline that follows, with its results so far."""

    def __init__(self, text: str) -> None:
        self._text, self._process = text, None
        self.start()

    def start(self) -> None:
        words = [sys.executable, "-m", "clickpipe", "run", "-c", self._text]
        with open("stderr", "ab") as errors:
            self._process = subprocess.Popen(words, stderr=errors, env=environment(Path.cwd()))

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        assert self._process.wait() == -signal.SIGKILL, Path("stderr").read_text()

    def results(self) -> list[int]:
        parts = sorted(Path("out.ndjson.parts").glob("*.ndjson"))
        return [json.loads(line)["n"] for part in parts for line in part.read_text().splitlines()]

    def wait_for(self, number: int) -> None:
        deadline = time.monotonic() + 60
        while number not in self.results():
            assert self._process is not None
            assert self._process.poll() is None, Path("stderr").read_text()
            assert time.monotonic() < deadline, Path("stderr").read_text()
            time.sleep(0.05)


PIPELINE = "ingest app.log 'web-*.txt' --follow --format ndjson --columns n:int --checkpoint 50ms --name f | sink out.ndjson"


def test_kill_9_and_everything_happens_meanwhile() -> None:
    """Growth, a partial line, rotation, copying and truncation, a new file: each line is in the results once."""
    _append("app.log", 1, 2)
    process = Process(PIPELINE)
    process.wait_for(2)
    _append("app.log", 3, rest='{"n"')  # growth: perhaps read and not committed
    process.kill()
    _append("app.log", rest=": 4}\n")
    process.start()
    process.wait_for(4)
    process.kill()
    _append("app.log", 5)
    _rotate("app.log")
    _append("app.log", 6)
    process.start()
    process.wait_for(6)
    _append("app.log", 7)
    process.wait_for(7)
    process.kill()
    _append("app.log", 8)
    shutil.copy("app.log", "app.log.0")
    os.truncate("app.log", 0)
    _append("app.log", 9)
    _append("web-1.txt", 10)
    process.start()
    process.wait_for(9)
    process.wait_for(10)
    _append("web-1.txt", 11)
    process.kill()
    process.start()
    process.wait_for(11)
    process.kill()
    assert sorted(process.results()) == [*range(1, 12)]
    assert Path("stderr").read_text().count("was truncated") == 1


def test_a_shell_pipeline_that_is_killed_goes_on() -> None:
    _append("app.log", 1)
    first, second = PIPELINE.split(" | ")
    line = f"{sys.executable} -m clickpipe {first} | {sys.executable} -m clickpipe {second}"
    for number in (1, 2, 3):
        running = subprocess.Popen(["bash", "-c", line], env=environment(Path.cwd()), start_new_session=True)
        deadline = time.monotonic() + 60
        while f'{{"n": {number}}}' not in "".join(path.read_text() for path in Path.cwd().glob("out.ndjson.parts/*.ndjson")):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        _append("app.log", number + 1)
    lines = "".join(path.read_text() for path in sorted(Path.cwd().glob("out.ndjson.parts/*.ndjson"))).splitlines()
    assert lines == [f'{{"n": {number}}}' for number in (1, 2, 3)]


def test_what_is_gone_stops_the_run_with_78() -> None:
    _append("app.log", 1)
    process = Process(PIPELINE)
    process.wait_for(1)
    process.kill()
    Path("app.log").write_text("")  # a new file, and the old one packed
    os.rename("app.log", "app.new")
    _append("other", 1)
    os.rename("other", "app.log")
    os.remove("app.new")
    words = [sys.executable, "-m", "clickpipe", "run", "-c", PIPELINE]
    done = subprocess.run(words, env=environment(Path.cwd()), capture_output=True, text=True, check=False)
    assert done.returncode == 78, done.stderr
    assert "app.log: the file that was being read is not beside it any more; 9 bytes of it had been read" in done.stderr


@pytest.mark.parametrize("is_there", [False, True])
def test_explain_does_not_wait(is_there: bool) -> None:
    if is_there:
        _append("app.log", 1)
    words = [sys.executable, "-m", "clickpipe", "explain", "-c", "ingest app.log --follow --format ndjson | filter 'n > 0'"]
    done = subprocess.run(words, env=environment(Path.cwd()), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert ("1. ingest: follows; no event time" in done.stdout) is is_there
    assert ("columns  n int" in done.stdout) is is_there
    assert "source: files are followed" in done.stdout


# Any order of events.

EVENTS = (
    "append",
    "partial",
    "rotate",
    "rename",
    "copytruncate",
    "truncate",
    "new",
    "read",
    "read twice",
    "read unsaved",
    "kill",
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(EVENTS), max_size=25))
def test_any_order_of_events(here: Path, events: list[str]) -> None:
    """Appending, rotating, truncating what was read, new files, kills: each whole line is there once."""
    for name in os.listdir(here):
        os.remove(name)
    world = _World()
    for event in events:
        world.happen(event)
    world.end()
    assert sorted(_numbers(world.run)) == list(range(1, world.number + 1)), events
    assert world.run.dead == []


class _World:
    """Writers and a reader. A file is truncated only when something of it has been read."""

    def __init__(self) -> None:
        self.run = Run("app.log 'web-*.txt' --format ndjson --columns n:int")
        self.number = self.files = 0
        self.rest = ""
        self._append()
        self._read()

    def happen(self, event: str) -> None:
        getattr(self, f"_{event.replace(' ', '_')}")()

    def _append(self) -> None:
        self._complete()
        _append("app.log", *[self._next() for _ in range(3)])

    def _next(self) -> int:
        self.number += 1
        return self.number

    def _partial(self) -> None:
        self._complete()
        line = json.dumps({"n": self._next()}) + "\n"
        _append("app.log", rest=line[:5])
        self.rest = line[5:]

    def _complete(self) -> None:
        if self.rest:
            _append("app.log", rest=self.rest)
        self.rest = ""

    def _rotate(self) -> None:
        self._rename()
        self._append()

    def _rename(self) -> None:
        self._complete()
        if os.path.exists("app.log"):
            _rotate("app.log")

    def _copytruncate(self) -> None:
        self._append()
        self._read_twice()
        self._read_twice()
        self._append()
        _rotate("app.log")
        shutil.copy("app.log.1", "copy")
        os.rename("app.log.1", "app.log")
        os.rename("copy", "app.log.1")
        os.truncate("app.log", 0)

    def _truncate(self) -> None:
        self._append()
        for _ in range(15):
            self._read_twice()
        os.truncate("app.log", 0)

    def _new(self) -> None:
        self.files += 1
        _append(f"web-{self.files}.txt", self._next(), self._next())

    def _read(self) -> None:
        self.run.read()

    def _read_twice(self) -> None:
        self.run.read(rounds=2)

    def _read_unsaved(self) -> None:
        self.run.read(save=False)

    def _kill(self) -> None:
        self.run.kill()

    def end(self) -> None:
        self._complete()
        self.run.read(rounds=40)
        self.run.kill()
        self.run.read(rounds=3)
        self.run.kill()
