"""Sinks in the middle: what they and the last sink hold is the same, whatever is killed, in every form."""

from __future__ import annotations

import json
import random
import shlex
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest
from examples import some

from clickpipe.core.sink import Destination
from clickpipe.operators.sink import SINKS
from clickpipe.state.directory import StateDirectory
from clickpipe.state.parts import Parts
from clickpipe.testing import environment, run_steps

INGEST = "ingest in.ndjson --time ts --max-out-of-orderness 2s --batch-bytes 2KiB --name c"
COUNT = "window tumble 5s | aggregate --by page n='count(*)' s='sum(x)'"
LINES = {
    "file+file": INGEST + "{} | sink all.csv.gz --pass | " + COUNT + " | sink out.ndjson",
    "file+view": INGEST + "{} | sink all.ndjson --pass | " + COUNT + " | sink view:pages",
    "view+file": INGEST + "{} | sink view:latest --key page --pass | " + COUNT + " | sink out.ndjson",
    "three": INGEST + "{} | sink all.ndjson --pass | " + COUNT + " | sink some.csv --pass | limit 30 | sink out.ndjson",
}
MIDDLE = 1
MIDDLE_POINTS = {
    "file+file": ["after-join", "after-prepare", "before-part-fsync", "before-part-rename", "after-part-rename", "before-end"],
    "view+file": ["after-prepare", "before-state-fsync", "before-state-rename", "after-state-rename", "before-end"],
}
LAST_POINTS = {
    "file+file": [
        *("after-prepare", "before-part-fsync", "before-manifest", "before-manifest-rename", "after-manifest-rename"),
        *("after-manifest", "before-commit", "after-part-rename", "after-commit", "after-retire-rename"),
        *("before-whole-rename", "after-whole-rename", "after-parts-renamed"),
    ],
    "file+view": [
        "before-manifest",
        "after-manifest",
        "after-part-rename",
        "before-view-commit",
        "after-view-commit",
        "after-commit",
    ],
    "view+file": [
        "before-manifest",
        "after-manifest",
        "before-view-commit",
        "after-view-commit",
        "after-commit",
        "after-parts-renamed",
    ],
    "three": ["after-manifest", "after-part-rename", "after-commit", "after-whole-rename", "after-parts-renamed"],
}
_ONCE = {"after-join", "before-end"}
_PER_FILE = {"before-whole-rename", "after-whole-rename", "after-parts-renamed"}
_KILLED = [(line, MIDDLE, point) for line, points in MIDDLE_POINTS.items() for point in points]
_KILLED += [(line, -1, point) for line, points in LAST_POINTS.items() for point in points]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    """What each line gives without checkpoints."""
    seen = {}
    for name, line in LINES.items():
        directory = _prepared(tmp_path_factory.mktemp("undisturbed"))
        assert set(_run(line.format(""), directory)) == {0}, _errors(directory)
        seen[name] = _results(directory)
        assert len(seen[name]) == line.count("sink")
        assert all(seen[name].values())
    return seen


@pytest.mark.parametrize(("line", "step", "point"), some(_KILLED, 4), ids=lambda value: str(value))
def test_a_process_killed_there(
    line: str, step: int, point: str, tmp_path: Path, undisturbed: dict[str, dict[str, list[str]]]
) -> None:
    """In a shell: the sink in the middle, or the last one. A hit between two sinks' commits is among them."""
    directory, text = _prepared(tmp_path), LINES[line].format(" --checkpoint 1ms")
    step %= text.count("|") + 1
    for hit in _hits(line, point):
        codes = _run(text, directory, {step: f"{point}:{hit}"})
        assert codes[step] == -signal.SIGKILL, f"{point} was not passed: {codes}\n{_errors(directory)}"
    assert set(_run(text, directory)) == {0}, _errors(directory)
    assert _results(directory) == undisturbed[line]
    assert not list(directory.glob("*.parts*"))


