"""Views hold the rows of whole checkpoints, each once, whatever is killed."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path

import pytest

from clickpipe.testing import run_steps

ROWS = "".join(
    json.dumps({"ts": 1_767_225_600_000 + n * 100, "page": None if n % 7 == 0 else f"/p/{n % 3}", "x": n % 11}) + "\n"
    for n in range(1_500)
)
INGEST = "ingest in.ndjson --time ts --batch-bytes 2KiB --name c {more}"
LINE = INGEST + " | window tumble 10s | aggregate --by page {calls} | sink view:pages"
CALLS = "n='count(*)' s='sum(x)'"


def _prepared(directory: Path) -> Path:
    (directory / "in.ndjson").write_text(ROWS)
    return directory


def _run(directory: Path, more: str = "", kill: str = "", calls: str = CALLS, line: str = LINE) -> int:
    text = line.format(more=more, calls=calls)
    return run_steps([["run", "-q", "--restart", "no", "-c", text]], directory, kill={0: kill} if kill else None)[0]


def _rows(directory: Path, name: str = "pages") -> list[tuple[object, ...]]:
    connection = sqlite3.connect(directory / ".home" / "views" / f"{name}.sqlite")
    rows = connection.execute(f"SELECT * FROM {name} ORDER BY _key").fetchall()
    connection.close()
    return rows


def _said(directory: Path) -> str:
    return (directory / ".stderr").read_text()


def test_a_view_has_a_row_per_window_and_key(tmp_path: Path) -> None:
    """A null is a key like any other."""
    directory = _prepared(tmp_path)
    assert _run(directory) == 0
    rows = _rows(directory)
    assert len(rows) == 15 * 4
    assert sum(int(str(row[3])) for row in rows) == 1_500
    assert {row[2] for row in rows} == {None, "/p/0", "/p/1", "/p/2"}
    assert rows[0][0] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "point",
    ["after-prepare", "before-manifest", "after-manifest", "before-view-commit", "after-view-commit", "after-commit"],
)
def test_killed_there_the_view_is_the_same(point: str, tmp_path: Path) -> None:
    """Each row once: had one been given twice, its _rev would say so."""
    directory = _prepared(tmp_path)
    assert _run(directory) == 0
    expected = _rows(directory)
    for hit in (1, 9):  # before there are rows, and after
        assert _run(directory, "--checkpoint 1ms", f"{point}:{hit}") == -signal.SIGKILL, _said(directory)
    assert _run(directory, "--checkpoint 1ms") == 0, _said(directory)
    assert _rows(directory) == expected


def test_a_second_run_takes_the_place_of_the_first(tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    assert _run(directory) == 0
    first = _rows(directory)
    assert _run(directory) == 0
    assert _rows(directory) == first
    assert _run(directory, calls="m='max(x)'") == 0
    assert len(_rows(directory)[0]) == 3 + 1 + 2


def test_results_that_no_checkpoint_knows_of_stop_the_run(tmp_path: Path) -> None:
    """Another pipeline has written to the view meanwhile."""
    directory = _prepared(tmp_path)
    assert _run(directory, "--checkpoint 1ms", "after-commit:4") == -signal.SIGKILL
    assert _run(directory, line=LINE.replace("--name c", "--name other")) == 0
    assert _run(directory, "--checkpoint 1ms") == 78
    assert "does not know of" in _said(directory)
    assert _run(directory, "--checkpoint 1ms --reset") == 0


def test_a_later_row_of_a_key_replaces_the_earlier(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text('{"id":1,"a":"x"}\n{"id":2,"a":"y"}\n{"id":1,"a":"z"}\n')
    assert _run(tmp_path, line="ingest in.ndjson | sink view:latest --key id") == 0
    assert _rows(tmp_path, "latest") == [(1, "z", 1, "[1]"), (2, "y", 0, "[2]")]


def test_a_view_that_a_reader_holds_is_written_all_the_same(tmp_path: Path) -> None:
    """The reader goes on seeing what it saw."""
    directory = _prepared(tmp_path)
    assert _run(directory) == 0
    reader = sqlite3.connect(directory / ".home" / "views" / "pages.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    before = reader.execute("SELECT count(*) FROM pages").fetchone()
    assert _run(directory, line=LINE.replace("10s", "1m")) == 0
    assert reader.execute("SELECT count(*) FROM pages").fetchone() == before
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM pages").fetchone() == (3 * 4,)
    reader.close()


def test_a_damaged_view_is_no_fault_of_ours(tmp_path: Path) -> None:
    directory = _prepared(tmp_path)
    assert _run(directory) == 0
    (directory / ".home" / "views" / "pages.sqlite").write_bytes(b"x" * 8192)
    assert _run(directory) == 78
    assert "pages.sqlite: file is not a database" in _said(directory)


@pytest.mark.parametrize("name", ["../x", "a b", "_marker", "sqlite_x", "x;y"])
def test_a_view_cannot_be_called_like_a_path(name: str, tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text('{"id":1}\n')
    assert _run(tmp_path, line=f"ingest in.ndjson | sink 'view:{name}' --key id") == 2
    assert "a view cannot be called" in _said(tmp_path)


def test_a_view_needs_a_key(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text('{"id":1}\n')
    assert _run(tmp_path, line="ingest in.ndjson | sink view:x") == 2
    assert "--key COL" in _said(tmp_path)


def test_a_view_keeps_sketches(tmp_path: Path) -> None:
    """As text, which functions take as it is."""
    directory = _prepared(tmp_path)
    line = INGEST + " | window tumble 10s | sketch --by page u='distinct(x)' | sink view:pages"
    assert _run(directory, line=line) == 0, _said(directory)
    assert run_steps([["view", "show", "pages"]], directory)[0] == 0
    (directory / "rows.ndjson").write_bytes((directory / ".stdout").read_bytes())
    asked = "ingest rows.ndjson | aggregate u='merge(u)' | select 'estimate(u) AS n' | sink n.ndjson"
    assert _run(directory, line=asked) == 0, _said(directory)
    assert json.loads((directory / "n.ndjson").read_text()) == {"n": 11}


def test_every_type_of_column_has_one_in_views() -> None:
    from clickpipe import columns
    from clickpipe.store import views

    assert set(views._TYPES) == set(columns.TYPES)


def test_a_view_that_has_no_rows_yet_says_so(tmp_path: Path) -> None:
    """Killed before the first ones: there is the file, and no table."""
    directory = _prepared(tmp_path)
    assert _run(directory, "--checkpoint 1ms", "before-view-commit:1") == -signal.SIGKILL
    assert run_steps([["view", "show", "pages"]], directory)[0] == 2
    assert 'view "pages" has no rows yet' in _said(directory)
    assert run_steps([["view", "ls"]], directory)[0] == 0
