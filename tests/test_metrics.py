"""What processes say of themselves, and what is made of it: metrics, and whether all is well."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from running import Start, errors, until

from clickpipe.state import samples
from clickpipe.state.samples import Before, CheckpointSample, Sample, SplitSample, StepSample
from clickpipe.testing import environment
from clickpipe.top.exposition import text
from clickpipe.top.model import Pipeline, Told, pipelines, troubles
from clickpipe.top.serving import health

STEPS = ("ingest in.ndjson --time ts --name c", "window tumble 5s", "aggregate --by page n='count(*)'", "sink c.ndjson")


def shell(folder: Path, line: str, **more: str) -> subprocess.CompletedProcess[str]:
    words = line.replace("clickpipe ", f"{sys.executable} -m clickpipe ")
    return subprocess.run(
        ["bash", "-c", words], cwd=folder, env=environment(folder, **more), capture_output=True, text=True, check=False
    )


def metrics(folder: Path, *words: str) -> dict[tuple[str, ...], float]:
    """By name, and the values of the labels that are not empty, in the order of their names."""
    done = shell(folder, "clickpipe metrics " + " ".join(words))
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


def parsed(said: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(said)
    return {
        (one.name, *(value for _, value in sorted(one.labels.items()) if value)): one.value
        for family in families
        for one in family.samples
    }


def top(folder: Path, *names: str) -> list[dict[str, Any]]:
    done = shell(folder, " ".join(["clickpipe top --json", *names]))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _background(folder: Path, line: str) -> subprocess.Popen[bytes]:
    """In a process group of its own."""
    return subprocess.Popen(
        ["bash", "-c", line], cwd=folder, env=environment(folder), start_new_session=True, stderr=subprocess.DEVNULL
    )


def _of(folder: Path, name: str = "c") -> dict[str, Any]:
    return next((one for one in top(folder) if one["name"] == name), {})


def test_every_process_says_what_it_did(folder: Path) -> None:
    """In a shell too, at the end: what went in and out of each step, and what became of records."""
    with (folder / "in.ndjson").open("a") as file:
        file.write("oops\n" + json.dumps({"ts": 1_767_225_600_000, "page": "/late"}) + "\n")
    done = shell(folder, " | ".join(f"clickpipe {step}" for step in STEPS))
    assert done.returncode == 0, done.stderr
    (one,) = top(folder)
    assert (one["state"], one["records"], one["is_running"]) == ("ended", 6_002, False)
    flow = [(step["name"], step["records_in"], step["records_out"]) for step in one["steps"]]
    assert flow == [("ingest", 6_002, 6_001), ("window", 6_001, 6_000), ("aggregate", 6_000, 168), ("sink", 168, 168)]
    assert one["outcomes"] == {"aggregated": 6_000, "late": 1, "dead": 1, "written": 168}
    assert one["bytes_in"] == (folder / "in.ndjson").stat().st_size
    assert one["bytes_out"] == (folder / "c.ndjson").stat().st_size
    assert one["greatest"] == 1_767_225_600_000 + 5_999 * 20


def test_a_fused_run_says_the_same(folder: Path) -> None:
    line = " | ".join(STEPS)
    fused = folder / "fused"
    fused.mkdir()
    (fused / "in.ndjson").write_bytes((folder / "in.ndjson").read_bytes())
    assert shell(folder, " | ".join(f"clickpipe {step}" for step in STEPS)).returncode == 0
    assert shell(fused, f'clickpipe run -c "{line}"').returncode == 0
    told = [top(place)[0] for place in (folder, fused)]
    same = ("records", "outcomes", "bytes_in", "bytes_out", "watermark", "greatest")
    assert [told[0][key] for key in same] == [told[1][key] for key in same]
    flows = [[(step["name"], step["records_in"], step["records_out"]) for step in one["steps"]] for one in told]
    assert flows[0] == flows[1]


def test_nothing_is_said_where_nobody_wants_it(folder: Path) -> None:
    assert shell(folder, 'clickpipe run -c "ingest in.ndjson | sink out.ndjson"', CLICKPIPE_METRICS="off").returncode == 0
    assert not (folder / ".home" / "run").exists()


def test_a_place_that_cannot_be_written_stops_nothing(folder: Path) -> None:
    (folder / ".home").mkdir()
    (folder / ".home" / "run").write_text("a file stands where the folder should be")
    done = shell(folder, 'clickpipe run -c "ingest in.ndjson | sink out.ndjson"')
    assert (done.returncode, done.stderr) == (0, "clickpipe: read 6,000 = written 6,000\n")


def test_memory_is_used_where_a_session_has_some(folder: Path) -> None:
    """And what says so in the home, as cron does, is found too."""
    home, memory = folder / "state", folder / "memory"
    memory.mkdir(mode=0o700)
    plain = {"CLICKPIPE_HOME": "", "XDG_STATE_HOME": str(home)}
    line = 'clickpipe run -c "ingest in.ndjson --name {} | sink out.ndjson"'
    assert shell(folder, line.format("cron"), **plain).returncode == 0
    assert shell(folder, line.format("session"), **plain, XDG_RUNTIME_DIR=str(memory)).returncode == 0
    assert [path.name for path in memory.glob("clickpipe/*")] == ["session"]
    assert [path.name for path in home.glob("clickpipe/run/*")] == ["cron"]
    done = shell(folder, "clickpipe top --json", **plain, XDG_RUNTIME_DIR=str(memory))
    assert sorted(json.loads(line)["name"] for line in done.stdout.splitlines()) == ["cron", "session"]


@pytest.fixture
def slow(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A pipeline in a shell whose output is taken slowly."""
    (folder / "in.ndjson").write_text((folder / "in.ndjson").read_text() * 40)
    reads = "import sys, time\nwhile sys.stdin.buffer.read(20_000): time.sleep(0.05)"
    steps = ("ingest in.ndjson --name c", "select page", "sink - -q")
    line = " | ".join([*(f"{sys.executable} -m clickpipe {step}" for step in steps), f"{sys.executable} -c '{reads}'"])
    process = _background(folder, line)
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.usefixtures("slow")
def test_time_adds_up_and_the_slow_one_is_named(folder: Path) -> None:
    """Under a slow reader: busy, idle and backpressured are 1,000 ms a second within 2 %, and the sink is what all wait for."""
    found: list[dict[str, Any]] = []

    def is_held_up() -> bool:
        """Behind the first second, in which its start is seen too."""
        found[:] = [_of(folder)]
        why = {"step": "sink", "hop": 2, "why": "what it writes is not taken"}
        return found[0].get("bottleneck") == why and found[0]["steps"][-1]["spending"]["backpressured"] > 500

    until(is_held_up, "the sink is not named")
    (one,) = found
    assert one["is_running"]
    for step in one["steps"]:
        assert sum(step["spending"].values()) == pytest.approx(1_000, rel=0.02), step
        assert step["busy"] <= 1.02 * step["spending"]["busy"] + 1
    told = metrics(folder)
    names = ("busy", "idle", "backpressured")
    for hop, step in (("0", "ingest"), ("1", "select"), ("2", "sink")):
        times = [told[(f"clickpipe_step_{name}_milliseconds_per_second", hop, "c", step)] for name in names]
        assert sum(times) == pytest.approx(1_000, rel=0.02)


