"""The stream between processes: what it promises, what tools may do to it, and what happens when one dies.

Real processes and pipes; nothing here looks inside.
"""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from examples import some

from clickpipe.testing import environment
from clickpipe.wire.arrow import to_arrow

CLICKS = "".join(
    json.dumps({"ts": 1_700_000_000_000 + 500 * n, "page": f"/p/{n % 3}", "ms": n % 17}, separators=(",", ":")) + "\n"
    for n in range(2_000)
).encode()
COUNT = "clickpipe window tumble 1m | clickpipe aggregate --by page n='count(*)' | clickpipe sink - -q"


class Shell:
    """Runs lines of shell in a folder of its own that holds clicks.ndjson."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "clicks.ndjson").write_bytes(CLICKS)

    def __call__(self, line: str, given: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
        words = ["bash", "-c", f"set -o pipefail; {line}"]
        return subprocess.run(
            words,
            input=given,
            capture_output=True,
            cwd=self.folder,
            env=environment(self.folder, **more),
            timeout=90,
            check=False,
        )

    def out(self, line: str, given: bytes = b"", **more: str) -> bytes:
        done = self(line, given, **more)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def _split(stream: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Signals and records."""
    lines = stream.splitlines()
    return [json.loads(line) for line in lines if line[:1] == b"\t"], [json.loads(line) for line in lines if line[:1] != b"\t"]


# What a stream looks like.


def test_a_stream_is_a_line_frames_and_an_end(shell: Shell) -> None:
    signals, records = _split(shell.out("clickpipe ingest clicks.ndjson --time ts --max-out-of-orderness 5s"))
    assert [json.dumps(record, separators=(",", ":")) for record in records] == CLICKS.decode().splitlines()
    first, *frames, end = signals
    assert (first["@"], first["v"], first["pipeline"], first["hop"]) == ("stream", 1, "clicks", 1)
    assert first["columns"] == {"ts": "int", "page": "str", "ms": "int"}
    assert first["time"] == {"column": "ts", "unit": "auto"}
    assert [frame["seq"] for frame in frames] == list(range(len(frames)))
    assert sum(frame["rows"] for frame in frames) == 2_000
    assert frames[-1]["watermark"] == 1_700_000_000_000 + 500 * 1_999 - 5_000
    assert (end["@"], end["rows"], end["accounts"]) == ("end", 2_000, [{"read": 2_000}])


def test_a_field_that_becomes_a_float_is_announced(shell: Shell) -> None:
    """The columns signal stands before the first frame that needs it."""
    lines = b'{"x":1}\n' * 1_500 + b'{"x":2.5}\n'
    signals, _ = _split(shell.out("clickpipe ingest - --batch-bytes 4096 | clickpipe filter 'x > 0'", lines))
    kinds = [signal["@"] for signal in signals]
    assert signals[0]["columns"] == {"x": "int"}
    assert signals[kinds.index("columns")]["columns"] == {"x": "float"}


def test_records_are_passed_on_as_they_came(shell: Shell) -> None:
    """Spelling, order of fields, nested values and fields that nobody declared."""
    lines = b'{"b": 1.50, "a": {"z": [1 , 2]}}\n{"b":2,"new":"\xc3\xa9"}\n'
    assert _split(shell.out("clickpipe ingest - | clickpipe filter 'b > 0'", lines))[1] == [
        {"b": 1.5, "a": {"z": [1, 2]}},
        {"b": 2, "new": "é"},
    ]
    assert b'{"b": 1.50, "a": {"z": [1 , 2]}}\n' in shell.out("clickpipe ingest - | clickpipe filter 'b > 0'", lines)


@pytest.mark.parametrize("codec", ["ndjson", "arrow"])
def test_both_codecs_give_the_same_results(shell: Shell, codec: str) -> None:
    plain = shell.out(f"clickpipe ingest clicks.ndjson --time ts | {COUNT}")
    assert shell.out(f"clickpipe ingest clicks.ndjson --time ts | {COUNT}", CLICKPIPE_CODEC=codec) == plain
    assert plain.count(b"\n") == 3 * 17


