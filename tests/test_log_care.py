"""Logs looked after: what is missing is said, who had read more than a repair has left is told, and deaths leave a whole log."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from clickpipe import testing
from clickpipe.cli.commands import log as command
from clickpipe.errors import DiskError, PlanError, StateError
from clickpipe.sources.log import LogSplit, first_of
from clickpipe.state.space import NO_PATIENCE
from clickpipe.store import logappend, logcare, logends, logmeta, logrepair, logwriter, segments
from clickpipe.store.logs import Log, Reader
from clickpipe.store.logwriter import LogWriter
from clickpipe.testing import run_steps

SMALL = 400  # bytes of a segment


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path / ".home"))
    monkeypatch.setattr(logwriter, "SEGMENT", SMALL)
    return tmp_path / ".home"


def _filled(name: str = "a", batches: int = 9, first: int = 0) -> Log:
    """Three records a batch, and some batches a segment."""
    writer = LogWriter(name)
    for number in range(first, first + batches):
        writer.append(0, b"".join(b'{"n":%d}\n' % n for n in range(number * 3, number * 3 + 3)))
        writer.commit()
    writer.close()
    return Log(name)


def _segments(log: Log) -> list[Path]:
    return [Path(logends.segment(log.partition(0), base)) for base in logends.bases(log.partition(0))]


def _records(name: str = "a", offset: int | None = None) -> list[int]:
    return [json.loads(line)["n"] for _, text in Log(name).batches(0, offset) for line in text.splitlines()]


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# What is not there.


def test_a_segment_that_is_missing_is_said_wherever_it_was() -> None:
    _segments(_filled("a"))[0].unlink()
    with pytest.raises(StateError, match="its segments from record 0 on up to 12 are missing"):
        _records("a")
    _segments(_filled("b"))[1].unlink()
    with pytest.raises(StateError, match="its segments from record 12 on up to 24 are missing"):
        _records("b")
    assert [one.is_harmless for one in logcare.troubles(Log("b"))] == [False]


def test_repair_goes_on_without_what_is_missing() -> None:
    _segments(_filled("a"))[0].unlink()
    assert "it begins with record 12 by now: those from 0 on are missing" in logrepair.repair("a")[0]
    assert _records("a", 12) == _records("a") == [*range(12, 27)]
    assert logrepair.repair("a") == []


def test_a_partition_that_is_gone_is_said_and_begun_anew() -> None:
    shutil.rmtree(_filled().partition(0))
    with pytest.raises(StateError, match="is gone, and it is a partition of a log"):
        _records()
    assert "begins anew" in logrepair.repair("a")[0]
    _filled(batches=1)
    assert _records() == [0, 1, 2]


def test_other_files_beside_the_segments_do_no_harm() -> None:
    log = _filled()
    for name in ("1 copy.ndjson.zst", "0.ndjson.zst", "notes", f"{'9' * 20}.ndjson.zst.part"):
        (Path(log.partition(0)) / name).write_text("x")
    assert _records() == [*range(27)]


def test_a_link_in_place_of_a_segment_is_not_followed(tmp_path: Path) -> None:
    path = _segments(_filled())[0]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PlanError, match="is a symbolic link"):
        _records()


def test_a_reader_that_retention_has_overtaken_is_told_so() -> None:
    reader = Reader(_filled(), 0)
    reader.next()
    logcare.retain("a", None, 0)
    with pytest.raises(StateError, match="log:a begins with record 24 by now, and what was to be read next is before that"):
        list(reader.now())
    with pytest.raises(StateError, match="begins with record 24 by now"):
        Reader(Log("a"), 0, text=5)


def test_an_index_is_believed_where_its_sum_leads_to_its_last_head() -> None:
    """Whatever became of the others; else as far as it goes, and the rest is looked through."""
    path = _segments(_filled(batches=3))[0]
    index = Path(segments.index_of(str(path)))
    for at in (0, 36, segments.HEAD + 5, 2 * segments.HEAD + 36):
        data = index.read_bytes()
        _flip(index, at)
        assert Log("a").place(0) == logends.Place(0, path.stat().st_size, 9, len(_text()))
        index.write_bytes(data)


def _text() -> bytes:
    return b"".join(text for _, text in Log("a").batches(0))


# Repair.


def test_who_had_read_what_a_repair_took_away_is_told_and_nobody_else() -> None:
    """Also when the log has grown again beyond where he had been."""
    log = _filled(batches=4)
    ends = [head.text + head.length for head in log.heads(0)]
    ids = [LogSplit(log, 0).identity(end) for end in ends]
    _flip(_segments(log)[0], -3)  # of the last batch of that segment
    logrepair.repair("a")
    log = _filled(batches=6, first=100)
    now = [LogSplit(log, 0).identity(end) for end in ends]
    assert [before == after for before, after in zip(ids, now, strict=True)] == [True, True, True, False]
    assert log.meta.id not in {one["log"] for one in ids}


def test_a_second_repair_knows_of_the_first() -> None:
    meta = logmeta.Meta("a", 1, (), (0,)).repaired((0,), (300,)).repaired((0,), (200,))
    assert [meta.id_at(0, text) for text in (100, 200)] == ["a", "a"]
    assert meta.id_at(0, 250) == meta.id
    meta = logmeta.Meta("a", 1, (), (0,)).repaired((0,), (300,)).repaired((0,), (500,))
    assert len({meta.id_at(0, text) for text in (300, 400, 600)}) == 3
    assert meta.id_at(0, 300) == "a"


def test_columns_that_were_lost_with_the_head_are_asked_for() -> None:
    logmeta.made("a", 2, ("page",))
    (Path(Log("a").path) / "log.json").write_text("x")
    logrepair.repair("a")
    with pytest.raises(PlanError, match="by which columns it is divided was lost"):
        logmeta.made("a", None, ())
    assert logmeta.made("a", 2, ("page",)).by == logmeta.made("a", None, ()).by == ("page",)


KILLED = """
import sys
from clickpipe.store import logappend, logcare, logrepair, logwriter
logwriter.SEGMENT = {small}
{line}
"""


def _killed(line: str, point: str) -> None:
    """In a process of its own, which dies at this point."""
    environment = {**os.environ, "CLICKPIPE_KILL_POINT": point}
    code = KILLED.format(small=SMALL, line=line)
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -signal.SIGKILL, point


@pytest.mark.parametrize("point", ["after-repaired-meta", "after-aside", "after-aside:2", "before-index-rename"])
def test_a_repair_that_died_is_done_again(point: str, home: Path) -> None:
    log = _filled()
    ids = [LogSplit(log, 0).identity(head.text + head.length) for head in log.heads(0)]
    _flip(_segments(log)[0], -3)
    _killed('logrepair.repair("a")', point)
    logrepair.repair("a")
    assert _records() == [*range(9)]
    assert sum(1 for _ in (home / "logs" / "a.damaged").glob("*.from-0.*")) == 2
    now = [LogSplit(Log("a"), 0).identity(head.text + head.length) for head in Log("a").heads(0)]
    assert now == ids[:3]
    _filled(batches=1, first=50)
    assert _records() == [*range(9), 150, 151, 152]


@pytest.mark.parametrize("point", ["before-log-rename", "after-log-start", "after-segment-removed"])
def test_a_retention_that_died_leaves_what_the_log_says(point: str) -> None:
    _filled()
    _killed('logcare.retain("a", None, 0)', point)
    start = Log("a").starts[0]
    assert _records() == [*range(start, 27)]
    logcare.retain("a", None, 0)
    assert (Log("a").starts[0], len(_segments(Log("a")))) == (24, 1)
    assert _records() == [24, 25, 26]


WRITES = """
writer = logwriter.LogWriter("a")
for number in range(6):
    writer.append(0, b'{"n":%d}\\\\n' % number)
    writer.commit()
    print(number, flush=True)
