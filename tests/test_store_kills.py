"""Commands that change stores, killed where they change them: done again, they come to the same end, and nothing was lost."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from filling import Filler, numbers, rows

from clickpipe.store import logs, logwriter, versions
from clickpipe.store.logs import Log
from clickpipe.store.logwriter import LogWriter
from clickpipe.testing import run_steps

START = 1_767_225_600_000
PIPELINE = "ingest in.ndjson --time ts --name c | window tumble 1m | aggregate n='count(*)' | sink view:minutes"


def _filled(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[int]:
    """A log of several segments; where they begin."""
    monkeypatch.setenv("CLICKPIPE_HOME", str(folder / ".home"))
    monkeypatch.setattr(logwriter, "SEGMENT", 400)
    writer = LogWriter("a")
    for number in range(9):
        writer.append(0, b'{"n":%d}\n' % number)
        writer.commit()
    writer.close()
    return logs.bases(writer.log.partition(0))


def _records() -> list[int]:
    log = Log("a")
    return [json.loads(line)["n"] for _, text in log.batches(0, log.starts[0]) for line in text.splitlines()]


def _run(folder: Path, words: list[str], kill: str = "") -> int:
    return run_steps([words], folder, kill={0: kill} if kill else None)[0]


@pytest.mark.parametrize("point", ["after-log-start", "after-segment-removed"])
def test_retention_killed_there_is_done_again(point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a log begins with was written down before anything went."""
    bases = _filled(monkeypatch, tmp_path)
    words = ["log", "retain", "a", "--keep-bytes", "1B"]
    assert _run(tmp_path, words, point) == -9
    left = _records()
    assert left == [*range(left[0], 9)]
    assert _run(tmp_path, words) == 0
    assert _records() == left == [*range(bases[-1], 9)]


def test_a_backfill_killed_there_has_changed_nothing(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text("".join(f'{{"ts":{START + n * 1_000}}}\n' for n in range(300)))
    assert _run(tmp_path, ["run", "-q", "-c", PIPELINE]) == 0
    path = tmp_path / ".home" / "views" / "minutes.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("UPDATE minutes SET n = 0")
    connection.commit()
    assert _run(tmp_path, ["backfill", "-q", "-c", PIPELINE], "before-view-exchange") == -9
    assert {n for (n,) in connection.execute("SELECT n FROM minutes")} == {0}
    assert _run(tmp_path, ["backfill", "-q", "-c", PIPELINE]) == 0
    assert [n for (n,) in connection.execute("SELECT n FROM minutes")] == [60] * 5
    connection.close()


def test_a_writer_killed_between_two_segments_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its segment is full already: the next batch begins another one."""
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path / ".home"))
    monkeypatch.setattr(logwriter, "SEGMENT", 1)
    died = []

    def die(point: str) -> None:
        if point == "before-segment" and not died:
            died.append(point)
            raise RuntimeError(point)

    monkeypatch.setattr(logwriter, "kill_point", die)
    writer = LogWriter("a")
    writer.append(0, b'{"n":0}\n')
    writer.commit()
    writer.append(0, b'{"n":1}\n')
    with pytest.raises(RuntimeError):
        writer.commit()
    with pytest.raises(OSError, match="Bad file descriptor"):
        writer.close()
    os.close(writer._lock)
    again = LogWriter("a")
    again.append(0, b'{"n":1}\n')
    again.commit()
    again.close()
    assert _records() == [0, 1]


def test_a_repair_killed_there_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bases = _filled(monkeypatch, tmp_path)
    path = Path(logs.segment(Log("a").partition(0), bases[1]))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert _run(tmp_path, ["log", "repair", "a"], "after-aside") == -9
    assert _run(tmp_path, ["log", "repair", "a"]) == 0
    assert 0 < len(_records()) < 9
    assert _records() == [*range(len(_records()))]


def test_an_archive_is_whole_when_its_writer_dies_behind_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the snapshot makes superfluous may still be there."""
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path))
    monkeypatch.setattr(versions, "_SNAPSHOTS", 2)

    def die(point: str) -> None:
        if point == "after-version-snapshot":
            raise RuntimeError(point)

    filler = Filler()
    filler.add(rows(0, 1))
    monkeypatch.setattr(versions, "kill_point", die)
    with pytest.raises(RuntimeError):
        filler.add(rows(1, 1))
    monkeypatch.undo()
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path))
    assert numbers() == [0, 1]
    filler.add(rows(2, 1))
    assert numbers() == [0, 1, 2]
