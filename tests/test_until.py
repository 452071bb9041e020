"""--until now: a run takes what is there when it begins, and ends; the next one goes on, as one long run would have."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from growing import append, numbers, rotate, wait_for_nothing
from running import Start, errors, until

from clickpipe.core import tail
from clickpipe.core.intake import IngestFeed
from clickpipe.core.operator import Pull
from clickpipe.errors import NothingYet, PlanError
from clickpipe.operators.ingest import Ingest
from clickpipe.plan.parse import parse
from clickpipe.testing import environment

HOUR = 3_600_000
FORMS = pytest.mark.parametrize("form", ["", " --follow"], ids=["at rest", "followed"])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass
class Runs:
    """Runs, one after the other, each from where the one before has stopped."""

    text: str
    saved: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    feed: IngestFeed | None = None

    def run(self, while_it_runs: str = "", *, columns: str = " --columns n:int") -> list[int]:
        """What it takes. `while_it_runs`: a file that grows as soon as the first record has been taken."""
        step = parse(f"ingest {self.text} --format ndjson --until now --checkpoint 1h{columns}").nodes[0].step
        assert isinstance(step, Ingest)
        self.feed = feed = step.begun(self.saved, self.notes.append)
        feed.epochs = count(1)
        feed.want(None, True)
        taken: list[int] = []
        for pull in feed.pulls():
            found = [number for batch in pull.batches for number in numbers(batch)]
            if found and not taken and while_it_runs:
                append(while_it_runs, 1_000, 1_001)
            taken += found
        feed.close()
        assert feed.last is not None
        self.saved = json.loads(json.dumps(feed.last.state[0]["source"]))
        return taken


@FORMS
def test_what_is_added_while_it_runs_is_for_the_next_run(form: str) -> None:
    append("app.log", 1, 2, rest='{"n"')
    runs = Runs("app.log" + form)
    assert runs.run(while_it_runs="app.log") == [1, 2]
    assert runs.run() == [1_001]  # the line that had begun has become a bad one
    append("app.log", 3, rest='{"n"')
    assert runs.run() == [3]
    assert runs.run() == []
    append("app.log", rest=": 4}\n")
    assert runs.run() == [4]
    assert runs.notes == []


@FORMS
def test_it_stops_and_does_not_end(form: str) -> None:
    """Windows stay open: so it is with checkpoints. Without, or with --drain, the input ends."""
    append("app.log", 1)
    for more, is_stopped in (("--checkpoint 1h", True), ("--checkpoint 1h --drain", False), ("", False)):
        step = parse(f"ingest app.log --until now {more}{form}").nodes[0].step
        assert isinstance(step, Ingest)
        feed = step.begun()
        feed.epochs = count(1) if "--checkpoint" in more else None
        assert sum(pull.read for pull in feed.pulls()) == 1
        assert feed.is_stopped is is_stopped, more


@FORMS
def test_new_files_that_a_glob_matches(form: str) -> None:
    append("a.log", 1)
    runs = Runs("'*.log'" + form)
    assert runs.run(while_it_runs="b.log") == [1]
    append("a.log", 2)
    assert sorted(runs.run()) == [2, 1_000, 1_001]
    assert runs.run() == []


def test_packed_files_that_come() -> None:
    """Each is read once, whole; those that were read may go."""
    runs = Runs("'*.log*'")
    append("a.log", 1)
    Path("b.log.gz").write_bytes(gzip.compress(b'{"n": 2}\n{"n": 3}'))
    assert sorted(runs.run()) == [1, 2, 3]
    os.remove("b.log.gz")
    append("a.log", 4)
    Path("c.log.gz").write_bytes(gzip.compress(b'{"n": 5}'))
    assert sorted(runs.run()) == [4, 5]
    assert runs.run() == []


def test_a_file_that_was_empty_may_become_anything() -> None:
    append("a.log", 1)
    Path("b.log").touch()
    runs = Runs("'*.log'")
    assert runs.run() == [1]
    Path("b.log").write_bytes(gzip.compress(b'{"n": 2}\n'))
    assert runs.run() == [2]


def test_rotation_between_two_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_nothing(monkeypatch)
    append("app.log", 1)
    runs = Runs("app.log --follow")
    assert runs.run() == [1]
    for number in (2, 5, 8):
        append("app.log", number)
        rotate("app.log")
        append("app.log", number + 1)
        rotate("app.log")
        append("app.log", number + 2)
        assert runs.run() == [number, number + 1, number + 2]


def test_the_writer_of_a_renamed_file_does_not_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never stops writing there. The next run goes on in that file."""
    monkeypatch.setattr(tail, "QUIET", 3_600.0)
    append("app.log", 1)
    runs = Runs("app.log --follow")
    runs.run()
    append("app.log", 2)
    rotate("app.log")
    append("app.log", 5)
    assert runs.run(while_it_runs="app.log.1") == [2, 1_000, 1_001]
    monkeypatch.setattr(tail, "QUIET", 0.0)
    append("app.log.1", 4)
    assert runs.run() == [4, 5]


