"""clickpipe tap: the records behind a step, without disturbing whoever makes them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from running import Start, errors, until

from clickpipe.batch import Batch
from clickpipe.columns import Columns
from clickpipe.core.loop import Edge
from clickpipe.engine.checkpoints import Place
from clickpipe.engine.taps import Taps
from clickpipe.state import samples, tapping
from clickpipe.state.tapping import Asking
from clickpipe.testing import environment

STEPS = "window tumble 5s | aggregate --by page n='count(*)'"
LIVE = "ingest in.ndjson --follow --time ts --name c | " + STEPS + " | sink c.ndjson"


def tap(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clickpipe", "tap", *words]
    return subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False, timeout=60)


def tapping_of(folder: Path, *words: str) -> subprocess.Popen[str]:
    """One that has begun: whoever is asked has seen it."""
    command = [sys.executable, "-m", "clickpipe", "tap", *words]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(
        lambda: any(has_reader(path) for path in folder.glob(".home/run/c/*.fifo")) or process.poll() is not None,
        "it does not ask",
    )
    return process


def has_reader(path: Path) -> bool:
    """Whether both ends are open: the process that is asked has found it."""
    ends = 0
    for process in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            for link in os.listdir(f"/proc/{process}/fd"):
                with suppress(OSError):
                    ends += os.readlink(f"/proc/{process}/fd/{link}") == str(path)
    return ends >= 2


def records(first: int, count: int) -> str:
    return "".join(
        json.dumps({"ts": 1_767_225_720_000 + n * 20, "page": f"/n/{n % 7}"}) + "\n" for n in range(first, first + count)
    )


def more(folder: Path, first: int = 0, count: int = 1_000) -> None:
    with (folder / "in.ndjson").open("a") as file:
        file.write(records(first, count))


def begun(start: Start, line: str = LIVE) -> subprocess.Popen[str]:
    process = start("run", "-c", line)
    until(lambda: any(one.is_alive and one.records >= 6_000 for one in samples.read("c")), "it does not run")
    return process


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("CLICKPIPE_HOME", str(folder / ".home"))


def finished(process: subprocess.Popen[str]) -> tuple[list[dict[str, Any]], str]:
    out, said = process.communicate(timeout=60)
    return [json.loads(line) for line in out.splitlines()], said


def test_what_leaves_a_step_is_seen(folder: Path, start: Start) -> None:
    """From the moment on at which it is asked; whole records, also of columns that no step behind looks at."""
    begun(start)
    process = tapping_of(folder, "c", "ingest", "--limit", "3")
    more(folder)
    found, said = finished(process)
    assert found == [json.loads(line) for line in records(0, 3).splitlines()]
    assert said.startswith("clickpipe: 3 records")
    assert not list(folder.glob(".home/run/c/tap-*")), "nothing of it is left"


@pytest.mark.parametrize(
    ("step", "named"), [("window", "window_start"), ("1", "window_start"), ("aggregate", "n"), ("sink", "n")]
)
def test_each_step_has_its_own(folder: Path, start: Start, step: str, named: str) -> None:
    begun(start)
    process = tapping_of(folder, "c", step, "--limit", "2")
    more(folder)
    found, _ = finished(process)
    assert len(found) == 2
    assert named in found[0]


def test_in_a_shell_and_behind_workers(folder: Path, start: Start) -> None:
    """All processes that run the step are asked."""
    steps = "partition --by page --workers 2 | window tumble 5s | merge | sink /dev/null"
    begun(start, f"ingest in.ndjson --follow --time ts --name c | {steps}")
    process = tapping_of(folder, "c", "window", "--limit", "1000")
    until(lambda: len([path for path in folder.glob(".home/run/c/*.fifo") if has_reader(path)]) == 2, "both are asked")
    more(folder)
    found, _ = finished(process)
    assert sorted(map(json.dumps, ({"ts": one["ts"], "page": one["page"]} for one in found))) == sorted(
        records(0, 1_000).splitlines()
    )


def test_a_share_is_spread_evenly(folder: Path, start: Start) -> None:
    begun(start)
    process = tapping_of(folder, "c", "ingest", "--sample", "0.1", "--limit", "50")
    more(folder)
    found, _ = finished(process)
    assert [one["ts"] for one in found] == [1_767_225_720_000 + (n * 10 + 9) * 20 for n in range(50)]


def test_the_pipeline_never_waits(folder: Path, start: Start) -> None:
    """A tap that reads nothing loses records, and says how many; the pipeline's results are what they would have been."""
    process = begun(start, LIVE.replace("--follow", "--follow --batch-bytes 16KiB"))
    tapped = tapping_of(folder, "c", "ingest")
    tapped.send_signal(signal.SIGSTOP)
    for first in range(0, 200_000, 20_000):
        more(folder, first, 20_000)
    until(lambda: sum(one.records for one in samples.read("c")) == 206_000, "the pipeline waits for its tap")
    tapped.send_signal(signal.SIGCONT)
    more(folder, 200_000, 1)
    until(lambda: sum(one.records for one in samples.read("c")) == 206_001, "it does not go on")
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    found, said = finished(tapped)
    assert "could not be taken in time" in said, said
    lost = int(said.split(";")[1].split()[0].replace(",", ""))
    assert lost > 0
    assert len(found) < 200_001


