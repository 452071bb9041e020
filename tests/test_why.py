"""`why` says of each record where it really is, and of each window what really became of it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from examples import some
from running import Start, epoch, errors, until

from clickpipe.engine.of_event import default_column, of_event
from clickpipe.engine.of_window import named_key, of_window
from clickpipe.engine.rebuilt import rebuilt
from clickpipe.engine.told import Told
from clickpipe.errors import ClickpipeError
from clickpipe.plan.flags import parse_step
from clickpipe.plan.parse import parse
from clickpipe.state import history
from clickpipe.state.epochs import Epochs
from clickpipe.state.history import History, Moment, moments
from clickpipe.testing import environment

START = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DELAY = 5_000


def _run(folder: Path, line: str) -> None:
    command = [sys.executable, "-m", "clickpipe", "run", "-q", "-c", line]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _records(seed: int, count: int = 150) -> list[dict[str, Any]]:
    """In some disorder; ids repeat now and then."""
    chance = random.Random(seed)
    records = []
    for number in range(count):
        time = START + number * 1_000 - chance.choice([0, 0, 2_000, 4_000, 30_000, 90_000])
        records.append(
            {
                "ts": time,
                "event_id": f"e{chance.choice([number, number, number, 3])}",
                "page": f"/p/{chance.randrange(3)}",
                "ms": chance.randrange(100),
            }
        )
    records[20] |= {"ts": START + 40_000, "ms": "slow", "page": "/p/0"}
    records[30]["ts"] = "never"
    return records


def _spelled(record: dict[str, Any], form: str) -> str:
    if form == "text" and isinstance(record["ts"], int):
        record = {**record, "ts": datetime.fromtimestamp(record["ts"] / 1000, UTC).isoformat()}
    return ",".join(map(str, record.values())) if form == "csv" else json.dumps(record)


def _write(folder: Path, records: list[dict[str, Any]], form: str) -> str:
    lines = [_spelled(record, form) for record in records]
    name = "in.csv" if form == "csv" else "in.ndjson"
    (folder / name).write_text("\n".join(["ts,event_id,page,ms", *lines] if form == "csv" else lines) + "\n")
    return name


Pairs = list[tuple[int, int]]


def _holding(window: str, time: int) -> Pairs:
    """The windows that hold an instant, by definition."""
    kind, size, slide = {
        "tumble 10s": ("hop", 10_000, 10_000),
        "hop 20s --slide 5s": ("hop", 20_000, 5_000),
        "hop 12s --slide 5s": ("hop", 12_000, 5_000),
        "cumulate 20s --step 5s": ("cumulate", 20_000, 5_000),
    }[window]
    if kind == "cumulate":
        start = time // size * size
        return [(start, start + end) for end in range(slide, size + 1, slide) if time < start + end]
    newest = time // slide * slide
    return [(start, start + size) for start in range(newest - size // slide * slide, newest + 1, slide) if time < start + size]


def _oracle(records: list[dict[str, Any]], window: str, form: str = "int") -> list[tuple[str, Pairs]]:
    """What becomes of each record, by the rules, and its windows. A value of CSV that does not fit is bad at once."""
    greatest: int | None = None
    fates: list[tuple[str, Pairs]] = []
    for record in records:
        time = record["ts"]
        if not isinstance(time, int) or (form == "csv" and not isinstance(record["ms"], int)):
            fates.append(("dead letter", []))
            continue
        mark = None if greatest is None else greatest - DELAY
        greatest = time if greatest is None else max(greatest, time)
        windows = _holding(window, time)
        kept = [one for one in windows if mark is None or time >= mark or one[1] > mark]
        if record["page"] == "/p/2":
            fates.append(("filtered", []))
        elif not kept:
            fates.append(("late", windows[-1:]))
        elif not isinstance(record["ms"], int):
            fates.append(("dead letter", []))
        else:
            fates.append(("aggregated", kept))
    return fates


def _last(told: list[Told]) -> list[tuple[str, Pairs]]:
    """The fate of each record that was found."""
    fates = []
    for one in told:
        if one.what in ("aggregated", "late", "filtered", "dead letter"):
            windows = [] if one.what == "dead letter" else one.data["windows"]
            fates.append((one.what, [(window["window_start"], window["window_end"]) for window in windows]))
    return fates


FORMS = ("int", "text", "csv")
WINDOWS = ("tumble 10s", "hop 20s --slide 5s", "hop 12s --slide 5s", "cumulate 20s --step 5s")


@pytest.mark.parametrize(("form", "window"), some(((form, window) for form in FORMS for window in WINDOWS), 8))
def test_the_fate_of_each_record(folder: Path, form: str, window: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a plain loop over the input, and against the files of late records and dead letters."""
    records = _records(len(form) + len(window))
    name = _write(folder, records, form)
    columns = f"ts:{'str' if form == 'text' else 'int'},event_id:str,page:str,ms:int"
    line = f"ingest {name} --time ts --max-out-of-orderness 5s --name c --checkpoint 1s --columns {columns}"
    _run(
        folder,
        f"{line} | filter \"page <> '/p/2'\" | window {window} | aggregate --by page n='count(*)' s='sum(ms)' | sink out.ndjson",
    )
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CLICKPIPE_HOME", str(folder / ".home"))
    expected: dict[str, list[tuple[str, Pairs]]] = defaultdict(list)
    for record, fate in zip(records, _oracle(records, window, form), strict=True):
        expected[record["event_id"]].append(fate)
    pipeline = rebuilt(Epochs(str(folder / ".home/pipelines/c")))
    outcomes = set()
    for event, fates in expected.items():
        told = list(of_event(pipeline, "event_id", event))
        assert _last(told) == fates[:20], event
        outcomes |= {outcome for outcome, _ in fates}
        assert sum(one.what == "in late" for one in told) == sum(outcome == "late" for outcome, _ in fates)
    assert outcomes == {"aggregated", "late", "filtered", "dead letter"}


