"""A table of Delta Lake has the rows of whole checkpoints, each once, and nothing that its columns cannot hold."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable, Field, Schema
from examples import some

from clickpipe.errors import StateError
from clickpipe.store.deltas import Commit, DeltaFile, DeltaTableFolder
from clickpipe.testing import run_steps

START, COUNT = 1_772_323_200_000, 600
INGEST = "ingest in.ndjson --time ts --max-out-of-orderness 2s --batch-bytes 4KiB --name c {more}"
LINE = INGEST + " | sink delta:table"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every twentieth record is late."""
    lines = [json.dumps({"ts": START + n * 200 - (60_000 if n % 20 == 19 else 0), "n": n, "x": n / 2}) for n in range(COUNT)]
    (tmp_path / "in.ndjson").write_text("\n".join(lines) + "\n")
    return tmp_path


def _run(directory: Path, more: str = "", kill: str = "", line: str = LINE, fail: str = "") -> int:
    steps = [["run", "-q", "--restart", "no", "-c", line.format(more=more)]]
    return run_steps(steps, directory, kill={0: kill} if kill else None, fail={0: fail} if fail else None)[0]


def _said(directory: Path) -> str:
    return (directory / ".stderr").read_text()


def _rows(directory: Path) -> pl.DataFrame:
    return pl.read_delta(str(directory / "table")).sort("n")


ALL = list(range(COUNT))
POINTS = (
    "before-delta-fsync",
    "after-delta-rename",
    "after-manifest",
    "before-commit",
    "after-delta-commit",
    "after-commit",
)


@pytest.mark.parametrize("point", some(POINTS))
def test_killed_there_every_row_is_there_once(point: str, folder: Path) -> None:
    for hit in (1, 4):
        assert _run(folder, "--checkpoint 1ms", f"{point}:{hit}") in (-signal.SIGKILL, 0), _said(folder)
    assert _run(folder, "--checkpoint 1ms") == 0, _said(folder)
    rows = _rows(folder)
    assert rows["n"].to_list() == ALL
    assert rows["_mark"].count() == COUNT // 20
    assert _run(folder, "--checkpoint 1ms --reset") == 0, _said(folder)  # takes the place of what it had written
    assert _rows(folder)["n"].to_list() == ALL


def test_calls_that_fail_lose_nothing(folder: Path) -> None:
    for fail in ("fsync:9:EIO", "write:6:EIO", "replace:5:EIO", "fsync:14:EIO"):
        assert _run(folder, "--checkpoint 1ms", fail=fail) in (0, 74, 75), _said(folder)
    assert _run(folder, "--checkpoint 1ms") == 0, _said(folder)
    assert _rows(folder)["n"].to_list() == ALL


def test_without_checkpoints_a_run_adds_its_rows_at_its_end(folder: Path) -> None:
    assert _run(folder) == 0
    assert _run(folder, line=LINE + " --format csv") == 2
    assert DeltaTable(folder / "table").version() == 1
    assert _rows(folder)["n"].to_list() == ALL
    files = duckdb.connect().execute(f"SELECT count(*) FROM read_parquet('{folder}/table/*.parquet')").fetchone()
    assert files == (COUNT,)


def test_a_table_that_is_not_the_one_of_the_checkpoint_stops_the_run(folder: Path) -> None:
    assert _run(folder, "--checkpoint 1ms", "after-commit:5") == -signal.SIGKILL
    (folder / "table").rename(folder / "elsewhere")
    assert _run(folder, "--checkpoint 1ms") == 78
    assert "is empty or was deleted" in _said(folder)


