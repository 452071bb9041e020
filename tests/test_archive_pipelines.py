"""What pipelines write to archives is there once, whatever is killed, and what is read from them gives the same results."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from examples import some

from clickpipe.testing import environment, run_steps

START = 1_772_323_200_000  # 2026-03-01
COUNT = 900
INGEST = "ingest in.ndjson --time ts --max-out-of-orderness 2s --batch-bytes 4KiB --name c {more}"
LINE = INGEST + " | sink archive:clicks"

POINTS = (
    "after-prepare",
    "before-archive-fsync",
    "before-archive-rename",
    "after-archive-rename",
    "before-manifest",
    "after-manifest",
    "before-commit",
    "after-archive-shown",
    "before-version-write",
    "before-version-fsync",
    "before-version-rename",
    "after-version-rename",
    "after-version",
    "after-archive-hidden",
    "after-commit",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Records of two days, some of them late, some bad."""
    chance, lines = random.Random(7), []
    for number in range(COUNT):
        late = 60_000 if number % 50 == 49 else chance.randrange(3_000)
        ts = START + 86_400_000 - COUNT * 100 + number * 200 - late
        lines.append(json.dumps({"ts": ts, "page": f"/p/{number % 5}", "n": number}))
    lines.insert(100, "not JSON")
    (tmp_path / "in.ndjson").write_text("\n".join(lines) + "\n")
    return tmp_path


def _run(directory: Path, line: str = LINE, more: str = "", kill: str = "", fail: str = "") -> int:
    steps = [["run", "-q", "--restart", "no", "-c", line.format(more=more)]]
    return run_steps(steps, directory, kill={0: kill} if kill else None, fail={0: fail} if fail else None)[0]


def _do(directory: Path, *words: str, kill: str = "") -> int:
    return run_steps([[*words]], directory, kill={0: kill} if kill else None)[0]


def _said(directory: Path) -> str:
    return (directory / ".stderr").read_text()