def test_a_file_that_shrinks_while_it_is_read_does_not_keep_it() -> None:
    append("app.log", *range(100))
    step = parse("ingest app.log --follow --until now --columns n:int --format ndjson --batch-bytes 64").nodes[0].step
    assert isinstance(step, Ingest)
    feed = step.begun()
    feed.want(None, True)
    for pull in feed.pulls():
        if any(map(numbers, pull.batches)):
            os.truncate("app.log", 512)
    assert os.path.getsize("app.log") == 512


@FORMS
def test_nothing_is_there_yet(form: str) -> None:
    """The columns are inferred when there is something to infer them from, and nothing is saved before."""
    Path("app.log").touch()
    runs = Runs("app.log" + form)
    with pytest.raises(NothingYet, match=r"app\.log has no record yet"):
        runs.run(columns="")
    append("app.log", 1)
    assert runs.run(columns="") == [1]


def test_a_file_that_nobody_finishes_is_spoken_of() -> None:
    append("app.log", 1, rest='{"n": 2}')
    runs = Runs("app.log")
    assert runs.run() == [1]
    assert runs.notes == []
    os.utime("app.log", (0, 0))
    assert runs.run() == []
    assert runs.notes == ["app.log ends with 8 bytes of a line without its newline, which is left unread"]


def test_yesterdays_file_holds_nothing_back() -> None:
    """It is idle, however short this run is; of files that are idle together the last one to become so counts."""
    for name, hour, age in (("mon.log", 1, 86_400), ("tue.log", 25, 500), ("wed.log", 26, 400)):
        Path(name).write_text(json.dumps({"ts": hour * HOUR, "n": 1}) + "\n")
        os.utime(name, (0, os.stat(name).st_mtime - age))
    runs = Runs("'*.log' --follow --time ts --time-unit ms")
    runs.run(columns="")
    assert runs.saved is not None
    assert runs.saved["reached"] == 26 * HOUR
    with open("wed.log", "a") as file:
        file.write(json.dumps({"ts": 30 * HOUR, "n": 1}) + "\n")
    with open("mon.log", "a") as file:
        file.write(json.dumps({"ts": 2 * HOUR, "n": 1}) + "\n")
    step = parse("ingest '*.log' --follow --time ts --time-unit ms --until now").nodes[0].step
    assert isinstance(step, Ingest)
    late = [row for pull in step.begun(runs.saved).pulls() for row in _marked(pull)]
    assert late == [2 * HOUR]


def _marked(pull: Pull) -> list[int]:
    frames = [batch.frame for batch in pull.batches if "_mark" in batch.frame.columns]
    return [time for frame in frames for time in frame.filter(frame["_mark"].is_not_null())["ts"].to_list()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("tcp://127.0.0.1:0 --until now", "never: --until"),
        ("app.log --until 2026-01-01", "notimpl: --until 2026-01-01"),
        ("app.log --until soon", '"soon" is not a time'),
        ("app.log --drain", "--drain says how --until ends"),
        ("pipe --until now", "never: --until: pipe is a pipe"),
    ],
)
def test_where_it_cannot_be_had(words: str, said: str) -> None:
    append("app.log", 1)
    os.mkfifo("pipe")
    step = parse(f"ingest {words}").nodes[0].step
    assert isinstance(step, Ingest)
    with pytest.raises(PlanError, match=said):
        step.begun()


# As processes.