def test_arrow_frames_are_arrow(shell: Shell) -> None:
    import io

    import polars as pl

    stream = shell.out("clickpipe ingest clicks.ndjson --codec arrow")
    head, signal, rest = stream.split(b"\n", 2)
    said = json.loads(signal)
    assert (said["@"], said["rows"]) == ("arrow", 2_000)
    assert pl.read_ipc_stream(io.BytesIO(rest[: said["bytes"]])).rows()[1] == (1_700_000_000_500, "/p/1", 1)
    assert json.loads(rest[said["bytes"] :])["@"] == "end"
    assert json.loads(head)["@"] == "stream"


# Tools in between.


@pytest.mark.parametrize(
    "tool", some(["tee copy.ndjson", "cat", "head -n 100000", "jq -c .", r"grep -e $'^\t' -e page", "sed 's/  / /'"], 3)
)
def test_tools_that_keep_every_record_change_nothing(shell: Shell, tool: str) -> None:
    plain = shell.out(f"clickpipe ingest clicks.ndjson --time ts | {COUNT}")
    assert shell.out(f"clickpipe ingest clicks.ndjson --time ts | {tool} | {COUNT}") == plain
    assert (
        shell.out(f"clickpipe ingest clicks.ndjson --time ts | clickpipe window tumble 1m | {tool} | clickpipe sink - -q") != b""
    )


@pytest.mark.parametrize("tool", ['jq -c \'select(.["@"] or .page == "/p/1")\'', r"grep -e $'^\t' -e '\"/p/1\"'"])
def test_records_that_a_tool_takes_out_are_counted_as_filtered(shell: Shell, tool: str) -> None:
    done = shell(f"clickpipe ingest clicks.ndjson --time ts | {tool} | clickpipe sink one.ndjson")
    assert done.returncode == 0, done.stderr
    assert b"read 2,000 = filtered 1,333 + written 667" in done.stderr
    assert (shell.folder / "one.ndjson").read_bytes().count(b"\n") == 667


def test_a_stream_whose_tabs_were_stripped_is_read_and_said_once(shell: Shell) -> None:
    done = shell(f"clickpipe ingest clicks.ndjson --time ts | jq -c . | {COUNT}")
    assert done.returncode == 0
    assert done.stderr.count(b"TAB") == 1


def test_a_misfit_behind_a_hopping_window_is_counted_once(shell: Shell) -> None:
    """Also where the window is another process, whose rows stand for one record each in several windows."""
    (shell.folder / "m.ndjson").write_bytes(
        b'{"ts":1767225600000,"v":1}\n{"ts":1767225601000,"v":"x"}\n{"ts":1767225602000,"v":3}\n'
    )
    done = shell(
        "clickpipe ingest m.ndjson --time ts | clickpipe window hop 1m --slide 20s | clickpipe filter 'v > 1' | clickpipe sink -"
    )
    assert b"read 3 = filtered 1 + dead letter 1 + written 1" in done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_jq_without_its_signals_gives_raw_ndjson(shell: Shell) -> None:
    """A filter that keeps only records is fine where nothing needs event time."""
    one = "clickpipe ingest clicks.ndjson | jq -c 'select(.page == \"/p/1\")'"
    out = shell.out(f"{one} | clickpipe aggregate n='count(*)' | clickpipe sink - -q")
    assert out == b'{"n":667}\n'


def test_grep_that_drops_the_signals_after_the_first_line_is_a_failure(shell: Shell) -> None:
    done = shell("clickpipe ingest clicks.ndjson --time ts | grep -e stream -e page | clickpipe sink -")
    assert done.returncode == 75
    assert b"grep -e" in done.stderr