def test_one_that_is_recorded_is_a_fixture(folder: Path, start: Start) -> None:
    process = begun(start)
    tapped = tapping_of(folder, "c", "ingest", "--record", "kept")
    more(folder)
    until(lambda: sum(one.records for one in samples.read("c")) == 7_000, "they are not read")
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    found, said = finished(tapped)
    assert found == []
    assert (folder / "kept" / "ingest.ndjson").read_text() == records(0, 1_000)
    about = json.loads((folder / "kept" / "ingest.json").read_text())
    assert (about["pipeline"], about["records"], about["lost"]) == ("c", 1_000, 0)
    assert "1,000 records" in said


def test_a_tap_that_is_killed_leaves_nothing(folder: Path, start: Start) -> None:
    begun(start)
    tapped = tapping_of(folder, "c", "ingest")
    tapped.kill()
    tapped.communicate()
    until(lambda: not list(folder.glob(".home/run/c/tap-*")), "its pipe stays")
    assert tap(folder, "c", "nowhere").returncode == 2


def test_ctrl_c_ends_it_with_its_count(folder: Path, start: Start) -> None:
    begun(start)
    tapped = tapping_of(folder, "c", "ingest")
    more(folder, count=5)
    line = tapped.stdout.readline() if tapped.stdout else ""
    assert json.loads(line)["page"] == "/n/0"
    tapped.send_signal(signal.SIGINT)
    _, said = tapped.communicate(timeout=30)
    assert tapped.returncode == 0
    assert said == "clickpipe: 5 records\n"


def test_mistakes(folder: Path, start: Start) -> None:
    done = tap(folder, "c", "ingest")
    assert (done.returncode, done.stderr) == (2, 'clickpipe: no pipeline "c" runs\n  nothing runs\n')
    process = begun(start, LIVE.replace("| window", "| filter 'ts > 0' | filter 'ts > 1' | window"))
    for words, said in (
        (("d", "ingest"), 'no pipeline "d" runs'),
        (("c", "aggregat"), 'did you mean "aggregate"?'),
        (("c", "filter"), "c has 2 steps called filter: say which by its place"),
        (("c", "ingest", "--sample", "0"), "--sample"),
        (("c", "ingest", "--limit", "0"), "--limit"),
    ):
        done = tap(folder, *words)
        assert done.returncode == 2
        assert said in done.stderr
    process.send_signal(signal.SIGSTOP)
    done = tap(folder, "c", "ingest")
    process.send_signal(signal.SIGCONT)
    assert done.returncode == 75
    assert "does not answer" in done.stderr
    assert not errors(folder)


# Inside a process.


def test_what_there_is_no_room_for_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever computes is never held up, and all that passed is either given or lost."""
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path))
    folder = tmp_path / "run" / "c"
    folder.mkdir(parents=True)
    edges = [Edge(), Edge()]
    taps = Taps("c", edges, [Place(0, "ingest", ""), Place(1, "sink", "")], has_source=True)
    asking = Asking(str(folder), os.getpid(), 0, 1.0)
    taps.look()
    taps.look()
    assert (len(edges[0].taps), len(edges[1].taps)) == (1, 0), "once"
    columns = Columns({"n": "int"})
    batch = Batch(pl.DataFrame({"n": range(20_000)}), columns, source="x")
    for _ in range(50):
        edges[0].taps[0](batch)
    counts: dict[str, Any] = {}
    given, rest = 0, b""
    while counts.get("passed", 0) < 1_000_000 or counts["given"] + counts["lost"] < counts["passed"]:
        try:
            rest += os.read(asking.descriptor, 1 << 16)
        except BlockingIOError:
            continue
        *lines, rest = rest.split(b"\n")
        given += sum(not line.startswith(b"\t") for line in lines)
        counts = next((said for line in lines[::-1] if line.startswith(b"\t") and (said := tapping.count_of(line))), counts)
    assert counts["passed"] == 1_000_000
    assert given == counts["given"]
    assert counts["lost"] > 0
    asking.close()
    os.close(asking.descriptor)
    edges[0].taps[0](batch)
    until(lambda: not edges[0].taps, "it goes when nobody reads it")


@pytest.mark.parametrize("said", [b"", b"{", b'{"hop":"x"}', b'{"share":1}', b"[]"])
def test_what_is_no_request_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path))
    folder = tmp_path / "run" / "c"
    folder.mkdir(parents=True)
    (folder / f"tap-{os.getpid()}-0-1.json").write_bytes(said)
    assert tapping.asked("c", os.getpid()) == []