def _clickpipe(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = environment(Path.cwd(), **more)
    return subprocess.run([sys.executable, "-m", "clickpipe", *words], env=env, capture_output=True, text=True, check=False)


HOURLY = (
    "ingest {source} --time ts --name {name} --checkpoint 1ms --batch-bytes 2KiB{form} | window tumble 1h"
    " | aggregate --by page n='count(*)' first='min(n)' | sink view:{name}"
)


def _grow(first: int, count: int, path: str = "app.log") -> None:
    """A record each minute and a half, in line with the last one."""
    with open(path, "a") as file:
        for n in range(first, first + count):
            file.write(json.dumps({"ts": 1_767_225_600_000 + n * 90_000, "page": f"/p/{n % 3}", "n": n}) + "\n")


def _rows(name: str) -> list[str]:
    done = _clickpipe("query", f"SELECT * FROM {name} ORDER BY window_start, page")
    return done.stdout.splitlines()


@pytest.mark.parametrize("form", ["", " --follow", "log"], ids=["at rest", "followed", "log"])
def test_many_short_runs_give_the_rows_of_one_long_run(form: str) -> None:
    """An hour of windows is open between them; one is killed in its midst, and after each no closed window has come too early."""
    source = "log:queue" if form == "log" else "app.log"
    more = "" if form == "log" else form
    words = ["run", "--until", "now", "--restart", "no", "-c", HOURLY.format(source=source, name="short", form=more)]
    for number in range(8):
        _grow(number * 25, 25, "app.log" if form != "log" else "part.log")
        if form == "log":
            assert (
                _clickpipe("run", "-q", "-c", "ingest part.log --columns ts:int,page:str,n:int | sink log:queue").returncode == 0
            )
            os.rename("part.log", f"read.{number}")
        if number == 3:
            assert _clickpipe(*words, CLICKPIPE_KILL_POINT="after-manifest-rename").returncode == -9
        done = _clickpipe(*words)
        assert done.returncode == 0, done.stderr
        assert "the next run goes on from there" in done.stderr
        newest = 1_767_225_600_000 + ((number + 1) * 25 - 1) * 90_000
        assert _ends() <= newest
    whole = "app.log" if form != "log" else "read.*"
    _clickpipe(
        "run", "-c", HOURLY.format(source=whole, name="long", form="").replace("--checkpoint 1ms ", "--reset --checkpoint 1ms ")
    )
    last = _clickpipe(*[*words[:3], "--drain", *words[3:]])
    assert "the next run goes on" not in last.stderr, last.stderr
    assert len(_rows("long")) > 10
    assert _rows("short") == _rows("long")


def _ends() -> int:
    """Of the newest window that has closed, in epoch milliseconds."""
    done = _clickpipe("query", "SELECT CAST(window_end AS BIGINT) AS e FROM short ORDER BY e DESC LIMIT 1")
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout)["e"]) if done.stdout else 0


def test_a_log_of_two_partitions() -> None:
    """Each up to where it ends, also with --follow."""
    _grow(0, 100)
    _clickpipe("run", "-q", "-c", "ingest app.log --columns ts:int,page:str,n:int | sink log:queue --partitions 2 --by page")
    line = HOURLY.format(source="log:queue", name="both", form=" --follow")
    done = _clickpipe("run", "--until", "now", "-c", line)
    assert done.returncode == 0, done.stderr
    assert "read 100 = aggregated 100" in done.stderr


def test_rows_of_an_archive_before_a_time() -> None:
    _grow(0, 100)
    _clickpipe("run", "-q", "-c", "ingest app.log --time ts | sink archive:past")
    done = _clickpipe("run", "-c", "ingest archive:past --until 2026-01-01T01:00:00Z | aggregate n='count(*)' | sink -")
    assert done.stdout == '{"n":40}\n', done.stderr
    done = _clickpipe("run", "-c", "ingest archive:past --time n --until 2026-01-01T01:00:00Z | sink -")
    assert done.returncode == 2
    assert "does not go by n" in done.stderr


def test_an_empty_start_is_no_failure() -> None:
    """What cron says of it is not an error, and nothing with --quiet."""
    Path("r.toml").write_text(f'pipeline = """\n{HOURLY.format(source="app.log", name="empty", form=" --follow")}\n"""\n')
    done = _clickpipe("run", "--until", "now", "r.toml")
    assert (done.returncode, done.stderr) == (0, "clickpipe: app.log has no record yet\n")
    done = _clickpipe("run", "--until", "now", "--quiet", "r.toml")
    assert (done.returncode, done.stderr) == (0, "")
    _grow(0, 100)
    assert _clickpipe("run", "--until", "now", "r.toml").returncode == 0
    assert len(_rows("empty")) == 6


def test_it_leaves_a_run_alone_that_is_at_work(folder: Path, start: Start) -> None:
    _grow(0, 10)
    line = HOURLY.format(source="app.log", name="busy", form=" --follow")
    start("run", "-c", line)
    until(lambda: (folder / ".home/pipelines/busy/supervisor.json").exists(), errors(folder))
    done = _clickpipe("run", "--until", "now", "-c", line)
    assert done.returncode == 75
    assert "busy: it has a supervisor already" in done.stderr
