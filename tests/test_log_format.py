"""Messages on standard error: for people, for machines as one JSON object a line, for systemd's journal with priorities."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from running import PIPELINE

from clickpipe.cli import progress, supervised, words
from clickpipe.errors import Caution, Failure
from clickpipe.testing import environment

TEXTS = "ts level pipeline msg".split()
LINES = '{"ts":1,"page":"/a"}\noops\n{"ts":2,"page":"/b"}\n'
JSON = {"CLICKPIPE_LOG_FORMAT": "json"}


def _run(folder: Path, *said: str | bytes, **more: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "clickpipe", *said]
    return subprocess.run(
        command, cwd=folder, capture_output=True, env=environment(folder, **more), check=False, stdin=subprocess.DEVNULL
    )


def _objects(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    """Every line of standard error is one, and has what all have."""
    told = [json.loads(line) for line in done.stderr.decode().splitlines()]
    for one in told:
        assert list(one)[:4] == TEXTS
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one["ts"])
        assert one["level"] in ("info", "warning", "error")
    return told


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """With records in in.ndjson, one of them bad."""
    (tmp_path / "in.ndjson").write_text(LINES)
    return tmp_path


@pytest.mark.parametrize(
    ("before", "after", "more"),
    [
        (["--log-format", "json"], [], {}),
        ([], ["--log-format=json"], {}),
        ([], [], JSON),
        ([], ["--log-format", "json"], {"CLICKPIPE_LOG_FORMAT": "text"}),
    ],
)
def test_accounts_are_numbers(before: list[str], after: list[str], more: dict[str, str], some: Path) -> None:
    pipeline = "ingest in.ndjson --time ts | aggregate n='count(*)' | sink out.ndjson"
    first, results, dead = _objects(_run(some, *before, "run", *after, "-c", pipeline, **more))
    assert first["msg"] == "read 3 = aggregated 2 + dead letter 1"
    assert (first["account"], first["counts"]) == ("read", {"read": 3, "aggregated": 2, "dead": 1})
    assert (results["account"], results["counts"]) == ("results", {"read": 1, "written": 1})
    assert dead["dead_path"] == str(some / ".home" / "pipelines" / "in" / "dead.ndjson")
    assert {one["pipeline"] for one in (first, results, dead)} == {"in"}


def test_accounts_of_windows_say_which(some: Path) -> None:
    pipeline = "ingest in.ndjson --time ts | window tumble 1h | aggregate n='count(*)' | sink out.ndjson"
    told = _objects(_run(some, "run", "--accounts", "windows", "-c", pipeline, **JSON))
    (hour,) = [one for one in told if "window_start" in one]
    assert hour["window_start"] == "1970-01-01T00:00:00Z"
    assert hour["counts"] == {"read": 2, "aggregated": 2}


def test_text_is_the_default(some: Path) -> None:
    done = _run(some, "run", "-c", "ingest in.ndjson | sink out.ndjson")
    first, dead = done.stderr.decode().splitlines()
    assert first == "clickpipe: read 3 = dead letter 1 + written 2"
    assert dead.startswith("clickpipe: dead letters: ")


def test_a_step_takes_the_name_of_the_pipeline_from_its_stream(some: Path) -> None:
    wrong = "clickpipe filter --log-format json \"nothing = 'a'\" 2> told"
    script = f"clickpipe ingest in.ndjson --name clicks | {wrong} | cat > /dev/null"
    subprocess.run(["bash", "-c", script], cwd=some, env=environment(some), check=True)
    (error,) = [json.loads(line) for line in (some / "told").read_text().splitlines()]
    assert (error["level"], error["pipeline"], error["code"]) == ("error", "clicks", 2)


def test_processes_that_are_started_inherit_it(some: Path) -> None:
    done = _run(some, "run", "--no-fuse", "--log-format", "json", "-c", "ingest in.ndjson --time ts | sink out.ndjson")
    assert done.returncode == 0
    assert [one["counts"]["read"] for one in _objects(done) if "counts" in one] == [3]


def test_a_restart_is_a_warning_about_its_pipeline(folder: Path) -> None:
    pipeline = PIPELINE.format(file="in.ndjson", name="c")
    once = {"CLICKPIPE_KILL_POINT": "after-manifest:2", "CLICKPIPE_KILL_ONCE": str(folder / "killed")}
    done = _run(folder, "run", "-c", pipeline, **JSON, **once)
    assert done.returncode == 0, done.stderr
    (restart,) = [one for one in _objects(done) if "goes on from checkpoint" in one["msg"]]
    assert (restart["level"], restart["pipeline"]) == ("warning", "c")


def test_an_error_of_several_lines_is_one_line_with_its_parts(some: Path) -> None:
    done = _run(some, "run", "-c", "ingest in.ndjson | aggregate --by pgae n='count(*)' | sink -", **JSON)
    (error,) = _objects(done)
    assert done.returncode == error["code"] == 2
    assert error["msg"] == 'aggregate: no column "pgae" to group by'
    assert (error["where"], error["hint"]) == (["aggregate"], 'did you mean "page"?')
    assert error["notes"] == ["the step before gives: ts, page"]
    place = error["place"]
    assert place["line"][place["start"] : place["end"]] == "pgae"


@pytest.mark.parametrize("name", [b"a\nb", b"\x1b[31mred", b'"}{"', b"\xff\xfe", "\u202e\x85".encode(), b"x" * 100])
def test_hostile_names_stay_within_their_line(name: bytes, some: Path) -> None:
    done = _run(some, "run", name + b".toml", **JSON)
    (error,) = _objects(done)
    assert (done.returncode, error["level"]) == (2, "error")
    assert error["msg"].replace("\n", "").isprintable()
    assert "No such file" in error["msg"]


@pytest.mark.parametrize(
    "said",
    [["filter"], ["filter", "--nothing"], ["agregate"], ["window", "tumble", "x", "y"], [], ["status", "nothing"], ["--nothing"]],
)
def test_what_is_wrong_with_a_command_line_is_said_in_json_too(said: Sequence[str], some: Path) -> None:
    done = _run(some, *said, **JSON)
    (error,) = _objects(done)
    assert (done.returncode, error["code"], error["level"]) == (2, 2, "error")


def test_the_option_counts_before_the_command_line_is_understood(some: Path) -> None:
    (error,) = _objects(_run(some, "filter", "--nothing", "--log-format", "json"))
    assert "--nothing" in error["msg"]


def test_forms_that_there_are_not(some: Path) -> None:
    done = _run(some, "status", CLICKPIPE_LOG_FORMAT="xml")
    assert done.returncode == 2
    assert done.stderr == b'clickpipe: CLICKPIPE_LOG_FORMAT is "xml"; it can be text or json\n'
    done = _run(some, "status", "--log-format", "xml")
    assert done.returncode == 2
    assert b"'xml' is not one of 'text', 'json'" in done.stderr


def test_a_full_disk_is_said_in_json(some: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "clickpipe", "--help"],
            cwd=some,
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(some, **JSON),
            check=False,
        )
    told = json.loads(done.stderr)
    assert (done.returncode, told["code"], told["level"]) == (74, 74, "error")


# systemd's journal


def _to_file(folder: Path, *said: str, matches: bool, **more: str) -> list[str]:
    """Standard error as lines, where it goes to a file of which $JOURNAL_STREAM says that it is the journal."""
    path = folder / "journal"
    with open(path, "wb") as file:
        status = os.fstat(file.fileno())
        stream = f"{status.st_dev}:{status.st_ino + (not matches)}"
        command = [sys.executable, "-m", "clickpipe", *said]
        subprocess.run(command, cwd=folder, stderr=file, env=environment(folder, JOURNAL_STREAM=stream, **more), check=False)
    return path.read_text().splitlines()


def test_each_line_for_the_journal_has_its_priority(some: Path) -> None:
    wrong = "ingest in.ndjson | aggregate --by pgae n='count(*)' | sink -"
    lines = _to_file(some, "run", "-c", wrong, matches=True)
    assert len(lines) > 2
    assert all(line.startswith("<3>") for line in lines)
    right = _to_file(some, "run", "-c", "ingest in.ndjson | sink out.ndjson", matches=True)
    assert all(line.startswith("<6>clickpipe: ") for line in right)


def test_another_stream_has_none(some: Path) -> None:
    assert all(line.startswith("clickpipe: ") for line in _to_file(some, "status", "x", matches=False)[:1])


def test_json_has_none(some: Path) -> None:
    lines = _to_file(some, "run", "-c", "ingest in.ndjson | sink out.ndjson", matches=True, **JSON)
    assert lines
    assert all(json.loads(line)["level"] == "info" for line in lines)


# What is said in between


@pytest.mark.parametrize(("text", "level"), [("a", "info"), (Caution("a"), "warning"), (Failure("a"), "error")])
def test_who_speaks_says_how_bad_it_is(
    text: str, level: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(words.FORMAT, "json")
    words.say(text)
    assert json.loads(capsys.readouterr().err)["level"] == level


def test_what_a_supervisor_of_several_says_is_about_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(words.FORMAT, "json")
    supervised._tell(["a", "b"], Caution("b: killed by SIGKILL"))
    assert json.loads(capsys.readouterr().err)["pipeline"] == "b"


def test_no_bar_is_drawn_among_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.isatty", lambda _: True)
    monkeypatch.setenv("TERM", "xterm")
    assert progress._is_for_people(prints=False)
    monkeypatch.setenv(words.FORMAT, "json")
    assert not progress._is_for_people(prints=False)