@pytest.mark.parametrize("end", ["head -n 1", "head -c 10", "true"])
def test_a_reader_that_leaves_is_no_error(shell: Shell, end: str) -> None:
    """`| head -1` at the end: no traceback, no message, and everyone stops."""
    steps = "clickpipe ingest clicks.ndjson --time ts | clickpipe filter 'ms >= 0' | clickpipe sink - -q"
    done = shell(f"{steps} | {end}; codes=(${{PIPESTATUS[@]}}); echo; echo ${{codes[@]}}")
    assert done.stdout.splitlines()[-1].split()[:3] == [b"0", b"0", b"0"]
    assert done.stderr == b""


def test_head_in_the_middle_stops_the_run_as_cut_short(shell: Shell) -> None:
    """A tool that cuts the stream off in front of a sink must not look like an end."""
    done = shell("clickpipe ingest clicks.ndjson --time ts | head -n 5 | clickpipe sink out.ndjson")
    assert done.returncode == 75
    assert not (shell.folder / "out.ndjson").exists()


def test_limit_stops_the_steps_before_it(shell: Shell) -> None:
    line = "clickpipe generate --count 100000000 | clickpipe ingest - | clickpipe limit 2 | clickpipe sink - -q"
    assert shell.out(line).count(b"\n") == 2


# Streams that are damaged.


STREAM = b'\t{"@":"stream","v":1,"pipeline":"p","hop":1,"run":0,"columns":{"a":"int"}}\n'


def _frame(seq: int, rows: int, lines: bytes = b"") -> bytes:
    return lines + b'\t{"@":"frame","seq":%d,"rows":%d}\n' % (seq, rows)


def _end(rows: int) -> bytes:
    return b'\t{"@":"end","rows":%d,"accounts":[{"read":%d}]}\n' % (rows, rows)


_LINES = to_arrow(pl.DataFrame({"\0lines": ['{"a":1}']}))
NARROW = b'\t{"@":"arrow","seq":0,"rows":1,"bytes":%d}\n' % len(_LINES) + _LINES


@pytest.mark.parametrize(
    ("stream", "code", "words"),
    [
        (STREAM, 75, b"no signals after its first line"),
        (STREAM + _frame(0, 1, b'{"a":1}\n'), 75, b"stopped before its end"),
        (STREAM + _frame(0, 1, b'{"a":1}\n')[:-5], 75, b"no signals after its first line"),
        (STREAM + _frame(0, 1, b'{"a":1}\n') + b'{"a":', 75, b"stopped before its end"),
        (STREAM + _frame(1, 1, b'{"a":1}\n') + _end(1), 65, b"frame 0 is missing"),
        (STREAM + _frame(0, 1, b'{"a":1}\n') + _frame(2, 1, b'{"a":2}\n') + _end(2), 65, b"frame 1 is missing"),
        (STREAM + _frame(0, 1, b'{"a":1}\n{"a":2}\n') + _end(1), 65, b"holds 2"),
        (STREAM + _frame(0, 1, b'{"a":1}\n') + _end(7), 65, b"says it had 7 records"),
        (STREAM + b'{"a":1}\n' + _end(1), 65, b"after the last frame signal"),
        (STREAM + STREAM, 65, b"second stream line"),
        (STREAM + b'\t{"@":"frame","seq":-1,"rows":1}\n', 65, b"a signal line is damaged"),
        (STREAM + b'\t{"@":"surprise"}\n', 65, b"unknown signal"),
        (STREAM + b'\t{"@":"arrow","seq":0,"rows":1,"bytes":4}\nABCD' + _end(1), 65, b"no Arrow stream"),
        (STREAM + b'\t{"@":"arrow","seq":0,"rows":1,"bytes":99999999999}\nABCD', 65, b"too large"),
        (STREAM + NARROW + _end(1), 65, b'frame 0 lacks the column "a"'),
        (STREAM.replace(b'"v":1', b'"v":1,"divided":{"columns":{}}'), 65, b"its second phase is not known here"),
        (STREAM.replace(b'"v":1', b'"v":9'), 65, b"format version 9"),
        (STREAM.replace(b'"int"', b'"uuid"'), 65, b'unknown type "uuid"'),
        (_frame(0, 1, b""), 65, b"does not begin with its stream line"),
        (b"\t" + b"x" * 2_000_000, 65, b"longer than"),
    ],
)
def test_a_damaged_stream_is_refused(shell: Shell, stream: bytes, code: int, words: bytes) -> None:
    """With the right exit code, and the file of the run before is left alone."""
    (shell.folder / "out.ndjson").write_text("yesterday\n")
    done = shell("clickpipe sink out.ndjson", stream)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr.decode()
    assert (shell.folder / "out.ndjson").read_text() == "yesterday\n"
    assert [path.name for path in shell.folder.glob("out*")] == ["out.ndjson"]