def test_sessions_and_corrections(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which session a record stands in only its rows tell; a corrected window has all its rows."""
    times = [0, 5_000, 61_000, 4_000, 200_000]
    lines = [json.dumps({"ts": START + time, "event_id": f"e{n}", "page": "/a"}) for n, time in enumerate(times)]
    (folder / "in.ndjson").write_text("\n".join(lines) + "\n")
    begin = "ingest in.ndjson --time ts --checkpoint 1ms --batch-bytes 64B --name"
    _run(folder, f"{begin} c | window tumble 1m --allowed-lateness 1m | aggregate --by page n='count(*)' | sink out.ndjson")
    _run(folder, f"{begin} s | window session 30s --by page | aggregate n='count(*)' | sink sessions.ndjson")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CLICKPIPE_HOME", str(folder / ".home"))
    told = list(of_window(rebuilt(Epochs(str(folder / ".home/pipelines/c"))), START, {"page": "/a"}))
    rows = [json.loads(line) for line in (folder / "out.ndjson").read_text().splitlines()]
    shown = [one.data["row"] for one in told if one.what == "row"]
    assert shown == [row for row in rows if row["window_start"] == "2026-01-01T00:00:00Z"]
    assert (shown[-1]["n"], shown[-1]["rev"]) == (3, 1)
    pipeline = rebuilt(Epochs(str(folder / ".home/pipelines/s")))
    told = list(of_window(pipeline, START, named_key(pipeline, ("/a",))))
    assert [one.what for one in told] == ["window", "opened", "records decide", "row", "late"]
    assert [one.data["row"]["n"] for one in told if one.what == "row"] == [2]
    aggregated = next(one for one in of_event(pipeline, "event_id", "e1") if one.what == "aggregated")
    assert (aggregated.data["windows"], aggregated.data["key"]) == ([], {"page": "/a"})


def test_of_two_found_files_each_has_its_own_watermark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, begin in (("a", 0), ("b", 50_000)):
        lines = [json.dumps({"ts": START + begin + n * 1_000, "event_id": f"{name}{n}"}) for n in range(100)]
        (tmp_path / f"{name}.ndjson").write_text("\n".join(lines) + "\n")
    _run(
        tmp_path,
        "ingest a.ndjson b.ndjson --time ts --name c --checkpoint 1s | window tumble 10s | aggregate n='count(*)' | sink view:v",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path / ".home"))
    told = list(of_event(rebuilt(Epochs(str(tmp_path / ".home/pipelines/c"))), "event_id", "b1"))
    time = next(one for one in told if one.what == "time")
    assert time.data["watermark"] == START + 50_000
    assert [one.what for one in told] == ["found", "time", "aggregated", "fired"]


@pytest.mark.parametrize("sink", ["out.ndjson", "out.csv", "out.ndjson.zst", "view:v"])
def test_the_rows_of_each_window(folder: Path, sink: str, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record for record in _records(7) if isinstance(record["ts"], int) and isinstance(record["ms"], int)]
    name = _write(folder, records, "int")
    _run(
        folder,
        f"ingest {name} --time ts --max-out-of-orderness 5s --name c --checkpoint 1ms --batch-bytes 512B"
        f" | window tumble 10s | aggregate --by page n='count(*)' | sink {sink}",
    )
    monkeypatch.setenv("CLICKPIPE_HOME", str(folder / ".home"))
    monkeypatch.chdir(folder)
    expected: dict[tuple[int, str], int] = defaultdict(int)
    late: dict[int, int] = defaultdict(int)
    unfiltered = [{**record, "page": record["page"] + "!"} for record in records]
    for record, (outcome, windows) in zip(records, _oracle(unfiltered, "tumble 10s"), strict=True):
        for start, _ in windows:
            if outcome == "late":
                late[start] += 1
            else:
                expected[start, record["page"]] += 1
    pipeline = rebuilt(Epochs(str(folder / ".home/pipelines/c")))
    assert expected
    assert late
    for (start, page), count in expected.items():
        told = list(of_window(pipeline, start, {"page": page}))
        assert [int(one.data["row"]["n"]) for one in told if one.what == "row"] == [count]
        assert "fired" in [one.what for one in told]
    for start, count in late.items():
        told = list(of_window(pipeline, start, {}))
        assert [one.data["records"] for one in told if one.what == "late"] == [count]
    assert [one.what for one in of_window(pipeline, START, {"page": "/nowhere"})][-1] == "not seen"
    assert [one.what for one in of_window(pipeline, START + 10**9, {})][:2] == ["window", "not begun"]


def test_a_window_that_is_open_and_a_record_that_is_not_read(folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline was stopped, and its log has grown since."""
    lines = [json.dumps({"ts": START + n * 100, "event_id": f"e{n}", "page": "/a"}) for n in range(105)]
    (folder / "app.log").write_text("\n".join(lines) + "\n")
    process = start(
        "run",
        "-c",
        "ingest app.log --follow --time ts --name c --checkpoint 10ms"
        " | window tumble 10s | aggregate --by page n='count(*)' | sink out.ndjson",
    )
    until(lambda: epoch(folder) >= 1, errors(folder))
    process.terminate()
    assert process.wait(60) == 0, errors(folder)
    with (folder / "app.log").open("a") as file:
        file.write(json.dumps({"ts": START + 10_600, "event_id": "new", "page": "/a"}) + "\n")
    monkeypatch.setenv("CLICKPIPE_HOME", str(folder / ".home"))
    monkeypatch.chdir(folder)
    pipeline = rebuilt(Epochs(str(folder / ".home/pipelines/c")))
    assert [one.what for one in of_event(pipeline, "event_id", "e7")] == ["found", "time", "aggregated", "fired"]
    assert [one.what for one in of_event(pipeline, "event_id", "e103")] == ["found", "time", "aggregated", "open"]
    assert [one.what for one in of_event(pipeline, "event_id", "new")] == ["found", "not read", "time", "aggregated", "open"]
    told = [one.what for one in of_window(pipeline, START + 10_000, {"page": "/a"})]
    assert told == ["window", "opened", "open", "no row", "has records"]
    told = [one.what for one in of_window(pipeline, START, named_key(pipeline, ("/a",)))]
    assert told == ["window", "opened", "fired", "row"]

    (folder / "app.log").rename(folder / "app.log.1")  # rotated since
    (folder / "app.log").write_text(json.dumps({"ts": START + 10_700, "event_id": "newer", "page": "/a"}) + "\n")
    told = [one.what for one in of_event(pipeline, "event_id", "newer")]
    assert told[:2] == ["found", "unknown"]
    assert next(of_event(pipeline, "event_id", "e7")).what == "found"


def _ask(folder: Path, *words: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "clickpipe", "why", *words]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_in_words_and_mistakes(folder: Path) -> None:
    lines = [json.dumps({"ts": START + n * 1_000, "event_id": f"e{n}", "page": f"/p?x={n % 2}"}) for n in range(100)]
    lines += [json.dumps({"ts": START, "event_id": "old\x1b", "page": "/a"}), '{"event_id":"e200",']
    (folder / "in.ndjson").write_text("\n".join(lines) + "\n")
    _run(
        folder,
        "ingest in.ndjson --time ts --name c --checkpoint 1s | window tumble 1m"
        " | aggregate --by page n='count(*)' | limit 9 | sink out.ndjson",
    )
    said = _ask(folder, "c", "--event", "e70")
    assert "in.ndjson:" in said
    assert "event time 2026-01-01T00:01:10Z; the watermark before it was 2026-01-01T00:01:09Z: not behind it\n" in said
    assert "aggregated in the window 2026-01-01T00:01:00Z to 2026-01-01T00:02:00Z, page = /p?x=0 by aggregate" in said
    said = _ask(folder, "c", "--event", "old\x1b")
    assert "late: its window 2026-01-01T00:00:00Z to 2026-01-01T00:01:00Z had closed (window tumble 1m)" in said
    assert "\x1b" not in said
    said = _ask(folder, "c", "--event", "e200")
    assert "dead letter: not JSON" in said
    said = _ask(folder, "c", "--window", "2026-01-01T00:01:00Z", "--key", "/p?x=1", "--json")
    assert [json.loads(line)["what"] for line in said.splitlines()] == ["window", "opened", "fired", "row"]
    assert 'no record whose "event_id" is e999' in _ask(folder, "c", "--event", "e999", code=65)
    assert "looked into: in.ndjson" in _ask(folder, "c", "--event", "e999", code=65)
    assert 'did you mean "page"?' in _ask(folder, "c", "--window", "2026-01-01T00:01:00Z", "--key", "pag=/a", code=2)
    assert "begins at 2026-01-01T00:00:30Z" in _ask(folder, "c", "--window", "2026-01-01T00:00:30Z", code=2)
    assert "is not a time" in _ask(folder, "c", "--window", "noon", code=2)
    assert "needs --event ID or --window START" in _ask(folder, "c", code=2)
    assert 'did you mean "page"?' in _ask(folder, "c", "--event", "1", "--by", "pge", code=2)
    assert 'did you mean "c"?' in _ask(folder, "cc", "--event", "1", code=2)
    (folder / "in.ndjson").rename(folder / "elsewhere.ndjson")
    assert "ask where it was started" in _ask(folder, "c", "--event", "e1", code=2)


def test_a_checkpoint_of_an_earlier_clickpipe_does_not_tell_enough(folder: Path) -> None:
    _run(
        folder,
        "ingest in.ndjson --time ts --name c --checkpoint 1s | window tumble 1m | aggregate n='count(*)' | sink out.ndjson",
    )
    epochs = Epochs(str(folder / ".home/pipelines/c"))
    manifest = next(epochs.manifests())
    for entry in manifest.steps:
        entry.pop("words", None)  # type: ignore[attr-defined]  # as it was written then
    Path(epochs.path_of(manifest.epoch, "MANIFEST.json")).write_bytes(manifest.to_bytes())
    with pytest.raises(ClickpipeError, match="earlier clickpipe"):
        rebuilt(epochs)
    with pytest.raises(ClickpipeError, match="no checkpoint"):
        rebuilt(Epochs(str(folder)))


@pytest.mark.parametrize(
    "line",
    [
        "ingest a 'b c' --time ts --follow --columns 'ts:int,a b:str' --max-out-of-orderness 1h30m",
        "ingest - --time ts --format csv --strict --time-zone Europe/Berlin",
        "filter -- \"-a > 1 AND b = 'x | y'\"",
        "filter \"b = '--time'\"",
        "select a \"b || ' ' AS c\" --drop x,y",
        "select --add \"b AS c\"",
        "window hop 1m --slide 10s --offset 5s --late f",
        "aggregate n='count(*) FILTER (WHERE a = 1)' m='sum(b)' --by 'x y,b' --top 3 --order n",
        "limit 5",
        "sink view:x --key a,b --time-format ms",
    ],
)  # fmt: skip
def test_a_step_can_be_said_again(line: str) -> None:
    node = parse(line).nodes[0]
    assert parse_step(node.written.name, node.step.words()) == node.step


def test_the_history_of_the_watermark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what moved is noted; a savepoint takes later notes back; torn lines are none; the older half goes."""
    noted = History(str(tmp_path), anew=True)
    for number, watermark in enumerate([None, 10, 10, 20, 30], 1):
        noted.note(number, watermark, 0.0, ended=False)
    assert [(one.epoch, one.watermark) for one in moments(str(tmp_path))] == [(2, 10), (4, 20), (5, 30)]
    History(str(tmp_path), anew=False).note(9, 20, 0.0, ended=True)
    found = moments(str(tmp_path))
    assert found[-2:] == [Moment(4, "1970-01-01T00:00:00Z", 20), Moment(9, "1970-01-01T00:00:00Z", 20, ended=True)]
    assert found[-1].has_passed(10**9)
    assert not found[0].has_passed(11)
    with open(history.path_of(str(tmp_path)), "ab") as file:
        file.write(b'{"epoch":10,"at":"x","waterm\n{}\n{"epoch":11,"at":"x","watermark":99,"ended":false}')
    assert moments(str(tmp_path)) == found
    monkeypatch.setattr(history, "_MOST", 10)
    noted = History(str(tmp_path), anew=True)
    for number in range(1, 25):
        noted.note(number, number, 0.0, ended=False)
    kept = [one.epoch for one in moments(str(tmp_path))]
    assert 5 <= len(kept) <= 10
    assert kept == [*range(25 - len(kept), 25)]


def test_the_id_is_looked_for_in_event_id_by_default(folder: Path) -> None:
    _run(folder, "ingest in.ndjson --time ts --name c --checkpoint 1s | sink out.ndjson")
    with pytest.raises(ClickpipeError, match="which column is the event's id"):
        default_column(rebuilt(Epochs(str(folder / ".home/pipelines/c"))))