@pytest.mark.parametrize(("line", "point"), some(sorted({(line, point) for line, _, point in _KILLED}), 3))
def test_a_fused_run_killed_there(line: str, point: str, tmp_path: Path, undisturbed: dict[str, dict[str, list[str]]]) -> None:
    if point == "after-join":
        pytest.skip("a fused run begins, and does not join")
    directory, text = _prepared(tmp_path), LINES[line].format(" --checkpoint 1ms")
    for hit in _hits(line, point):
        codes = _run(text, directory, {0: f"{point}:{hit}"}, fused=True)
        assert codes == [-signal.SIGKILL], f"{point} was not passed\n{_errors(directory)}"
    assert _run(text, directory, fused=True) == [0], _errors(directory)
    assert _results(directory) == undisturbed[line]
    assert not list(directory.glob("*.parts*"))


def _hits(line: str, point: str) -> tuple[int, ...]:
    """Killed once at each. What is passed once per file is killed for one file, then for the next."""
    if point in _PER_FILE:
        return (1, 1) if LINES[line].count(".ndjson") + LINES[line].count(".csv") > 2 else (1,)
    return (1,) if point in _ONCE else (1, 3)


def test_whoever_holds_a_manifest_can_finish_it(tmp_path: Path) -> None:
    """Without the pipeline, its plan or its columns: what it names is enough to show what all sinks had staged."""
    directory = _prepared(tmp_path)
    text = LINES["file+view"].format(" --checkpoint 10m")  # the end is its one checkpoint
    assert _run(text, directory, {4: "after-manifest"})[4] == -signal.SIGKILL
    assert not (directory / "all.ndjson").exists()
    state = StateDirectory(str(directory / ".home" / "pipelines" / "c"))
    manifest = state.newest()
    assert manifest is not None
    staged = [entry for entry in manifest.steps if "staged" in entry]
    assert [entry["sink"] for entry in staged] == ["file", "view"]
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CLICKPIPE_HOME", str(directory / ".home"))
            for entry in staged:
                commits = SINKS.find(entry["sink"], Destination).commits(state)
                commits.commit(entry["staged"])
                commits.close()
        assert len((directory / "all.ndjson").read_text().splitlines()) == 700
        assert _results(directory)["pages"]


def test_a_writer_does_not_disturb_the_commit_beside_it(tmp_path: Path) -> None:
    """Both begin at once: a hidden part of the restored checkpoint stays, and so does a file that is being put together."""
    parts = Parts(str(tmp_path / "a.ndjson"))
    said = [_part(parts, epoch) for epoch in (7, 8)]
    parts.commit(said[0])
    Parts(str(tmp_path / "a.ndjson")).begin(7, said[0])
    assert not Path(parts.hidden(8)).exists()  # no manifest names it
    again = _part(parts, 9)
    Parts(str(tmp_path / "a.ndjson")).begin(9, again)
    assert Path(parts.hidden(9)).exists()
    parts.commit(again)
    being_assembled = parts.stage()
    Parts(str(tmp_path / "a.ndjson")).begin(9, again | {"ended": True})
    being_assembled.publish(str(tmp_path / "a.ndjson"), "whole")


def _part(parts: Parts, epoch: int) -> dict[str, object]:
    file = parts.stage()
    file.write(b"{}\n")
    parts.durable(file, epoch)
    return parts.said(epoch, has_rows=True, begun=True, ended=False) | {"parts": 1 if epoch == 7 else 2}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("checkpoint", ["", " --checkpoint 1ms"])