@pytest.mark.parametrize(
    ("kind", "values", "code"),
    [
        ("sketch", pl.Series([1]), 65),
        ("sketch", pl.Series([[1]]), 65),
        ("sketch", pl.Series([None]), 65),
        ("str", pl.Series(["x"], dtype=pl.Categorical), 65),
        ("int", pl.Series(["1"]), 65),
        ("int", pl.Series([1.5]), 65),
        ("int", pl.Series([1], dtype=pl.UInt16), 0),
        ("float", pl.Series([1]), 0),
    ],
)
def test_an_arrow_frame_of_other_types_is_refused(shell: Shell, kind: str, values: pl.Series, code: int) -> None:
    """Than its columns have: numbers of another width are none."""
    out = io.BytesIO()
    values.to_frame("a").write_ipc_stream(out)
    data = out.getvalue()
    frame = b'\t{"@":"arrow","seq":0,"rows":1,"bytes":%d}\n%s' % (len(data), data)
    done = shell("clickpipe sink -", STREAM.replace(b'"int"', b'"%s"' % kind.encode()) + frame + _end(1))
    assert done.returncode == code, done.stderr.decode()
    assert not code or b'in the column "a" of type' in done.stderr


def test_fewer_rows_than_said_are_filtered(shell: Shell) -> None:
    done = shell("clickpipe sink -", STREAM + _frame(0, 3, b'{"a":1}\n') + _end(3))
    assert (done.returncode, done.stdout) == (0, b'{"a":1}\n')
    assert b"read 3 = filtered 2 + written 1" in done.stderr


def test_a_step_that_is_killed_takes_the_rest_down(shell: Shell) -> None:
    """Nothing is flushed, nothing is committed, and the message says why."""
    done = shell(
        "{ clickpipe ingest clicks.ndjson --time ts | head -c 3000; sleep 0.2; kill -9 $BASHPID; } "
        "| clickpipe window tumble 1m | clickpipe aggregate n='count(*)' | clickpipe sink out.ndjson"
    )
    assert done.returncode != 0
    assert b"a step before this one failed" in done.stderr
    assert done.stdout == b""
    assert not list(shell.folder.glob("out*"))


def test_a_step_that_fails_before_its_first_line_leaves_the_old_file_alone(shell: Shell) -> None:
    (shell.folder / "out.ndjson").write_text("yesterday\n")
    done = shell("clickpipe ingest missing.ndjson | clickpipe sink out.ndjson")
    assert done.returncode == 75
    assert (shell.folder / "out.ndjson").read_text() == "yesterday\n"


# Disks, terminals and signals.


def test_a_full_disk_is_exit_code_74(shell: Shell) -> None:
    for line in (
        "clickpipe ingest clicks.ndjson > /dev/full",
        "clickpipe ingest clicks.ndjson | clickpipe sink - -q > /dev/full",
    ):
        done = shell(line)
        assert done.returncode == 74, done.stderr
        assert b"No space left on device" in done.stderr
    done = shell("clickpipe ingest clicks.ndjson | clickpipe sink /dev/full")
    assert done.returncode == 74, done.stderr