def test_a_torn_newest_entry_is_named_and_its_rows_come_again_without_it(folder: Path) -> None:
    """What a power loss leaves behind of a commit that had not been called done."""
    assert _run(folder, "--checkpoint 1ms", "after-delta-commit:4") == -signal.SIGKILL
    newest = max((folder / "table" / "_delta_log").glob("*.json"))
    whole = newest.read_bytes()
    for left in (b"", whole[: len(whole) // 2], bytes(len(whole))):
        newest.write_bytes(left)
        assert _run(folder, "--checkpoint 1ms") == 78
        assert f"{newest}, the newest entry of the table's log, is torn" in _said(folder)
    newest.unlink()
    assert _run(folder, "--checkpoint 1ms") == 0, _said(folder)
    assert _rows(folder)["n"].to_list() == ALL


def test_values_that_a_column_cannot_hold_are_dead_letters(folder: Path) -> None:
    """A float into a column of integers would be cut off silently."""
    DeltaTable.create(folder / "table", Schema([Field("n", "string"), Field("x", "long"), Field("other", "double")]))
    assert _run(folder) == 0, _said(folder)
    rows = pl.read_delta(str(folder / "table"))
    assert sorted(rows["x"].to_list()) == list(range(COUNT // 2))
    assert rows["other"].count() == 0
    assert rows["n"].dtype == pl.String
    dead = (folder / ".home" / "pipelines" / "c" / "dead.ndjson").read_text().splitlines()
    assert len(dead) == COUNT // 2
    assert json.loads(dead[0])["error"] == 'column "x" is int in the table, and float here'


def test_new_columns_are_added_and_results_have_instants(folder: Path) -> None:
    assert _run(folder, line="ingest in.ndjson --time ts | window tumble 10s | aggregate n='count(*)' | sink delta:table") == 0
    assert _run(folder, line="ingest in.ndjson --time ts | window tumble 10s | aggregate m='max(n)' | sink delta:table") == 0
    rows = pl.read_delta(str(folder / "table"))
    assert rows["window_start"].dtype == pl.Datetime("us", "UTC")
    assert rows["n"].count() == rows["m"].count() == rows.height // 2


@pytest.mark.parametrize(
    ("schema", "partition", "says"),
    [
        (Schema([Field("n", "integer")]), None, 'column "n" is'),
        (Schema([Field("n", "long", nullable=False)]), None, "never null"),
        (Schema([Field("n", "long")]), ["n"], "it is partitioned"),
    ],
)
def test_tables_that_ask_more_are_left_alone(schema: Schema, partition: list[str] | None, says: str, folder: Path) -> None:
    DeltaTable.create(folder / "table", schema, partition_by=partition)
    assert _run(folder) == 2
    assert says in _said(folder)


def test_addresses_elsewhere_are_refused(folder: Path) -> None:
    assert _run(folder, line="ingest in.ndjson | sink delta:s3://bucket/table") == 2
    assert "notimpl" in _said(folder)


def test_without_the_library_it_is_said_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from clickpipe.errors import PlanError

    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(PlanError) as caught:
        DeltaTableFolder(str(folder / "table"))
    assert caught.value.hint == "pip install 'clickpipe[delta]'"


def _with_files(path: Path) -> tuple[DeltaTableFolder, list[DeltaFile]]:
    table = DeltaTableFolder(str(path / "table"))
    table.prepare({"n": "int"})
    files = []
    for number in range(3):
        file = path / "table" / f"part-{number}.parquet"
        pl.DataFrame({"n": [number]}).write_parquet(file)
        files.append(DeltaFile(file.name, file.stat().st_size, '{"numRecords":1}'))
    return table, files


def test_a_commit_that_is_repeated_or_late_changes_nothing(tmp_path: Path) -> None:
    """Also that of a process that was thought dead, between its look and its commit."""
    table, files = _with_files(tmp_path)
    table.commit(Commit([files[0]], "a", 1))
    table.commit(Commit([files[0]], "a", 1))
    zombie, looked = DeltaTableFolder(table.path), []
    opened = zombie._open

    def late() -> object:
        handle = opened()
        if not looked:
            looked.append(table.commit(Commit([files[1]], "a", 2)))
        return handle

    zombie._open = late  # type: ignore[method-assign]  # it is slow
    zombie.commit(Commit([files[1]], "a", 2))
    table.commit(Commit([files[2]], "b", 1))
    assert sorted(pl.read_delta(table.path)["n"]) == [0, 1, 2]


def test_a_file_that_is_gone_is_not_committed(tmp_path: Path) -> None:
    table, files = _with_files(tmp_path)
    (tmp_path / "table" / files[0].path).unlink()
    with pytest.raises(StateError, match="is gone or changed"):
        table.commit(Commit([files[0]], "a", 1))
    assert table.epoch("a") is None


def test_the_log_is_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clickpipe.store.deltas._CHECKPOINT", 5)
    table, files = _with_files(tmp_path)
    for epoch in range(1, 12):
        table.commit(Commit([files[epoch % 3]] if epoch < 4 else [files[0]], "a", epoch))
    assert len(list((tmp_path / "table" / "_delta_log").glob("*.checkpoint.parquet"))) == 2
    assert DeltaTable(table.path).transaction_version("a") == 11