def test_a_limit_behind_a_sink_does_not_cut_it_short(fused: bool, checkpoint: str, tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    text = f"{INGEST}{checkpoint} | sink all.ndjson --pass | filter 'x >= 0' | limit 5 | sink out.ndjson"
    assert not any(_run(text, directory, fused=fused)), _errors(directory)
    assert len(_results(directory)["all.ndjson"]) == 700
    assert len(_results(directory)["out.ndjson"]) == 5
    assert "read 707 = filtered 695 + dead letter 7 + written 5" in _errors(directory)


@pytest.mark.parametrize(
    "line",
    [
        "clickpipe ingest in.ndjson | clickpipe sink all.ndjson --pass | head -1",
        "clickpipe ingest in.ndjson | clickpipe sink all.ndjson --pass | clickpipe filter 'x >= 0' | clickpipe sink - | head -1",
        "clickpipe run -c 'ingest in.ndjson | sink all.ndjson --pass | sink -' | head -1",
        "clickpipe run -c 'ingest in.ndjson | sink all.ndjson --pass | filter \"x >= 0\"' | head -1",
    ],
)
def test_a_reader_that_leaves_does_not_cut_it_short(line: str, tmp_path: Path) -> None:
    """As with tee -p. The input is longer than what pipes and queues hold."""
    record = json.dumps({"ts": 1, "page": "p" * 1_000, "x": 1}) + "\n"
    (tmp_path / "in.ndjson").write_text(record * 20_000)
    done = _shell(f"{line}; echo ${{PIPESTATUS[@]}}", tmp_path)
    assert set(done.stdout.splitlines()[-1].split()) == {"0"}
    assert done.stderr == ""
    assert (tmp_path / "all.ndjson").stat().st_size == 20_000 * len(record)


def test_with_checkpoints_it_goes_on_where_its_reader_left(tmp_path: Path) -> None:
    record = json.dumps({"ts": 1, "page": "p" * 1_000, "x": 1}) + "\n"
    (tmp_path / "in.ndjson").write_text(record * 20_000)
    line = "clickpipe ingest in.ndjson --checkpoint 10ms | clickpipe sink all.ndjson --pass | clickpipe sink -"
    assert len(_shell(f"{line} | head -1", tmp_path).stdout.splitlines()) == 1
    assert not (tmp_path / "all.ndjson").exists()
    _shell(f"{line} > /dev/null", tmp_path)
    assert (tmp_path / "all.ndjson").stat().st_size == 20_000 * len(record)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("checkpoint", ["", " --checkpoint 1ms"])
def test_a_run_that_fails_leaves_no_file(fused: bool, checkpoint: str, tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    text = f"{INGEST}{checkpoint} --max-errors 3 | sink all.ndjson --pass | sink out.ndjson"
    assert 65 in _run(text, directory, fused=fused)
    assert not list(directory.glob("all.ndjson"))
    assert not list(directory.glob("*.part"))


def test_a_step_that_cannot_be_opened_leaves_no_file(tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    for last in ("sink nowhere/out.ndjson", "filter 'nothing > 1' | sink -", "sink view:v"):
        assert _run(f"{INGEST} | sink all.ndjson --pass | {last}", directory, fused=True) == [2]
        assert not list(directory.glob("all.ndjson*"))


def test_with_checkpoints_and_no_sink_at_the_end_it_says_so(tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    line = "clickpipe ingest in.ndjson --name c --checkpoint 1ms | clickpipe sink all.ndjson --pass"
    done = _shell(f"{line} | cat > /dev/null; echo ${{PIPESTATUS[@]}}", directory)
    assert done.stdout == "0 75 0\n"
    assert "was not completed, so not all results are visible" in done.stderr
    done = _shell(f"{line} > stream; echo ${{PIPESTATUS[@]}}", directory)
    assert done.stdout.split()[-1] == "2"
    assert "with --checkpoint, a sink at the end of the pipeline completes" in done.stderr


def test_a_tool_in_between_that_waits_for_the_end(tmp_path: Path) -> None:
    """It has let nothing through when the sink in the middle has ended; the last process joins after that."""
    directory = _prepared(tmp_path)
    sponge = "python3 -c 'import sys; sys.stdout.write(sys.stdin.read())'"
    line = "clickpipe ingest in.ndjson --name c --checkpoint 1ms | clickpipe sink all.ndjson --pass"
    line += f" | {sponge} | clickpipe sink out.ndjson"
    done = _shell(f"{line}; echo ${{PIPESTATUS[@]}}", directory)
    assert done.stdout == "0 0 0 0\n", done.stderr
    assert set(_results(directory)) == {"all.ndjson", "out.ndjson"}


@pytest.mark.parametrize("to", ["| cat", "> out"])
def test_standard_output_by_its_other_name(to: str, tmp_path: Path) -> None:
    done = _shell(f"echo '{{}}' | clickpipe sink /dev/stdout --pass {to}; exit ${{PIPESTATUS[1]}}", tmp_path)
    assert done.returncode == 2
    assert "standard output carries the stream" in done.stderr


def test_a_codec_is_for_a_sink_that_passes_on(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text('{"a":1}\n')
    line = "clickpipe ingest in.ndjson | clickpipe sink all.csv {} --codec arrow | {}"
    assert '"@":"arrow"' in _shell(line.format("--pass", "cat -v"), tmp_path).stdout
    assert _shell(line.format("--pass", "clickpipe sink -"), tmp_path).stdout == '{"a":1}\n'
    assert "--codec is for a sink that passes records on" in _shell(line.format("", "cat"), tmp_path).stderr


def test_pass_is_no_other_pipeline(tmp_path: Path) -> None:
    """A sink that was the last, and now has steps behind it, goes on with its own file; the steps are new."""
    directory = _prepared(tmp_path)
    text = f"{INGEST} --checkpoint 1ms | sink all.ndjson"
    assert _run(text, directory, {0: "after-commit:3"}, fused=True) == [-signal.SIGKILL]
    assert _run(f"{text} --pass | filter 'x > 1' | sink out.ndjson", directory, fused=True) == [78]
    assert "now:   filter x > 1" in _errors(directory)


def test_explain_names_the_guarantee_of_each_sink(tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    done = _shell(f"clickpipe explain --json -c {shlex.quote(LINES['file+view'].format(' --checkpoint 1s'))}", directory)
    said = {one["part"]: (one["level"], one["why"]) for one in json.loads(done.stdout)["guarantees"]}
    in_parts = "rows become visible in all.ndjson.parts at checkpoints, and as all.ndjson at the end"
    assert said["sink all.ndjson --pass"] == ("exactly once", in_parts)
    assert said["sink"] == ("exactly once", "rows and the checkpoint's number change in one transaction")


def _run(text: str, directory: Path, kill: dict[int, str] | None = None, *, fused: bool = False) -> list[int]:
    steps = [["run", "--restart", "no", "-c", text]] if fused else [shlex.split(step) for step in _steps(text)]
    return run_steps(steps, directory, kill)


def _steps(text: str) -> list[str]:
    return text.split(" | ")


def _shell(line: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line], cwd=directory, env=environment(directory), capture_output=True, text=True, check=False, timeout=120
    )


def _prepared(directory: Path) -> Path:
    """700 records out of order, some bad."""
    chance = random.Random(7)
    lines = []
    for number in range(700):
        time = 1_767_225_600_000 + number * 50 - chance.randrange(2_000)
        lines.append(json.dumps({"ts": time, "page": f"/p/{chance.randrange(5)}", "x": number % 13, "id": number}))
        if number % 100 == 50:
            lines.append("not JSON")
    (directory / "in.ndjson").write_text("\n".join(lines) + "\n")
    return directory


def _results(directory: Path) -> dict[str, list[str]]:
    """All that the sinks hold. A repetition shows, and so does a loss; in a view, as the _rev of its row."""
    found = {path.name: _lines(path) for path in directory.glob("*") if path.name in ("all.ndjson", "some.csv", "out.ndjson")}
    if (directory / "all.csv.gz").exists():
        found["all.csv.gz"] = sorted(subprocess.check_output(["gzip", "-dc", directory / "all.csv.gz"], text=True).splitlines())
    for path in (directory / ".home" / "views").glob("*.sqlite"):
        connection = sqlite3.connect(path)
        found[path.stem] = [str(row) for row in connection.execute(f"SELECT * FROM {path.stem} ORDER BY _key")]
        connection.close()
    return found


def _lines(path: Path) -> list[str]:
    return sorted(path.read_text().splitlines())


def _errors(directory: Path) -> str:
    return (directory / ".stderr").read_text()
