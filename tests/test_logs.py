"""Logs keep what they have acknowledged, each record once, and whoever reads them can tell damage from an end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
import zstandard

from clickpipe.errors import OutsideError, PlanError, StateError
from clickpipe.store import logcare, logends, logmeta, logrepair, logs, logwriter, segments
from clickpipe.store.logs import Log, Reader
from clickpipe.store.logwriter import LogWriter
from clickpipe.testing import run_steps

ROWS = [{"ts": 1_767_225_600_000 + n * 100, "page": f"/p/{n % 3}", "n": n} for n in range(600)]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path / ".home"))
    return tmp_path / ".home"


def _lines(first: int, count: int) -> bytes:
    return b"".join(b'{"n":%d}\n' % number for number in range(first, first + count))


def _filled(name: str = "a", batches: int = 5, each: int = 3) -> Path:
    """The segment of a log with some batches."""
    writer = LogWriter(name)
    for number in range(batches):
        writer.append(0, _lines(number * each, each), (number, number + 1))
        writer.commit()
    writer.close()
    return Path(logends.segment(writer.log.partition(0), 0))


def _records(name: str = "a", offset: int = 0) -> list[int]:
    return [json.loads(line)["n"] for _, text in Log(name).batches(0, offset) for line in text.splitlines()]


# What it holds.


def test_records_have_numbers_and_batches_their_times() -> None:
    _filled()
    assert _records() == [*range(15)]
    heads = [head for head, _ in Log("a").batches(0)]
    assert [(head.offset, head.records, head.least, head.greatest) for head in heads] == [(n * 3, 3, n, n + 1) for n in range(5)]
    assert heads[1].text == heads[0].length
    assert _records("a", 7)[0] == 6  # the batch that has it
    assert Log("a").ends() == [15]


def test_other_programs_read_a_segment() -> None:
    """As zstdcat does: heads are passed over."""
    path = _filled()
    with path.open("rb") as file:
        text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    assert text == _lines(0, 15)
    if shutil.which("zstdcat"):
        assert subprocess.run(["zstdcat", path], capture_output=True, check=True).stdout == text


def test_a_log_goes_on_in_the_next_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logwriter, "SEGMENT", 400)
    _filled(batches=9)
    assert len(logends.bases(Log("a").partition(0))) > 2
    assert _records() == [*range(27)]
    assert _records("a", 26)[-1] == 26
    writer = LogWriter("a")
    writer.append(0, _lines(27, 1))
    writer.commit()
    writer.close()
    assert _records()[-1] == 27


@pytest.mark.parametrize("is_right", [True, False], ids=["the index is right", "an index that is looked through"])
def test_the_end_of_a_log_that_grows_meanwhile(monkeypatch: pytest.MonkeyPatch, is_right: bool) -> None:
    """Whoever looks at the index finds in the segment what it knows."""
    _filled()
    writer = LogWriter("a")

    def grow() -> None:
        writer.append(0, _lines(0, 1))
        writer.commit()

    def index_end(path: str) -> tuple[int, segments.Head] | None:
        grow()
        return segments.index_end(path) if is_right else None

    def indexed(path: str) -> list[segments.Head]:
        grow()
        return segments.indexed(path)

    monkeypatch.setattr(logends, "index_end", index_end)
    monkeypatch.setattr(logends, "indexed", indexed)
    assert Log("a").ends() == [16 if is_right else 17]
    writer.close()


def test_a_log_has_one_writer() -> None:
    writer = LogWriter("a")
    with pytest.raises(OutsideError, match=r"log a is written by somebody else: it has one writer\n  process \d+"):
        LogWriter("a")
    writer.close()
    LogWriter("a").close()


def test_partitions_are_for_the_whole_life_of_a_log() -> None:
    logmeta.made("a", 2, ("page",))
    with pytest.raises(PlanError, match="log a has 2 by page partitions for its whole life"):
        logmeta.made("a", 3, ("page",))
    assert logmeta.made("a", None, ()).partitions == 2


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "x" * 101, "a\0b"])
def test_no_name_leads_elsewhere(name: str) -> None:
    with pytest.raises(PlanError, match="a log cannot be called"):
        Log(name)


def test_an_unknown_log_is_said_with_those_there_are() -> None:
    _filled("clicks")
    with pytest.raises(PlanError) as failed:
        Log("clicsk")
    assert str(failed.value) == 'no log "clicsk"\n    did you mean "clicks"?\n  there are: clicks'


# Damage.


def test_each_flipped_byte_of_a_segment_is_seen_or_harmless() -> None:
    path = _filled(batches=3)
    data, all_ = path.read_bytes(), _records()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        with pytest.raises(StateError, match="is damaged between bytes"):
            _records()
    path.write_bytes(data)
    assert _records() == all_


def test_each_flipped_byte_of_the_index_and_of_the_head_is_seen_or_harmless() -> None:
    path = _filled(batches=3)
    index, meta = Path(segments.index_of(str(path))), Path(Log("a").path) / "log.json"
    for file, trouble in ((index, False), (meta, True)):
        data = file.read_bytes()
        for at in range(len(data)):
            file.write_bytes(data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1 :])
            if trouble:
                with pytest.raises(StateError, match=r"log\.json is damaged"):
                    _records()
            else:
                assert _records() == [*range(9)]
        file.write_bytes(data)


def test_a_torn_end_is_cut_and_what_was_acknowledged_is_kept() -> None:
    """At every length: of a batch that the index does not know of, nothing is left, and the others are whole."""
    path = _filled(batches=3)
    data, index = path.read_bytes(), Path(segments.index_of(str(path)))
    known = index.read_bytes()
    third = sum(head.size for head in segments.indexed(str(path))[:2])
    for length in range(third, len(data)):
        path.write_bytes(data[:length])
        index.write_bytes(known[: 2 * segments.HEAD])
        assert _records() == [*range(6)]
        writer = LogWriter("a")
        writer.append(0, _lines(100, 1))
        writer.commit()
        writer.close()
        assert _records() == [*range(6), 100]
        path.write_bytes(data)


def test_an_acknowledged_batch_that_is_cut_off_is_damage() -> None:
    path = _filled(batches=3)
    path.write_bytes(path.read_bytes()[:-1])
    for use in (_records, lambda: LogWriter("a")):
        with pytest.raises(StateError, match="log repair a keeps what is before it"):
            use()


def test_a_tail_of_zeros_is_no_record() -> None:
    path = _filled(batches=2)
    with path.open("ab") as file:
        file.write(bytes(5_000))
    assert _records() == [*range(6)]
    LogWriter("a").close()
    assert list(logcare.troubles(Log("a"))) == []


def test_repair_keeps_what_is_before_the_damage_and_puts_the_rest_aside(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logwriter, "SEGMENT", 400)
    _filled(batches=9)
    path = Path(logends.segment(Log("a").partition(0), logends.bases(Log("a").partition(0))[1]))
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert len(list(logcare.troubles(Log("a")))) == 1
    done = logrepair.repair("a")
    assert len(done) >= 2
    assert _records() == [*range(len(_records()))]
    assert 3 < len(_records()) < 27
    assert sum(file.stat().st_size for file in (home / "logs" / "a.damaged").iterdir()) > 0
    writer = LogWriter("a")
    writer.append(0, _lines(1_000, 1))
    writer.commit()
    writer.close()
    assert _records()[-1] == 1_000


def test_a_lost_head_is_made_anew_by_repair() -> None:
    _filled()
    (Path(Log("a").path) / "log.json").write_text("x")
    assert "its log.json is made anew" in logrepair.repair("a")[0]
    assert _records() == [*range(15)]


def test_a_later_format_is_refused() -> None:
    _filled()
    meta = Path(Log("a").path) / "log.json"
    line = meta.read_bytes().split(b"\n")[0].replace(b'"v":1', b'"v":2')
    meta.write_bytes(logmeta.sealed(line + b"\n"))
    with pytest.raises(StateError, match="written by a newer clickpipe"):
        Log("a")


# Retention.


def test_old_segments_go_and_the_last_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logwriter, "SEGMENT", 400)
    _filled(batches=9)
    later = int(time.time() * 1_000) + 86_400_000
    assert logcare.retain("a", 2 * 86_400_000, None, now=later).gone == []
    would = logcare.retain("a", 3_600_000, None, now=later, is_dry=True).gone
    assert _records() == [*range(27)]
    gone = logcare.retain("a", 3_600_000, None, now=later).gone
    assert [part.base for part in gone] == [part.base for part in would] != []
    start = Log("a").starts[0]
    assert start == gone[-1].end
    assert _records("a", start)[0] == start
    with pytest.raises(PlanError, match=f"begins with record {start} by now, and 0 is before that"):
        _records("a", 0)


def test_what_a_checkpoint_needs_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logwriter, "SEGMENT", 400)
    _filled("in", batches=20)
    line = "ingest log:in --name c --checkpoint 1ms --batch-bytes 64 | sink out.ndjson"
    run_steps([["run", "-q", "--restart", "no", "-c", line]], tmp_path, kill={0: "after-commit:4"})
    needed = logcare.needs(Log("in"))[0]["c"]
    assert 0 <= needed < 60
    later = int(time.time() * 1_000) + 86_400_000
    found = logcare.retain("in", 1, None, now=later)
    assert (Log("in").starts[0] <= needed, found.by, bool(found.held)) == (True, {"c"}, True)
    assert run_steps([["run", "-q", "-c", line]], tmp_path) == [0]
    assert [json.loads(row)["n"] for row in (tmp_path / "out.ndjson").read_text().splitlines()] == [*range(60)]


# Readers.


def test_a_reader_follows_a_writer_through_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees each record once, in order, while they are written."""
    monkeypatch.setattr(logwriter, "SEGMENT", 2_000)
    writer = LogWriter("a")
    reader, seen = Reader(Log("a"), 0), []

    def write() -> None:
        for number in range(300):
            writer.append(0, _lines(number, 1))
            writer.commit()

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive() or reader.offset < 300:
        for _, text in reader.now():
            seen += [json.loads(line)["n"] for line in text.splitlines()]
    thread.join()
    writer.close()
    assert seen == [*range(300)]


