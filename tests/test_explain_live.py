"""What people are told of a pipeline's lateness, idle splits and clocks that run ahead."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpipe.core.advice import readable, settings
from clickpipe.core.lateness import Lateness
from clickpipe.core.units import format_duration
from clickpipe.state import observed
from clickpipe.testing import environment


def _clickpipe(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clickpipe", *words],
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment(directory),
        timeout=60,
        check=False,
    )


def _write(path: Path, times: list[int]) -> None:
    path.write_text("".join(json.dumps({"t": 1_700_000_000_000 + time}) + "\n" for time in times))


def _run(directory: Path, options: str) -> None:
    _write(directory / "a.ndjson", [*range(0, 990_000, 1_000), *[985_000] * 9, 930_000])  # 9 are 4 s behind, one 59 s
    _write(directory / "b.ndjson", [990_000, 995_000, 20_000_000, 990_500, 996_000])
    line = f"ingest a.ndjson b.ndjson --time t --name x {options} | window tumble 1s | aggregate n='count(*)' | sink o.ndjson"
    done = _clickpipe(directory, "run", "-q", "-c", line)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("checkpoint", ["", "--checkpoint 1s"])
def test_what_other_settings_would_lose(checkpoint: str, tmp_path: Path) -> None:
    """Per split and in all; from the newest checkpoint, or from what the last run has left."""
    _run(tmp_path, f"--max-out-of-orderness 2s --max-future-skew 1h {checkpoint}")
    told = _clickpipe(tmp_path, "explain", "--live", "x")
    assert told.returncode == 0, told.stderr
    origin, *lines = told.stdout.splitlines()
    assert origin.startswith("x: checkpoint " if checkpoint else "x: end of its last run, ")
    assert lines == EXPECTED.strip().splitlines()


EXPECTED = """
all 2 splits: 1,004 records, 1.10 % out of order, at most 59s behind
  --max-out-of-orderness  loses at most
                      0s         1.10 %
                      2s         1.10 %  in force
                 4s500ms         0.20 %
                      5s         0.10 %
                     59s           none
a.ndjson: 1,000 records, 1.00 % out of order, at most 59s behind
  --max-out-of-orderness  loses at most
                      0s         1.00 %
                      2s         1.00 %  in force
                 4s500ms         0.10 %
                     59s           none
b.ndjson: 4 records, 25.00 % out of order, at most 4s500ms behind
  1 record too far in the future, up to 5h16m47s ahead: dead letters
  --max-out-of-orderness  loses at most
                      0s        25.00 %
                      2s        25.00 %  in force
                 4s500ms           none
"loses" counts records that are behind the watermark; windows that are still open take them all the same.
"""


def test_a_limit_that_ended_the_run(tmp_path: Path) -> None:
    """Its last checkpoint holds no position: the newest one that does is told of."""
    _write(tmp_path / "a.ndjson", [*range(0, 5_000_000, 1_000)])
    line = "ingest a.ndjson --time t --name x --checkpoint 1ms --batch-bytes 1KiB | limit 4900 | sink o.ndjson"
    assert _clickpipe(tmp_path, "run", "-q", "-c", line).returncode == 0
    told = _clickpipe(tmp_path, "explain", "--live", "x")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("x: checkpoint ")


def test_for_programs(tmp_path: Path) -> None:
    _run(tmp_path, "--max-out-of-orderness 5s --checkpoint 1s")
    said = json.loads(_clickpipe(tmp_path, "explain", "--live", "x", "--json").stdout)
    assert (said["pipeline"], said["from"].split()[0], said["max_out_of_orderness"]) == ("x", "checkpoint", 5_000)
    assert [split["name"] for split in said["splits"]] == ["a.ndjson", "b.ndjson"]
    assert said["all"]["records"] == sum(split["records"] for split in said["splits"])
    assert {"delay": 5_000, "loses_at_most": 1 / 1_000, "in_force": True} in said["splits"][0]["settings"]


def test_what_was_seen_goes_on_over_runs(tmp_path: Path) -> None:
    """A stopped run's records count as much as those of the next one."""
    _write(tmp_path / "a.ndjson", [1_000, 0])
    line = "ingest a.ndjson --time t --name x --checkpoint 1s {more} | sink o.ndjson"
    _clickpipe(tmp_path, "run", "-q", "-c", line.format(more=""))
    first = json.loads(_clickpipe(tmp_path, "explain", "--live", "x", "--json").stdout)
    _clickpipe(tmp_path, "run", "-q", "-c", line.format(more=""))
    assert json.loads(_clickpipe(tmp_path, "explain", "--live", "x", "--json").stdout)["all"] == first["all"]
    assert first["all"]["records"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--live", "ex"), 'nothing is known of a pipeline "ex"'),
        (("--live", "untimed"), "untimed: nothing is known of its input's times yet"),
        (("--live", "x", "-c", "ingest - | sink -"), "--live NAME is for a pipeline that has run"),
        (("--live", "../x"), "a pipeline cannot be called '../x'"),
    ],
)
def test_what_cannot_be_told(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    _write(tmp_path / "a.ndjson", [1_000, 0])
    _clickpipe(tmp_path, "run", "-q", "-c", "ingest a.ndjson --name untimed --checkpoint 1s | sink o.ndjson")
    told = _clickpipe(tmp_path, "explain", *words)
    assert told.returncode == 2
    assert told.stderr.startswith(f"clickpipe: {message}"), told.stderr
    assert ("there are: untimed" in told.stderr) == (words[1] == "ex")


def test_a_damaged_file(tmp_path: Path) -> None:
    folder = tmp_path / ".home" / "pipelines" / "x"
    folder.mkdir(parents=True)
    (folder / observed.NAME).write_text('{"v":')
    told = _clickpipe(tmp_path, "explain", "--live", "x")
    assert told.returncode == 78
    assert "lateness.json is damaged" in told.stderr


def test_what_leaves_nothing_behind_leaves_no_folder(tmp_path: Path) -> None:
    """A run in which all is well writes no state, and so nothing for this either."""
    _write(tmp_path / "a.ndjson", [0, 1_000])
    _clickpipe(tmp_path, "run", "-q", "-c", "ingest a.ndjson --time t --name x | sink o.ndjson")
    assert not (tmp_path / ".home" / "pipelines").exists()


@given(st.integers(0, 10**12))
def test_readable_durations(milliseconds: int) -> None:
    """Never shorter, and of at most two units."""
    rounded = readable(milliseconds)
    assert rounded >= milliseconds
    assert rounded <= milliseconds * 1.5 + 1
    assert sum(letter.isalpha() for letter in format_duration(rounded).replace("ms", "z")) <= 3


def test_settings_that_are_the_same_are_told_once() -> None:
    assert [(one.delay, one.loses_at_most, one.in_force) for one in settings(Lateness(), 0)] == [(0, 0.0, True)]