def _asked(directory: Path, sql: str) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "clickpipe", "query", "--no-cache", sql]
    done = subprocess.run(command, cwd=directory, env=environment(directory), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _seen(directory: Path, name: str = "clicks", columns: str = "n") -> list[tuple[object, ...]]:
    """By DuckDB, which knows nothing of us."""
    files = f"{directory}/.home/archives/{name}/**/*.parquet"
    return (
        duckdb.connect().execute(f"SELECT {columns} FROM read_parquet($1, union_by_name=true) ORDER BY ALL", [files]).fetchall()
    )


ALL = [(n,) for n in range(COUNT)]


@pytest.mark.parametrize("point", some(POINTS))
def test_killed_there_every_row_is_there_once(point: str, folder: Path) -> None:
    """Others see no row twice even before it is run again."""
    for hit in (1, 5):
        code = _run(folder, more="--checkpoint 1ms", kill=f"{point}:{hit}")
        assert code in (-signal.SIGKILL, 0), _said(folder)
        seen = _seen(folder) if list((folder / ".home" / "archives").rglob("*.parquet")) else []
        assert len(set(seen)) == len(seen)
    assert _run(folder, more="--checkpoint 1ms") == 0, _said(folder)
    assert _seen(folder) == ALL
    assert _asked(folder, "select count(*) as n, count(distinct n) as d from clicks") == [{"n": COUNT, "d": COUNT}]
    left = [path.name for path in (folder / ".home" / "archives").rglob(".*")]
    assert not left


def test_without_checkpoints_each_run_adds_its_rows_at_its_end(folder: Path) -> None:
    assert _run(folder) == 0
    assert _run(folder) == 0
    assert _seen(folder) == sorted(ALL * 2)
    assert _run(folder, more="--max-errors 0") == 65
    assert _seen(folder) == sorted(ALL * 2)
    assert _run(folder, kill="after-archive-shown") == -signal.SIGKILL
    assert len(_seen(folder)) == 3 * COUNT  # no version has them:
    assert _asked(folder, "select count(*) as n from clicks") == [{"n": 2 * COUNT}]
    assert _do(folder, "archive", "compact", "clicks") == 0
    assert _seen(folder) == sorted(ALL * 2)


def test_begun_anew_it_takes_the_place_of_what_it_had_written_and_of_nothing_else(folder: Path) -> None:
    assert _run(folder, more="--checkpoint 1ms") == 0
    assert _run(folder, LINE.replace("--name c", "--name other"), "--checkpoint 1ms") == 0
    assert _run(folder, more="--checkpoint 1ms --reset") == 0
    assert _seen(folder) == sorted(ALL * 2)


def test_an_archive_that_is_not_the_one_of_the_checkpoint_stops_the_run(folder: Path) -> None:
    """Gone, or behind, or ahead."""
    archive = folder / ".home" / "archives" / "clicks"
    assert _run(folder, more="--checkpoint 1ms", kill="after-commit:6") == -signal.SIGKILL
    newest = sorted((archive / "_versions").iterdir())[-2:]
    kept = {path: path.read_bytes() for path in newest}
    for path in newest:
        path.unlink()
    assert _run(folder, more="--checkpoint 1ms") == 78
    assert "holds rows up to checkpoint" in _said(folder)
    for path, data in kept.items():
        path.write_bytes(data)
    archive.rename(archive.parent / "put_aside")
    assert _run(folder, more="--checkpoint 1ms") == 78
    assert "is empty or was deleted" in _said(folder)
    assert _run(folder, more="--checkpoint 1ms --reset") == 0
    assert _seen(folder) == ALL


def test_two_pipelines_write_to_one_archive_at_once(folder: Path) -> None:
    command = [sys.executable, "-m", "clickpipe", "run", "-q", "-c"]
    lines = [LINE.replace("--name c", f"--name {name}").format(more="--checkpoint 1ms") for name in ("a", "b")]
    running = [subprocess.Popen([*command, line], cwd=folder, env=environment(folder)) for line in lines]
    assert [process.wait(120) for process in running] == [0, 0]
    assert _seen(folder) == sorted(ALL * 2)
    assert _do(folder, "archive", "check", "clicks") == 0, _said(folder)


RESULTS = "window tumble 10s --allowed-lateness 30s | aggregate --by page n='count(*)' s='sum(n)' | sink "


def test_the_same_steps_over_the_archive_give_the_same_results(folder: Path) -> None:
    """Late records are late again, and no others are, although the order is another one."""
    assert _run(folder, INGEST + " | sink archive:clicks --pass | " + RESULTS + "view:live", "--checkpoint 1ms") == 0
    late = (folder / ".home" / "pipelines" / "c" / "late.ndjson").read_text().splitlines()
    assert len(late) == COUNT // 50
    for compacted in (False, True):
        assert not compacted or _do(folder, "archive", "compact", "clicks") == 0
        assert _run(folder, "ingest archive:clicks --name again | " + RESULTS + "view:again") == 0, _said(folder)
        ask = "select window_start, page, n, s from {} order by window_start, page"
        assert _asked(folder, ask.format("again")) == _asked(folder, ask.format("live"))
        again = (folder / ".home" / "pipelines" / "again" / "late.ndjson").read_text().splitlines()
        assert {json.loads(line)["n"] for line in again} == {json.loads(line)["n"] for line in late}


def test_marks_come_through_between_processes(folder: Path) -> None:
    steps = [["ingest", "in.ndjson", "--time", "ts", "--max-out-of-orderness", "2s"], ["sink", "archive:apart"]]
    assert run_steps(steps, folder) == [0, 0]
    assert _run(folder) == 0
    assert _seen(folder, "apart", "n, _mark") == _seen(folder, "clicks", "n, _mark")
    assert len([n for n, mark in _seen(folder, "apart", "n, _mark") if mark is not None]) > COUNT // 50


def test_values_that_fit_no_column_are_dead_letters(folder: Path) -> None:
    """The accounts balance, and the others are written. What is refused goes to no step behind."""
    assert _run(folder) == 0
    records = [{"ts": START, "page": "x", "n": None if n % 2 else f"text {n}", "more": True} for n in range(10)]
    (folder / "in.ndjson").write_text("".join(json.dumps(record) + "\n" for record in records))
    line = "ingest in.ndjson --time ts --name d | sink archive:clicks --pass | sink out.ndjson"
    assert _do(folder, "run", "-c", line) == 0, _said(folder)
    assert "read 10 = dead letter 5 + written 5" in _said(folder)
    assert len((folder / "out.ndjson").read_text().splitlines()) == 5
    dead = (folder / ".home" / "pipelines" / "d" / "dead.ndjson").read_text().splitlines()
    assert json.loads(dead[0])["error"] == 'column "n" is int in the archive, and str here'
    assert _asked(folder, "select count(*) as n, sum(n) as s, count(more) as m from clicks") == [
        {"n": COUNT + 5, "s": sum(range(COUNT)), "m": 5}
    ]


def test_integers_become_floats_and_new_columns_come(folder: Path) -> None:
    assert _run(folder) == 0
    (folder / "in.ndjson").write_text(json.dumps({"ts": START, "page": "x", "n": 0.5, "more": [1]}) + "\n")
    assert _run(folder, LINE.replace("--name c", "--name d")) == 0
    assert _asked(folder, "select sum(n) as s, count(more) as m from clicks") == [{"s": sum(range(COUNT)) + 0.5, "m": 1}]
    assert _do(folder, "tables", "clicks") == 0


@pytest.mark.parametrize("by", ["hour", "none", "page", "page,n"])
def test_folders_by_something_else(by: str, folder: Path) -> None:
    few = " | limit 12 | sink" if by == "page,n" else " | sink"  # a folder for each is made durable
    assert _run(folder, LINE.replace(" | sink", few) + f" --partition-by {by}") == 0
    assert len(_seen(folder)) == (12 if by == "page,n" else len(ALL))
    one = next((folder / ".home" / "archives" / "clicks").rglob("*.parquet")).relative_to(
        folder / ".home" / "archives" / "clicks"
    )
    assert {"hour": "/hour=", "none": "clicks", "page": "page=%2Fp%2F", "page,n": "/n="}[by] in f"clicks/{one}"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ingest in.ndjson | sink archive:../x", "an archive cannot be called '../x'"),
        ("ingest in.ndjson | sink archive:clicks --partition-by pgae", 'no column "pgae" for --partition-by'),
        ("ingest in.ndjson | sink archive:clicks --format csv", "an archive is Parquet"),
        ("ingest in.ndjson | select --add 'n AS day' | sink archive:clicks", 'a column is called "day"'),
        ("ingest archive:clisk | sink -", 'no archive "clisk"'),
        ("ingest archive:clicks in.ndjson | sink -", "must be the only source"),
        ("ingest archive:clicks --follow | sink -", "--follow is not for archive:clicks"),
    ],
)
def test_what_cannot_be_is_said(line: str, says: str, folder: Path) -> None:
    assert _run(folder) == 0
    assert _run(folder, line) == 2
    assert says in _said(folder)