def _said(directory: Path) -> str:
    return (directory / ".stderr").read_text()


def _run(directory: Path, line: str, kill: str = "") -> int:
    return run_steps([["run", "-q", "--restart", "no", "-c", line]], directory, kill={0: kill} if kill else None)[0]


PLAIN = "ingest in.ndjson --time ts --name p | window tumble 5s | aggregate --by page n='count(*)' | sink a.ndjson"
WRITE = "ingest in.ndjson --time ts --name w --checkpoint 1ms --batch-bytes 2KiB | sink log:l{more}"


@pytest.mark.parametrize(
    "point",
    [
        "after-prepare",
        "before-manifest",
        "after-manifest",
        "before-log-fsync:2",
        "after-log-fsync",
        "after-log-part",
        "after-commit:3",
    ],
)
def test_killed_there_each_record_is_in_the_log_once(point: str, tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text(TEXT)
    assert _run(tmp_path, WRITE.format(more=""), point) == -9
    half = _records("l") if "l" in logs.names() and logends.bases(Log("l").partition(0)) else []
    assert half == [*range(len(half))]
    assert _run(tmp_path, WRITE.format(more="")) == 0, _said(tmp_path)
    assert _records("l") == [*range(600)]


@pytest.mark.parametrize("point", ["", "after-log-part:3", "after-manifest:2"])
def test_partitions_have_the_records_of_their_keys_in_order(point: str, tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text(TEXT)
    line = WRITE.format(more=" --partitions 3 --by page")
    assert _run(tmp_path, line, point) == (-9 if point else 0)
    assert _run(tmp_path, line) == 0
    log, found = Log("l"), []
    for number in range(3):
        mine = [json.loads(row) for _, text in log.batches(number) for row in text.splitlines()]
        assert [row["n"] for row in mine] == sorted(row["n"] for row in mine)
        found += mine
    assert sorted(row["n"] for row in found) == [*range(600)]
    assert len({row["page"] for row in found}) == 3


READ = "ingest log:l --time ts --name r --checkpoint 1ms --batch-bytes 1KiB | window tumble 5s | aggregate --by page n='count(*)'"


@pytest.mark.parametrize("partitions", ["", " --partitions 3 --by page"])
def test_what_reads_a_log_goes_on_where_it_was(partitions: str, tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text(TEXT)
    assert _run(tmp_path, WRITE.format(more=partitions)) == 0
    assert _run(tmp_path, PLAIN) == 0
    for point in ("after-manifest:2", "after-snapshot:4"):
        _run(tmp_path, READ + " | sink b.ndjson", point)
    assert _run(tmp_path, READ + " | sink b.ndjson") == 0, _said(tmp_path)
    assert sorted((tmp_path / "b.ndjson").read_text().splitlines()) == sorted((tmp_path / "a.ndjson").read_text().splitlines())


def test_another_log_of_the_same_name_is_refused(tmp_path: Path, home: Path) -> None:
    (tmp_path / "in.ndjson").write_text(TEXT)
    assert _run(tmp_path, WRITE.format(more="")) == 0
    assert _run(tmp_path, READ + " | sink b.ndjson", "after-manifest:2") == -9
    shutil.rmtree(home / "logs" / "l")
    assert _run(tmp_path, WRITE.replace("--name w", "--name again").format(more="")) == 0
    assert _run(tmp_path, READ + " | sink b.ndjson") == 78
    assert "log:l is not the log that was read before" in _said(tmp_path)


def test_what_another_has_appended_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text(TEXT)
    assert _run(tmp_path, WRITE.format(more=""), "after-commit:2") == -9
    writer = LogWriter("l")
    writer.append(0, _lines(9_999, 1))
    writer.commit()
    writer.close()
    assert _run(tmp_path, WRITE.format(more="")) == 78
    assert "another pipeline writes to it" in _said(tmp_path)


def test_a_clock_that_runs_ahead_is_judged_by_when_its_record_arrived(tmp_path: Path) -> None:
    """However batches are joined, and in each replay."""
    now = int(time.time() * 1_000)
    writer = LogWriter("l")
    for ahead in (0, 3_000_000, 5_000_000, 1, 40_000_000_000, 2):
        writer.append(0, b'{"ts":%d}\n' % (now + ahead))
        writer.commit()
    writer.close()
    for size in ("64", "8MiB"):
        line = f"ingest log:l --time ts --name j{size} --max-out-of-orderness 1d --batch-bytes {size} | sink {size}.ndjson"
        assert run_steps([["run", "-c", line]], tmp_path) == [0]
        assert len((tmp_path / f"{size}.ndjson").read_text().splitlines()) == 4, size
        assert "dead letter 2" in _said(tmp_path)


@pytest.mark.parametrize(("start", "first"), [("earliest", 0), ("latest", None), ("599", 599), ("600", None)])
def test_reading_begins_where_one_says(start: str, first: int | None, tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text(TEXT)
    assert _run(tmp_path, WRITE.format(more="")) == 0
    assert _run(tmp_path, f"ingest log:l --from {start} | sink o.ndjson") == 0, _said(tmp_path)
    rows = [json.loads(row)["n"] for row in (tmp_path / "o.ndjson").read_text().splitlines()]
    assert rows[:1] == ([] if first is None else [first])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ingest log:l --from 601 | sink -", "log:l ends with record 600, and 601 is behind that"),
        ("ingest log:l --from soon | sink -", '--from: "soon" is not a time'),
        ("ingest in.ndjson --from latest | sink -", "--from is for logs: in.ndjson is read from its beginning"),
        ("ingest log:nothing | sink -", 'no log "nothing"'),
        ("ingest in.ndjson --spool log:l | sink -", "--spool is for input that cannot be read again: in.ndjson can"),
        ("ingest - --spool l | sink -", "input is spooled to a log"),
        ("ingest in.ndjson | sink log:x --partitions 2", "by which columns are records divided?"),
        ("ingest in.ndjson | sink log:x --partitions 0", "--partitions must be at least 1"),
        ("ingest in.ndjson | sink log:../x", "a log cannot be called '../x'"),
        ("ingest in.ndjson | sink log:x --by nope", 'no column "nope" for --by'),
        ("ingest in.ndjson | sink x.ndjson --partitions 2", "--partitions is not for x.ndjson"),
    ],
)
def test_what_is_wrong_is_said(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text(TEXT)
    writer = LogWriter("l")
    writer.append(0, TEXT.encode())
    writer.commit()
    writer.close()
    assert _run(tmp_path, line) == 2
    assert said in _said(tmp_path)


def test_standard_input_is_durable_before_it_counts(tmp_path: Path) -> None:
    """What a killed run had spooled is read by the next one, and each record counts once."""
    lines = TEXT.splitlines(keepends=True)
    steps = "window tumble 5s | aggregate --by page n='count(*)'"
    line = f"ingest - --spool log:s --time ts --name s --checkpoint 1ms | {steps} | sink b.ndjson"
    (tmp_path / ".input").write_text("")
    from clickpipe import testing

    (tmp_path / testing.INPUT).write_text("".join(lines[:300]))
    assert _run(tmp_path, line, "after-manifest") == -9
    kept = _records("s")
    assert kept == [*range(len(kept))]
    (tmp_path / testing.INPUT).write_text("".join(lines[len(kept) :]))
    assert _run(tmp_path, line) == 0, _said(tmp_path)
    (tmp_path / "in.ndjson").write_text(TEXT)
    assert _run(tmp_path, PLAIN) == 0
    assert _counted(tmp_path / "b.ndjson") == _counted(tmp_path / "a.ndjson")


def _counted(path: Path) -> list[tuple[str, str, int]]:
    """What closed a window may differ."""
    rows = map(json.loads, path.read_text().splitlines())
    return sorted((row["window_start"], row["page"], row["n"]) for row in rows)


def test_a_log_is_followed_within_a_moment(tmp_path: Path) -> None:
    """Not a timed claim: what is written while it is followed comes, and a signal ends it."""
    import sys

    from clickpipe.testing import environment

    writer = LogWriter("l")
    writer.append(0, b'{"ts":1767225600000}\n')
    writer.commit()
    words = [sys.executable, "-m", "clickpipe", "run", "-q", "-c", "ingest log:l --follow --time ts | limit 3 | sink -"]
    with subprocess.Popen(words, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == '{"ts":1767225600000}\n'
        for number in range(1, 3):
            writer.append(0, b'{"ts":%d}\n' % (1_767_225_600_000 + number))
            writer.commit()
            assert process.stdout.readline() == f'{{"ts":{1_767_225_600_000 + number}}}\n'
        assert process.wait(30) == 0
    writer.close()


def test_a_full_disk_leaves_no_half_batch(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text(TEXT)
    line = "ingest in.ndjson --time ts --batch-bytes 2KiB | sink log:l"
    assert run_steps([["run", "-q", "-c", line]], tmp_path, fail={0: "write:4+:ENOSPC"}) == [74]
    kept = _records("l")
    assert kept == [*range(len(kept))]
    assert os.path.getsize(logends.segment(Log("l").partition(0), 0)) == Log("l").place(0).at


def test_a_query_takes_no_more_of_a_log_than_it_asks_for(tmp_path: Path) -> None:
    """Also where several partitions would each give as many."""
    (tmp_path / "in.ndjson").write_text(TEXT)
    assert _run(tmp_path, WRITE.format(more=" --partitions 3 --by page")) == 0
    assert run_steps([["query", "SELECT n FROM l LIMIT 3"]], tmp_path) == [0]
    assert len((tmp_path / ".stdout").read_text().splitlines()) == 3