def test_two_of_one_name_are_told_apart(folder: Path) -> None:
    line = (
        f"(cat in.ndjson; sleep 60) | {sys.executable} -m clickpipe ingest - --name c | {sys.executable} -m clickpipe sink c.out"
    )
    found = [
        subprocess.Popen(
            ["bash", "-c", line], cwd=folder, env=environment(folder), start_new_session=True, stderr=subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    try:
        until(lambda: [len(one["processes"]) for one in top(folder)] == [2, 2], "they are not two")
        assert len({one["life"] for one in top(folder)}) == 2
    finally:
        for process in found:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_killed_pipeline_says_so(folder: Path, start: Start) -> None:
    process = start("run", "-c", "ingest in.ndjson --follow --time ts --name c | sink /dev/null")
    until(lambda: _of(folder).get("is_running"), "it does not run")
    process.kill()
    process.wait()
    one = _of(folder)
    assert (one["state"], one["is_running"]) == ("killed", False)
    found = metrics(folder)
    assert found[("clickpipe_up", "c")] == 0
    again = start("run", "-c", "ingest in.ndjson --follow --time ts --name c | sink /dev/null")
    until(lambda: [one["state"] for one in top(folder)] == ["running"], "what the dead one left is still there")
    again.terminate()


@pytest.mark.parametrize("options", ["", "--checkpoint 1ms"], ids=["without checkpoints", "with checkpoints"])
def test_once_it_is_seen_it_is_seen_until_it_ends(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    """Also while it restores its state, and begins to compute: it is one process, and never none."""
    monkeypatch.setenv("CLICKPIPE_HOME", str(folder / ".home"))
    line = f"ingest in.ndjson --follow --time ts --name c {options} | window tumble 5s | aggregate --by page n='count(*)'"
    process = start("run", "-c", f"{line} | sink c.ndjson")
    until(lambda: samples.read("c"), "it is not seen")
    counts: list[int] = []
    until(lambda: counts.append(len(found := samples.read("c"))) or any(one.records for one in found), "it does not compute")
    process.terminate()
    assert process.wait(60) in (0, 143), errors(folder)
    assert set(counts) == {1}
    assert not list((folder / ".home" / "run" / "c").glob("opening*"))


def test_what_goes_while_it_is_looked_at_is_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process has begun to compute between the listing and the reading; another one of its pipeline is there all the time."""
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path))
    samples.write("c", _sample(steps=()), "opening@1-1.json")
    samples.write("c", _sample(hop=3, process=2))
    read_own = samples.read_own

    def begun(path: str) -> bytes:
        if path.endswith("opening@1-1.json"):
            samples.write("c", _sample())
            os.unlink(path)
        return read_own(path)

    monkeypatch.setattr(samples, "read_own", begun)
    assert [one.process for one in samples.read("c")] == [1, 2]


def test_one_that_fails_before_it_computes_is_not_seen(folder: Path) -> None:
    assert shell(folder, "clickpipe run -c 'ingest in.ndjson --time ts --name c | select nothing | sink x'").returncode == 2
    assert top(folder) == []


def test_one_that_stands_still_is_silent(folder: Path, start: Start) -> None:
    process = start("run", "-c", "ingest in.ndjson --follow --time ts --name c | sink /dev/null")
    until(lambda: _of(folder).get("is_running"), "it does not run")
    process.send_signal(signal.SIGSTOP)
    until(lambda: _of(folder)["state"] == "silent", "nobody notices")
    process.send_signal(signal.SIGCONT)
    until(lambda: _of(folder)["state"] == "running", "nor that it goes on")


def test_checkpoints_and_splits_are_told(folder: Path, start: Start) -> None:
    (folder / "other.ndjson").write_text((folder / "in.ndjson").read_text().replace(": 17672", ": 17671"))
    steps = "window tumble 5s | aggregate --by page n='count(*)' | sink view:c"
    process = start("run", "-c", f"ingest '*.ndjson' --follow --time ts --name c --checkpoint 100ms | {steps}")
    until(lambda: (_of(folder).get("checkpoint") or {}).get("bytes"), "no checkpoint is told of")
    until(lambda: len(_of(folder)["splits"]) == 2, "not both splits")
    one = _of(folder)
    assert one["run"] == 1
    assert one["interval"] == 0.1
    assert one["checkpoint"]["seconds"] < 60
    assert {split["name"] for split in one["splits"]} == {"in.ndjson", "other.ndjson"}
    assert one["held_by"] == "other.ndjson"
    assert one["watermark"] == min(split["watermark"] for split in one["splits"])
    assert next(step["state_rows"] for step in one["steps"] if step["name"] == "aggregate") > 0
    found = metrics(folder)
    assert found[("clickpipe_checkpoint_epoch", "c")] >= 1
    assert found[("clickpipe_split_position_bytes", "c", "in.ndjson")] == (folder / "in.ndjson").stat().st_size
    process.terminate()
    assert process.wait(60) == 0, errors(folder)
    assert _of(folder)["state"] == "stopped"


def test_workers_are_one_step(folder: Path) -> None:
    steps = "partition --by page --workers 2 | window tumble 5s | aggregate --by page n='count(*)' | merge | sink c.ndjson"
    assert shell(folder, f'clickpipe run -c "ingest in.ndjson --time ts --name c | {steps}"').returncode == 0
    (one,) = top(folder)
    window = next(step for step in one["steps"] if step["name"] == "window")
    assert (window["workers"], window["records_in"]) == (2, 6_000)
    assert one["outcomes"] == {"aggregated": 6_000, "written": 168}


def test_workers_that_do_nothing_are_told_of_too(folder: Path) -> None:
    """And what merges them, where nothing is behind it."""
    done = shell(
        folder, "clickpipe ingest in.ndjson --name c | clickpipe partition --by page --workers 2 merge | clickpipe sink c.ndjson"
    )
    assert done.returncode == 0, done.stderr
    (one,) = top(folder)
    assert one["outcomes"] == {"written": 6_000}
    assert [step["name"] for step in one["steps"]][-1] == "sink"


def test_the_textfile_is_seen_whole(folder: Path) -> None:
    shell(folder, 'clickpipe run -c "ingest in.ndjson --name c | sink out.ndjson"')
    assert shell(folder, "clickpipe metrics --textfile .").returncode == 0
    path = folder / "clickpipe.prom"
    assert path.stat().st_mode & 0o777 == 0o644
    assert parsed(path.read_text())[("clickpipe_records_in_total", "c")] == 6_000
    assert [one.name for one in folder.iterdir() if one.name.endswith(".part")] == []
    done = shell(folder, "clickpipe metrics --textfile nowhere")
    assert (done.returncode, done.stderr) == (2, "clickpipe: --textfile: nowhere is no directory\n")


def test_what_people_call_things_is_escaped(folder: Path) -> None:
    """Names of splits may hold anything."""
    name = 'a"b\\c\nd\x1b]52;c;x\x07.ndjson'
    (folder / name).write_text((folder / "in.ndjson").read_text())
    one = _running(splits=(SplitSample(name, 7),))
    said = text(lambda: [one])[0].decode()
    assert parsed(said)[("clickpipe_split_position_bytes", "c", name)] == 7
    assert said.count("\n") == len(said.splitlines())


@pytest.fixture
def served(folder: Path, start: Start) -> tuple[subprocess.Popen[str], int]:
    process = start("metrics", "--listen", "127.0.0.1:0")
    until(lambda: "listening on" in errors(folder), "it does not listen")
    match = re.search(r"listening on http://127.0.0.1:(\d+)/metrics", errors(folder))
    assert match
    return process, int(match[1])


def _get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.headers["Content-Type"]


def test_a_scraper_is_answered(folder: Path, served: tuple[subprocess.Popen[str], int]) -> None:
    process, port = served
    shell(folder, 'clickpipe run -c "ingest in.ndjson --name c | sink out.ndjson"')
    code, body, kind = _get(port, "/metrics")
    assert (code, kind.split(";")[0]) == (200, "text/plain")
    assert parsed(body)[("clickpipe_records_in_total", "c")] == 6_000
    open_metrics = _get(port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert open_metrics[1].endswith("# EOF\n")
    assert _get(port, "/metrics", "HEAD")[1] == ""
    assert _get(port, "/etc/passwd")[0] == 404
    assert json.loads(_get(port, "/healthz")[1]) == {"healthy": True, "pipelines": 1, "troubles": {}}
    process.terminate()
    assert process.wait(10) == 143


def test_who_says_nothing_holds_up_nobody(served: tuple[subprocess.Popen[str], int]) -> None:
    _, port = served
    with socket.create_connection(("127.0.0.1", port)) as one, socket.create_connection(("127.0.0.1", port)) as other:
        other.sendall(b"\0\xff" * 100 + b"\r\n\r\n")
        assert _get(port, "/healthz")[0] == 200
        one.sendall(b"GET /metr")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--listen", "0.0.0.0:0"], "other machines can reach"),
        (["--listen", "127.0.0.1"], "no address of a socket"),
        (["--listen", "127.0.0.1:x"], "no address of a socket"),
        (["--every", "5s"], "--every is for --textfile"),
        (["--textfile", ".", "--listen", "127.0.0.1:0"], "one of --textfile and --listen"),
        (["bogus"], 'nothing is known of a pipeline "bogus"'),
    ],
)
def test_mistakes_of_metrics(folder: Path, words: list[str], said: str) -> None:
    done = shell(folder, " ".join(["clickpipe metrics", *words]))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


# The model.

_NOTHING = Told()


def _sample(**more: Any) -> Sample:
    """Half a second ago a process that has read 100 records in the second before."""
    before = Before(9.0, 900, 0.2, 0.1, 9_000, 0, ((900, 900, 8.0),))
    step = StepSample(0, "ingest", "x", 1_000, 1_000, 10, 8.5)
    told = Sample(
        1, 0, None, 1_000, 10.0, 9.2, 0.5, 0.3, born=5, life="1-5", when=1_000.0, steps=(step,), before=before, bytes_in=10_000
    )
    return replace(told, **more)


def _pipeline(*found: Sample, told: Told = _NOTHING, alive: bool = True, at: float = 10.5, when: float = 1_000.5) -> Pipeline:
    return pipelines([("c", sample, alive and not sample.ended) for sample in found], {"c": told}, when, at)[0]


def _running(**more: Any) -> Pipeline:
    return _pipeline(_sample(**more))


def test_rates_are_of_the_last_second() -> None:
    one = _running()
    assert (one.rate, one.bytes_rate) == (100, 1_000)
    (step,) = one.steps
    assert (step.rate_in, step.busy) == (100, 500)
    assert (step.spending.idle, step.spending.backpressured) == (pytest.approx(300), pytest.approx(200))
    assert step.spending.busy == pytest.approx(500)


def test_what_has_said_nothing_for_long_does_nothing() -> None:
    one = _pipeline(_sample(), at=20.0)
    assert (one.state, one.rate) == ("silent", 0)
    assert one.steps[0].spending.idle == 1_000


def test_the_watermark_is_that_of_the_last_process() -> None:
    ahead, behind = _sample(watermark=999_000), _sample(hop=1, watermark=990_000, process=2)
    one = _pipeline(ahead, behind)
    assert (one.watermark, one.lag) == (990_000, 10_500)
    assert _pipeline(ahead, replace(behind, watermark=None)).watermark is None


@pytest.mark.parametrize(
    ("ends", "told", "state"),
    [
        (("done", "done"), Told(), "ended"),
        (("done", "failed"), Told(), "failed"),
        (("done", ""), Told(), "killed"),
        (("stopped", "done"), Told(), "stopped"),
        (("done", "done"), Told("stopped"), "stopped"),
        (("failed", ""), Told("waiting", 3), "waiting"),
    ],
)
def test_how_it_ended(ends: tuple[str, ...], told: Told, state: str) -> None:
    found = [_sample(hop=number, ended=end, process=number) for number, end in enumerate(ends)]
    assert _pipeline(*found, told=told, alive=False).state == state


def test_the_bottleneck_is_the_first_that_is_not_held_up() -> None:
    """Behind the last that is; and where nobody is, the busiest."""

    def process(hop: int, held: float, busy: float) -> Sample:
        before = Before(9.0, 0, 0.0, 0.0, 0, 0, ((0, 0, 0.0),))
        step = StepSample(hop, f"step {hop}", busy=busy)
        return _sample(hop=hop, process=hop, backpressured=held, idle=1 - held - busy, steps=(step,), before=before)

    def named(*found: Sample) -> str | None:
        one = _pipeline(*found).bottleneck
        return one and one.step

    assert named(process(0, 0.9, 0.1), process(1, 0.8, 0.2), process(2, 0, 0.9), process(3, 0, 0.1)) == "step 2"
    assert named(process(0, 0.9, 0.1), process(1, 0.9, 0.1)) == "step 1"
    assert named(process(0, 0, 0.3), process(1, 0, 0.7)) == "step 1"
    assert named(process(0, 0, 0.3), process(1, 0, 0.2)) is None


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (_running(watermark=5, moved=999.0), []),
        (_running(watermark=5, moved=900.0), ["the watermark has not moved for 100 s"]),
        (_running(watermark=5, moved=900.0, records=900), []),  # no records come
        (
            _running(watermark=5, moved=900.0, splits=(SplitSample("a", 1, 5), SplitSample("b", 1, 9))),
            ["the watermark has not moved for 100 s: a holds it back"],
        ),
        (_running(interval=1.0, checkpoint=CheckpointSample(3, 900.0, 0.1, 5)), ["the last checkpoint is 100 s old"]),
        (_running(interval=1.0, checkpoint=CheckpointSample(3, 990.0, 0.1, 5)), []),
        (_pipeline(_sample(), at=20.0), ["have said nothing"]),
        (_pipeline(_sample(), alive=False), ["killed"]),
        (_pipeline(_sample(ended="done"), told=Told("failed", 10, "10 restarts")), ["failed: 10 restarts"]),
        (_pipeline(_sample(ended="done")), []),
    ],
)
def test_what_is_not_well(one: Pipeline, said: list[str]) -> None:
    found = troubles(one, 1_000.5, 60)
    assert len(found) == len(said), found
    assert all(part in whole for part, whole in zip(said, found, strict=True)), found
    assert health([one], 1_000.5, 60)[0] == (503 if said else 200)


def test_one_number_is_said_for_each_pipeline() -> None:
    """Several of one name are told apart by their lives, but for the newest."""
    found = pipelines(
        [
            ("c", _sample(), True),
            ("c", _sample(life="2-9", process=2, when=999.0), True),
            ("c", _sample(life="3-9", when=10.0), False),
        ],
        {},
        1_000.5,
        10.5,
    )
    said = parsed(text(lambda: found)[0].decode())
    ups = {labels: value for labels, value in said.items() if labels[0] == "clickpipe_up"}
    assert ups == {("clickpipe_up", "c"): 1, ("clickpipe_up", "2-9", "c"): 1}


def test_what_is_no_sample_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path))
    samples.write("c", _sample())
    folder = tmp_path / "run" / "c"
    (path,) = folder.iterdir()
    good = path.read_text()
    for number, bad in enumerate(
        [good[:-20], good.replace('"records":1000', '"records":"x"'), good.replace('"version":1', '"version":2')]
    ):
        (folder / f"{number}@9-9.json").write_text(bad)
    (folder / "latest.json").symlink_to("/etc/passwd")
    (tmp_path / "run" / "..odd\n").mkdir()
    assert samples.read("c") == [_sample()]
    assert samples.pipelines() == ["c"]