# Compacted, checked, retained.


@pytest.mark.parametrize(
    "point",
    [
        "before-compacted-rename",
        "after-compacted",
        "after-archive-shown",
        "before-version-rename",
        "after-version",
        "after-archive-hidden:2",
    ],
)
def test_killed_while_it_compacts_nothing_is_lost(point: str, folder: Path) -> None:
    assert _run(folder, more="--checkpoint 1ms") == 0
    assert _do(folder, "archive", "compact", "clicks", kill=point) == -signal.SIGKILL
    assert _asked(folder, "select count(*) as n, count(distinct n) as d from clicks") == [{"n": COUNT, "d": COUNT}]
    assert _do(folder, "archive", "compact", "clicks") == 0
    assert _seen(folder) == ALL
    assert _do(folder, "archive", "check", "clicks") == 0, _said(folder)
    names = [path.name for path in (folder / ".home" / "archives").rglob(".*")]
    assert all(name.endswith(".removed") for name in names)


def test_check_finds_a_flipped_bit_a_missing_file_and_one_too_many(folder: Path) -> None:
    assert _run(folder, more="--checkpoint 1ms") == 0
    first, second, *_ = sorted((folder / ".home" / "archives" / "clicks").rglob("*.parquet"))
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    second.rename(second.with_name("other.parquet"))
    assert _do(folder, "archive", "check", "clicks") == 78
    for told in (f"{first} is damaged", f"{second} is gone", "other.parquet is none of its files"):
        assert told in _said(folder)


def test_a_damaged_file_and_a_full_disk_are_no_fault_of_ours(folder: Path) -> None:
    assert _run(folder) == 0
    assert _run(folder) == 0
    path = next((folder / ".home" / "archives" / "clicks" / "day=2026-03-01").glob("*.parquet"))
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    assert _run(folder, "ingest archive:clicks | sink -") == 78
    assert "clickpipe archive check clicks" in _said(folder)
    assert _do(folder, "archive", "compact", "clicks") == 78
    path.write_bytes(whole)
    limit = f"ulimit -f {2 * len(whole) * 3 // 4 // 1024}"  # blocks of 1 KiB that a file may have
    done = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; {limit}; exec {sys.executable} -m clickpipe archive compact clicks"],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    assert done.returncode in (74, 75), done.stderr
    assert "File too large" in done.stderr
    assert _do(folder, "archive", "compact", "clicks") == 0
    assert _seen(folder) == sorted(ALL * 2)


def test_retention_and_the_list(folder: Path) -> None:
    assert _run(folder, more="--checkpoint 1ms") == 0
    assert _do(folder, "archive", "retain", "clicks", "--keep", "30000d") == 0
    assert _seen(folder) == ALL
    assert _do(folder, "archive", "retain", "clicks", "--keep", "1d", "--dry-run") == 0
    assert _seen(folder) == ALL
    assert _do(folder, "archive", "retain", "clicks", "--keep", "1d") == 0
    assert not list((folder / ".home" / "archives").rglob("*.parquet"))
    assert _do(folder, "archive", "ls") == 0
    assert _do(folder, "archive", "show", "nothing") == 2
    assert 'no archive "nothing"' in _said(folder)
