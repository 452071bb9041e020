"""Asked to end, a pipeline ends well: where it stands, to go on from there, or as if the input had ended."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from examples import some
from running import PIPELINE, Start, children_of, epoch, errors, expected, rows, status, until

from clickpipe.state.directory import StateDirectory
from clickpipe.testing import environment

FOLLOWED = PIPELINE.format(file="log.ndjson --follow --on-idle hold", name="c")


def _words(form: str, line: str) -> list[str]:
    return ["run", *([] if form == "fused" else ["--no-fuse"] if form == "processes" else ["--restart", "no"]), "-c", line]


def _append(folder: Path, begin: int, end: int) -> None:
    """Some records of the input, to the file that is followed."""
    lines = (folder / "in.ndjson").read_text().splitlines(keepends=True)
    with open(folder / "log.ndjson", "a") as file:
        file.writelines(lines[begin:end])


def _is_read_to(folder: Path, records: int) -> bool:
    """Whether a checkpoint holds the end of so many records."""
    manifest = next(StateDirectory(str(folder / ".home/pipelines/c")).manifests(), None) if epoch(folder) else None
    if manifest is None:
        return False
    length = sum(map(len, (folder / "in.ndjson").read_text().splitlines(keepends=True)[:records]))
    return any(one["offset"] == length for split in manifest.entry(0, "source")["splits"] for one in split["generations"])


def _ask(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "clickpipe", *words]
    return subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=True).stdout


def _divided(line: str, workers: int) -> str:
    """The same by workers who each have some records of a group."""
    begin, end = line.replace("| window", f"| partition --by ts --workers {workers} | window").rsplit("| sink", 1)
    return f"{begin}| merge | sink{end}"


@pytest.mark.parametrize("form", some(["fused", "processes", "alone", "divided"]))
def test_stopped_it_goes_on_with_its_windows(form: str, folder: Path, start: Start) -> None:
    """Stopped by the command, and by a signal; then drained. The rows are those of one run."""
    first, second, third = (_words(form, _divided(FOLLOWED, workers) if form == "divided" else FOLLOWED) for workers in (2, 3, 1))
    process = start(*first)
    _append(folder, 0, 2_050)
    until(lambda: _is_read_to(folder, 2_050), "the first records are not read")
    assert _ask(folder, "stop", "c").startswith("c: stopped at checkpoint ")
    assert process.wait(60) == 0, errors(folder)
    assert status(folder)["state"] == "stopped"
    before = _parts(folder)
    assert '"window_start":"2026-01-01T00:00:40Z"' not in before  # the window in which it was stopped is not given

    process = start(*second)
    _append(folder, 2_050, 4_000)
    until(lambda: _is_read_to(folder, 4_000), "it does not go on")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, errors(folder)

    process = start(*third)
    _append(folder, 4_000, 6_000)
    until(lambda: _is_read_to(folder, 6_000), "it does not go on")
    assert _ask(folder, "drain", "--all").startswith("c: ended at checkpoint ")
    assert process.wait(60) == 0, errors(folder)
    assert status(folder)["state"] == "ended"
    assert rows(folder) == expected(folder)


def _parts(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted((folder / "c.ndjson.parts").glob("0*")))


def test_ctrl_c_once_stops_and_twice_ends_at_once(folder: Path, start: Start) -> None:
    _append(folder, 0, 100)
    process = start(*_words("fused", FOLLOWED))
    until(lambda: _is_read_to(folder, 100), errors(folder))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, errors(folder)
    assert "stopped at checkpoint" in errors(folder)

    process = start(*_words("fused", FOLLOWED))
    until(lambda: status(folder)["processes"], errors(folder))
    worker = children_of(process.pid)[0]
    os.kill(worker, signal.SIGSTOP)  # it cannot end by itself
    process.send_signal(signal.SIGINT)
    until(lambda: status(folder)["state"] == "stopping", "it was not heard")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert not status(folder)["processes"]


def test_stopped_while_it_waits_for_a_restart(folder: Path, start: Start) -> None:
    process = start(*_words("fused", FOLLOWED), CLICKPIPE_KILL_POINT="after-begin")
    until(lambda: status(folder).get("state") == "waiting" and status(folder)["restarts"] >= 3, errors(folder))
    assert _ask(folder, "stop", "c") == "c: stopped; nothing was saved\n"
    assert process.wait(60) == 0


@pytest.mark.parametrize("form", some(["fused", "processes"]))
@pytest.mark.parametrize("moment", ["waits", "starts"])
def test_drained_while_it_is_started_again(moment: str, form: str, folder: Path, start: Start) -> None:
    """Its windows are closed, even if the signal comes before anybody can take it."""
    _append(folder, 0, 6_000)
    process = start(*_words(form, FOLLOWED))
    until(lambda: _is_read_to(folder, 6_000), errors(folder))
    os.kill(children_of(process.pid)[0], signal.SIGKILL)
    until(lambda: "goes on from checkpoint" in errors(folder), "its death is not seen")
    if moment == "starts":
        until(lambda: children_of(process.pid), "it does not start")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 0, errors(folder)
    assert status(folder)["state"] == "ended"
    assert rows(folder) == expected(folder)


def test_a_shell_pipeline_is_stopped_at_its_source(folder: Path) -> None:
    """SIGTERM at ingest reaches all the others as the end of a stream that goes on later."""
    _append(folder, 0, 2_050)
    line = " | ".join(f"clickpipe {step}" for step in FOLLOWED.split(" | "))
    with open(folder / "errors", "a") as words:
        shell = subprocess.Popen(
            ["bash", "-c", f"set -o pipefail; {line}"], cwd=folder, env=environment(folder), stderr=words, start_new_session=True
        )
    try:
        until(lambda: _is_read_to(folder, 2_050), "the records are not read")
        assert _ask(folder, "stop", "c").startswith("c: stopped at checkpoint ")
        assert shell.wait(60) == 0, errors(folder)
        assert "stopped at checkpoint" in errors(folder)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)


def test_a_sink_in_the_middle_goes_on_too(folder: Path, start: Start) -> None:
    """Its file is put together at the end, not where the pipeline was stopped."""
    line = _words("alone", FOLLOWED.replace("| window", "| sink all.ndjson --pass | window"))
    for begin, end, number in ((0, 200, signal.SIGTERM), (200, 400, signal.SIGUSR1)):
        assert not (folder / "all.ndjson").exists()
        process = start(*line)
        _append(folder, begin, end)
        until(lambda end=end: _is_read_to(folder, end), errors(folder))
        process.send_signal(number)
        assert process.wait(60) == 0, errors(folder)
    assert (folder / "all.ndjson").read_bytes() == (folder / "log.ndjson").read_bytes()
    assert sum(json.loads(row)["n"] for row in rows(folder)) == 400


def test_a_file_at_rest_can_be_stopped_in_its_middle(folder: Path, start: Start) -> None:
    line = _words("alone", PIPELINE.format(file="in.ndjson", name="c"))
    process = start(*line)
    until(lambda: epoch(folder) >= 3, errors(folder))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert start(*line).wait(60) == 0, errors(folder)
    assert rows(folder) == expected(folder)


def test_a_header_that_has_not_come_comes_with_the_first_rows(folder: Path, start: Start) -> None:
    """Not when a run is stopped before it has any."""
    line = (
        "ingest log.ndjson --follow --name c --checkpoint 1ms --columns ts:int,page:str | filter 'ts > {}' | sink - --format csv"
    )
    _append(folder, 0, 100)
    process = start(*_words("alone", line.format(2**60)), stdout="rows")
    until(lambda: _is_read_to(folder, 100), errors(folder))
    process.terminate()
    assert process.wait(60) == 0, errors(folder)
    process = start(*_words("alone", line.format(2**60)), stdout="rows")
    until(lambda: status(folder)["processes"], errors(folder))
    assert _ask(folder, "drain", "c").startswith("c: ended")
    assert process.wait(60) == 0, errors(folder)
    assert (folder / "rows").read_text() == "ts,page\n"


def test_who_is_drained_before_it_has_begun_drains(folder: Path, start: Start) -> None:
    """The request waits until there is somebody to hear it."""
    _append(folder, 0, 2_050)
    process = start(*_words("fused", FOLLOWED))
    until(lambda: children_of(process.pid) or process.poll() is not None, errors(folder))
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 0, errors(folder)
    assert status(folder)["state"] == "ended"


@pytest.mark.parametrize("form", ["fused", "processes"])
def test_all_processes_of_a_service_may_be_asked_at_once(form: str, folder: Path, start: Start) -> None:
    """As systemd does: SIGTERM to the supervisor and to each process that it has started."""
    process = start(*_words(form, FOLLOWED))
    _append(folder, 0, 2_050)
    until(lambda: _is_read_to(folder, 2_050), errors(folder))
    for pid in [*children_of(process.pid), process.pid]:
        os.kill(pid, signal.SIGTERM)
    assert process.wait(60) == 0, errors(folder)
    assert "stopped at checkpoint" in errors(folder)


@pytest.mark.parametrize("checkpoint", ["", "--checkpoint 10ms"])
@pytest.mark.parametrize("victim", some([1, 2, 3]))
def test_an_idle_pipeline_hears_that_its_reader_has_died(victim: int, checkpoint: str, folder: Path) -> None:
    """Nothing more comes, so nothing more is written: the steps before end all the same, and let the lock go."""
    _append(folder, 0, 100)
    steps = [
        f"ingest log.ndjson --follow --on-idle hold --time ts --name c {checkpoint}",
        "filter 'ts > 0'",
        "select ts page",
        "sink out.ndjson",
    ]
    processes: list[subprocess.Popen[bytes]] = []
    for step in steps:
        words = [sys.executable, "-m", "clickpipe", *shlex.split(step)]
        before = processes[-1].stdout if processes else subprocess.DEVNULL
        with open(folder / "errors", "a") as told:
            after = subprocess.DEVNULL if step == steps[-1] else subprocess.PIPE
            processes.append(
                subprocess.Popen(words, stdin=before, stdout=after, stderr=told, cwd=folder, env=environment(folder))
            )
        if not isinstance(before, int) and before:
            before.close()
    try:
        until(lambda: _is_read_to(folder, 100) if checkpoint else _has_polars(processes[-1].pid), errors(folder))
        processes[victim].kill()
        assert [process.wait(30) for process in processes[:victim]] == [0] * victim, errors(folder)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _has_polars(pid: int) -> bool:
    """Whether records have come to it."""
    return "polars" in Path(f"/proc/{pid}/maps").read_text()


def test_what_stands_in_a_followed_file_is_read_before_it_is_drained(folder: Path, start: Start) -> None:
    """Also what had come while the pipeline was busy elsewhere."""
    _append(folder, 0, 2_050)
    process = start(*_words("alone", FOLLOWED))
    until(lambda: _is_read_to(folder, 2_050), errors(folder))
    process.send_signal(signal.SIGSTOP)
    _append(folder, 2_050, 6_000)
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) == 0, errors(folder)
    assert rows(folder) == expected(folder)


def test_one_of_several_is_stopped_and_then_all(folder: Path, start: Start) -> None:
    """Of one supervisor: the others go on, and nobody is ended at once."""
    for name in ("one", "two", "three"):
        text = PIPELINE.format(file="in.ndjson --follow --on-idle hold", name=name).replace("'", '"')
        (folder / f"{name}.toml").write_text(f"pipeline = '''\n{text}\n'''\n")
    process = start("run", "one.toml", "two.toml", "three.toml")
    until(lambda: all(epoch(folder, name) for name in ("one", "two", "three")), errors(folder))
    assert _ask(folder, "stop", "two").startswith("two: stopped at checkpoint ")
    assert len(children_of(process.pid)) == 2
    assert _ask(folder, "stop", "--all").count(": stopped at checkpoint ") == 2
    assert process.wait(60) == 0, errors(folder)
    assert errors(folder).count("clickpipe: stopped at checkpoint") == 3