"""


@pytest.mark.parametrize("point", ["before-log-fsync:3", "after-log-fsync:3", "before-segment", "before-segment:2"])
def test_a_writer_that_died_has_kept_what_it_had_acknowledged(point: str) -> None:
    code = KILLED.format(small=200, line=WRITES.replace("\\\\n", "\\n"))
    environment = {**os.environ, "CLICKPIPE_KILL_POINT": point}
    died = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died
    kept = _records()
    assert kept == [*range(len(kept))]
    assert len(kept) >= len(died.stdout.split())
    writer = LogWriter("a")
    writer.append(0, b'{"n":%d}\n' % len(kept))
    writer.commit()
    writer.close()
    assert _records() == [*range(len(kept) + 1)]


def test_what_an_fsync_has_failed_on_is_not_taken_for_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    log = _filled(batches=2)
    writer = LogWriter("a")
    writer.append(0, b'{"n":99}\n')
    monkeypatch.setenv("CLICKPIPE_FAIL", "fsync:1+:EIO")
    with pytest.raises(DiskError):
        writer.commit()
    monkeypatch.delenv("CLICKPIPE_FAIL")
    writer.close()
    assert _records() == [*range(6)]
    assert os.path.getsize(logends.segment(log.partition(0), 0)) == log.place(0).at


# The commands.


def test_no_name_of_a_log_makes_damage_harmless() -> None:
    log = _filled("harmless")
    _flip(_segments(log)[0], 100)
    assert command._check(log) == StateError.code


def test_a_damaged_log_does_not_hide_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        _filled(name)
    (Path(Log("b").path) / "log.json").write_text("x")
    assert command._list(True) == StateError.code
    out, err = capsys.readouterr()
    assert [json.loads(line)["log"] for line in out.splitlines()] == ["a", "c"]
    assert "log.json is damaged" in err


def test_only_a_newline_ends_a_record_that_is_shown() -> None:
    writer = LogWriter("a")
    writer.append(0, b'{"a":1}\r\n x\x0by\r \x85z\n{"a":2}\n')
    writer.commit()
    writer.close()
    assert list(command._lines(Log("a"), 0, 0, None, 10, False)) == [b'{"a":1}\r\n', b" x\x0by\r \x85z\n", b'{"a":2}\n']
    assert [json.loads(line)["offset"] for line in command._lines(Log("a"), 0, 1, None, 10, True)] == [1, 2]
    assert list(command._lines(Log("a"), 0, 0, 9, 1, False)) == [b" x\x0by\r \x85z\n"]


def test_reading_from_a_time_unpacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log = _filled()
    heads = list(log.heads(0))
    monkeypatch.setattr(segments.Unpacker, "text", lambda *_: pytest.fail("unpacked"))
    assert first_of(log, 0, "2020-01-01T00:00:00Z") == 0
    assert first_of(log, 0, str(heads[4].arrival)) <= heads[4].offset
    assert first_of(log, 0, "2190-01-01T00:00:00Z") == 27


@pytest.mark.parametrize("start", ["²", "1_0", " 1", "-1x", "now"])
def test_what_is_no_place_to_begin_is_refused(start: str) -> None:
    with pytest.raises(PlanError, match="--from: "):
        first_of(_filled(batches=1), 0, start)


# Spooled input.

ROWS = [{"ts": 1_767_225_600_000 + n * 100, "n": n} for n in range(200)]


def test_what_was_spooled_before_the_first_checkpoint_is_read_by_the_next_run(tmp_path: Path) -> None:
    """Also by processes of their own, and without a name; and no retention takes it away before."""
    lines = [json.dumps(row) + "\n" for row in ROWS]
    line = "ingest - --spool log:s --time ts --checkpoint 1ms | sink b.ndjson"
    (tmp_path / testing.INPUT).write_text("".join(lines[:100]))
    assert run_steps([["run", "-q", "--restart", "no", "-c", line]], tmp_path, kill={0: "before-manifest"}) == [-9]
    assert _records("s") == [*range(100)]
    assert logcare.needs(Log("s")) == {0: {"stdin": 0}}
    (tmp_path / testing.INPUT).write_text("".join(lines[100:]))
    assert run_steps([["run", "-q", "--no-fuse", "--restart", "no", "-c", line]], tmp_path) == [0]
    assert [json.loads(row)["n"] for row in (tmp_path / "b.ndjson").read_text().splitlines()] == [*range(200)]


def test_reset_begins_behind_what_was_spooled(tmp_path: Path) -> None:
    line = "ingest - --spool log:s --name s --checkpoint 1ms{} | sink b.ndjson"
    (tmp_path / testing.INPUT).write_text("".join(json.dumps(row) + "\n" for row in ROWS[:10]))
    assert run_steps([["run", "-q", "--restart", "no", "-c", line.format("")]], tmp_path, kill={0: "before-manifest"}) == [-9]
    (tmp_path / testing.INPUT).write_text("".join(json.dumps(row) + "\n" for row in ROWS[10:]))
    assert run_steps([["run", "-q", "-c", line.format(" --reset")]], tmp_path) == [0]
    assert [json.loads(row)["n"] for row in (tmp_path / "b.ndjson").read_text().splitlines()] == [*range(10, 200)]


# What checkpoints have staged.


def _staged(log: Log, count: int) -> tuple[list[logappend.Piece], bytes]:
    """Pieces of two batches, for the end of a partition, over several segments."""
    batches = logwriter.Batches(log.place(0), segments.Packer())
    pieces, data = [], b""
    for number in range(count):
        place, begin = batches.place, len(data)
        for n in (number * 2, number * 2 + 1):
            batches.add(b'{"n":%d}\n' % n, None)
            data += b"".join(batch for _, batch in batches.rest())
        pieces.append(logappend.Piece(place, begin, len(data) - begin))
        batches.place = logwriter.rolled(batches.place)
    return pieces, data


def _append(pieces: list[logappend.Piece], data: bytes) -> None:
    appending = logappend.Appending("a", Log("a").id, NO_PATIENCE)
    try:
        appending.append(0, pieces, lambda piece: data[piece.begin : piece.begin + piece.size])
    finally:
        appending.close()


def test_what_was_staged_is_appended_once_from_whatever_a_power_failure_has_left() -> None:
    """Cut anywhere; zeros anywhere behind what is durable; and somebody has opened it for writing in between."""
    logmeta.made("a", 1, ())
    pieces, data = _staged(Log("a"), 5)
    _append(pieces, data)
    whole = {path.name: path.read_bytes() for path in _segments(Log("a"))}
    assert len(whole) > 1
    last = _segments(Log("a"))[-1]
    indexes = {path.name: path.read_bytes() for path in Path(Log("a").partition(0)).glob("*.index")}
    size = len(whole[last.name])
    for at in range(0, size, 7):
        for spoilt in (whole[last.name][:at], bytes(at) + whole[last.name][at:], whole[last.name][:at] + bytes(size - at)):
            for is_opened in (False, True):
                for name, text in {**whole, **indexes}.items():
                    (last.parent / name).write_bytes(text)
                Path(segments.index_of(str(last))).unlink(missing_ok=True)
                last.write_bytes(spoilt)
                if is_opened:
                    with suppress(StateError):
                        LogWriter("a").close()
                _append(pieces, data)
                assert {path.name: path.read_bytes() for path in _segments(Log("a"))} == whole
                assert _records() == [*range(10)]


def test_nothing_is_appended_behind_what_another_has_written() -> None:
    logmeta.made("a", 1, ())
    pieces, data = _staged(Log("a"), 2)
    for number in range(4):  # fewer records, as many, and more
        _filled(batches=1, first=number)
        with pytest.raises(StateError, match=f"ends with record {number * 3 + 3}, and a checkpoint appends behind 0"):
            _append(pieces, data)
        assert _records() == [*range(number * 3 + 3)]


def test_what_is_staged_goes_to_a_file_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a checkpoint is away; and it is all there after a death in the middle of the append."""
    import polars as pl

    from clickpipe.batch import Batch
    from clickpipe.columns import Columns
    from clickpipe.core.sink import Form
    from clickpipe.sinks import log as sink
    from clickpipe.state.directory import StateDirectory

    monkeypatch.setattr(sink, "_MOST", 100)
    given = Columns({"n": "int"}, frozenset({"n"}))
    directory = StateDirectory(str(tmp_path / "p"))
    directory.begin()
    one = sink.LogSink("a", Form(None, False, 1_000, partitions=2, by=("n",)))
    writer = one.open_staged(given, 0, None, directory)
    monkeypatch.setattr(segments, "TEXT", 50)
    monkeypatch.setattr(logwriter, "TEXT", 50)
    for n in range(0, 200, 10):
        writer.write(Batch(pl.DataFrame({"n": range(n, n + 10)}), given))
    staged = writer.prepare(1, ended=True)
    assert len(staged.said["parts"]) > 4
    staged.durable()
    for _ in range(2):
        commits = one.commits(directory)
        commits.commit(staged.said)
        commits.close()
    found = [json.loads(line)["n"] for number in (0, 1) for _, text in Log("a").batches(number) for line in text.splitlines()]
    assert sorted(found) == [*range(200)]