def test_escapes_in_values_never_reach_a_terminal(shell: Shell) -> None:
    """Raw C1 bytes and marks that turn text round are valid JSON; a terminal must not see them."""
    (shell.folder / "evil.ndjson").write_text('{"a":"\x9b31m red \u202e \x7f"}\n{"a":"\\u001b[2J"}\n')
    for line in ("ingest evil.ndjson | sink - -q", "ingest evil.ndjson | sink - --format table"):
        shown = _on_terminal(["run", "-c", line.replace(" -q", ""), "-q"], shell.folder)
        assert not set(shown) & set("\x1b\x9b\u202e\x7f") - ({"\x1b"} if "table" in line else set()), repr(shown)
        assert "red" in shown


def _on_terminal(words: list[str], folder: Path) -> str:
    mine, theirs = pty.openpty()
    env = environment(folder, NO_COLOR="1", TERM="dumb")
    process = subprocess.Popen([sys.executable, "-m", "clickpipe", *words], stdin=theirs, stdout=theirs, cwd=folder, env=env)
    os.close(theirs)
    shown = b"".join(_chunks(mine))
    process.wait()
    os.close(mine)
    return shown.decode()


def _chunks(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(descriptor, 4096)
        except OSError:  # the other side has closed the terminal
            return
        if not chunk:
            return
        yield chunk


def test_standard_input_that_is_a_terminal_is_an_error(shell: Shell) -> None:
    """Waiting for a person to type a stream helps nobody."""
    mine, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "clickpipe", "filter", "a = 1"],
        stdin=theirs,
        capture_output=True,
        env=environment(shell.folder),
        check=False,
    )
    os.close(mine)
    os.close(theirs)
    assert done.returncode == 2
    assert b"standard input is a terminal" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_waiting_step(shell: Shell, number: int, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "clickpipe", "ingest", "-", "--columns", "a:int"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(shell.folder),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b'{"a":1}\n')
    process.stdin.flush()
    process.stdout.readline()  # the stream line: it runs
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (code, b"")


def test_a_record_goes_through_an_idle_pipeline_at_once(shell: Shell) -> None:
    """No step waits for a batch to fill, nor for the end of the input."""
    line = "clickpipe ingest - --columns a:int | clickpipe filter 'a > 0' | clickpipe select a | clickpipe sink - -q"
    process = subprocess.Popen(["bash", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(shell.folder))
    assert process.stdin is not None
    assert process.stdout is not None
    for number in (1, 2, 3):
        process.stdin.write(b'{"a":%d}\n' % number)
        process.stdin.flush()
        assert process.stdout.readline() == b'{"a":%d}\n' % number
        time.sleep(0.05)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_line_of_a_hundred_megabytes_takes_bounded_memory(shell: Shell) -> None:
    peak = "resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10"
    measure = f"import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); print({peak})"
    with open(shell.folder / "long.ndjson", "wb") as file:
        file.write(b'{"a":1}\n{"a":"')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"a":2}\n')
    words = [
        sys.executable,
        "-c",
        measure,
        sys.executable,
        "-m",
        "clickpipe",
        "run",
        "-c",
        "ingest long.ndjson | sink out.ndjson",
    ]
    done = subprocess.run(words, capture_output=True, cwd=shell.folder, env=environment(shell.folder), check=True)
    assert b"read 3 = dead letter 1 + written 2" in done.stderr
    assert (shell.folder / "out.ndjson").read_bytes() == b'{"a":1}\n{"a":2}\n'
    assert int(done.stdout) < 300


def test_the_codec_is_checked(shell: Shell) -> None:
    done = shell("clickpipe filter 'a = 1'", b'{"a":1}\n', CLICKPIPE_CODEC="xml")
    assert (done.returncode, b"it can be ndjson or arrow" in done.stderr) == (2, True)
