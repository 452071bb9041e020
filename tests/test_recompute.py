"""Stream, batch and replay agree: backfill, replay and audit, over archives, logs and files; hot and cold as one table."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import pytest

from clickpipe.testing import run_steps

START = 1_767_225_600_000
MINUTE = 60_000
# Some out of order, one in fifty late for its minute.
ROWS = [
    {
        "ts": START + n * 1_000 - (90_000 if n % 50 == 7 else n * 37 % 3_000),
        "page": f"/p/{n % 4}",
        "user": f"u{n % 17}",
        "ms": n % 101,
    }
    for n in range(1_200)
]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS)
INGEST = "ingest in.ndjson --time ts --max-out-of-orderness 4s --name c {more}"
CALLS = "n='count(*)' users='approx_distinct(user)' top='approx_quantile(ms, 0.9)' s='sum(ms)'"
STEPS = f"window tumble 1m | aggregate --by page {CALLS}"
RECIPE = f"{INGEST} | sink archive:raw --pass | {STEPS} | sink view:pages --pass | sink archive:pages"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By a pipeline with checkpoints that was killed twice."""
    directory = tmp_path_factory.mktemp("written")
    (directory / "in.ndjson").write_text(TEXT)
    line = RECIPE.format(more="--checkpoint 1ms --batch-bytes 4KiB")
    for kill in ("after-manifest:4", "after-commit:6"):
        assert run_steps([["run", "-q", "--restart", "no", "-c", line]], directory, kill={0: kill}) == [-9]
    assert run_steps([["run", "-q", "--restart", "no", "-c", line]], directory) == [0], (directory / ".stderr").read_text()
    return directory


@pytest.fixture
def kept(written: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    import shutil

    shutil.copytree(written, tmp_path / "copy")
    return tmp_path / "copy"


def _clickpipe(directory: Path, *words: str) -> tuple[int, str, str]:
    (code,) = run_steps([list(words)], directory)
    return code, (directory / ".stdout").read_text(), (directory / ".stderr").read_text()


def _asked(directory: Path, sql: str) -> list[dict[str, Any]]:
    code, out, err = _clickpipe(directory, "query", "--no-cache", sql)
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def _change(directory: Path, statement: str) -> None:
    connection = sqlite3.connect(directory / ".home" / "views" / "pages.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()


PLAIN = RECIPE.format(more="")


def test_the_raw_archive_has_each_record_once(written: Path) -> None:
    files = written / ".home" / "archives" / "raw"
    found = duckdb.sql(f"SELECT count(*), count(DISTINCT ts || page || ms), sum(ms) FROM '{files}/*/*.parquet'").fetchall()[0]
    assert (found[0], found[2]) == (1_200, sum(row["ms"] for row in ROWS))
    assert _asked(written, "SELECT count(*) AS n, sum(ms) AS s FROM raw") == [{"n": 1_200, "s": found[2]}]


def test_an_audit_over_the_archive_finds_all_in_order(written: Path) -> None:
    """Late records are late again, although the archive has them in another order."""
    code, out, err = _clickpipe(written, "audit", "-c", PLAIN)
    assert code == 0, out + err
    assert "late" not in out
    assert out.count("rows agree") + out.count("row agrees") == 2 * 20
    for more in (["--input", "in.ndjson"], ["--exact"]):
        assert _clickpipe(written, "audit", "-c", PLAIN, "--differences", *more)[:2] == (0, ""), more


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("UPDATE pages SET n = n + 1 WHERE page = '/p/2' AND window_start LIKE '%00:05:00Z'", "page=/p/2: n is 15, should be 14"),
        ("DELETE FROM pages WHERE page = '/p/2' AND window_start LIKE '%00:05:00Z'", "page=/p/2: missing"),
        ("UPDATE pages SET page = '/x' WHERE page = '/p/2' AND window_start LIKE '%00:05:00Z'", "page=/x: too many"),
    ],
)
def test_an_audit_finds_what_is_wrong_and_a_backfill_mends_it(spoil: str, said: str, kept: Path) -> None:
    _change(kept, spoil)
    code, out, _ = _clickpipe(kept, "audit", "-c", PLAIN, "--differences")
    assert code == 65
    assert said in out
    assert out.count("view:pages") == 1
    before = _asked(kept, 'SELECT * FROM "archive:pages" ORDER BY window_start, page')
    span = ("--from", "2026-01-01T00:05:00Z", "--to", "2026-01-01T00:06:00Z")
    code, _, err = _clickpipe(kept, "backfill", "-c", PLAIN, *span)
    assert code == 0, err
    assert "8 rows have taken the place of those that were there" in err  # of the view and of the archive
    assert _clickpipe(kept, "audit", "-c", PLAIN, "--differences")[:2] == (0, "")
    assert _asked(kept, 'SELECT * FROM "archive:pages" ORDER BY window_start, page') == before


def test_a_backfill_of_a_stretch_reads_its_files_only(kept: Path) -> None:
    span = ("--from", "2026-01-01T00:05:00Z", "--to", "2026-01-01T00:06:00Z")
    code, _, err = _clickpipe(kept, "backfill", "-c", PLAIN, *span)
    assert code == 0
    read = int(err.split("read ")[1].split(" ")[0].replace(",", ""))
    assert 0 < read <= sum(START + 5 * MINUTE <= row["ts"] < START + 7 * MINUTE for row in ROWS)


def test_the_pipeline_goes_on_after_a_backfill(tmp_path: Path) -> None:
    """Its marker stays what it was."""
    (tmp_path / "in.ndjson").write_text(TEXT)
    line = RECIPE.format(more="--checkpoint 1ms --batch-bytes 4KiB")
    assert run_steps([["run", "-q", "--restart", "no", "-c", line]], tmp_path, kill={0: "after-commit:8"}) == [-9]
    assert _clickpipe(tmp_path, "backfill", "-c", PLAIN, "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:01:00Z")[0] == 0
    assert run_steps([["run", "-q", "--restart", "no", "-c", line]], tmp_path) == [0], (tmp_path / ".stderr").read_text()
    assert _clickpipe(tmp_path, "audit", "-c", PLAIN, "--differences")[:2] == (0, "")


def test_hot_and_cold_are_one_table(kept: Path) -> None:
    """Rows that the archive has not come from the view, and none comes twice."""
    whole = _asked(kept, 'SELECT * FROM "view:pages" ORDER BY window_start, page')
    assert len(whole) == 20 * 4
    assert _asked(kept, "SELECT * FROM pages ORDER BY window_start, page") == whole
    _change(kept, "DELETE FROM pages WHERE window_start < '2026-01-01T00:15'")  # what --keep would have let go
    hot = len(_asked(kept, 'SELECT * FROM "view:pages"'))
    assert 0 < hot < len(whole)
    assert _asked(kept, "SELECT * FROM pages ORDER BY window_start, page") == whole
    assert _asked(kept, "SELECT sum(n) AS n FROM pages WHERE window_start >= '2026-01-01T00:10:00Z'") == [
        {"n": sum(row["n"] for row in whole if row["window_start"] >= "2026-01-01T00:10:00Z")}
    ]


def test_corrected_rows_are_the_latest_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text(TEXT)
    line = (
        f"{INGEST} | window tumble 1m --allowed-lateness 2m | aggregate --by page n='count(*)' | sink archive:fixed --pass"
        " | sink view:fixed"
    ).format(more="--checkpoint 1ms --batch-bytes 4KiB")
    assert run_steps([["run", "-q", "--restart", "no", "-c", line]], tmp_path) == [0]
    latest = _asked(tmp_path, 'SELECT window_start, page, n FROM "view:fixed" ORDER BY window_start, page')
    assert sum(row["n"] for row in latest) == 1_200
    for table in ('"archive:fixed"', "fixed"):
        assert _asked(tmp_path, f"SELECT window_start, page, n FROM {table} ORDER BY window_start, page") == latest
    rows = duckdb.sql(f"SELECT count(*) FROM '{tmp_path}/.home/archives/fixed/*/*.parquet'").fetchall()[0]
    assert rows[0] > len(latest)  # all that was given is there


def test_a_replay_of_a_log_gives_the_same(tmp_path: Path) -> None:
    """In place of what is there, or somewhere new; from a record on into a new place only."""
    (tmp_path / "in.ndjson").write_text(TEXT)
    assert run_steps([["run", "-q", "-c", "ingest in.ndjson --time ts --name w | sink log:raw"]], tmp_path) == [0]
    line = f"ingest log:raw --time ts --max-out-of-orderness 4s --name c | {STEPS} | sink view:pages"
    assert run_steps([["run", "-q", "-c", line]], tmp_path) == [0]
    whole = _asked(tmp_path, "SELECT * FROM pages ORDER BY window_start, page")
    _change(tmp_path, "UPDATE pages SET n = 0")
    assert _clickpipe(tmp_path, "replay", "-q", "-c", line)[0] == 0
    assert _asked(tmp_path, "SELECT * FROM pages ORDER BY window_start, page") == whole
    assert _clickpipe(tmp_path, "replay", "-q", "-c", line, "--from", "600", "--into", "view:half")[0] == 0
    assert 0 < len(_asked(tmp_path, "SELECT * FROM half")) < len(whole)
    code, _, err = _clickpipe(tmp_path, "replay", "-c", line, "--from", "600")
    assert (code, "--from cuts windows at its beginning" in err) == (2, True)
    code, out, _ = _clickpipe(tmp_path, "replay", "-q", "-c", line, "--into", "-", "--speed", "100000x")
    assert (code, len(out.splitlines())) == (0, len(whole))
    assert _clickpipe(tmp_path, "audit", "-c", line, "--differences")[:2] == (0, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["backfill", "-c", PLAIN, "--from", "2026-01-02", "--to", "2026-01-01"], "--to must be later than --from"),
        (["backfill", "-c", PLAIN, "--from", "soon"], '--from: "soon" is not a time'),
        (["backfill", "-c", "ingest - | sink view:x --key a"], "nowhere to be read again"),
        (["replay", "-c", PLAIN, "--speed", "fast"], '--speed "fast" is not a number of times'),
        (
            ["audit", "-c", "ingest in.ndjson | aggregate --by page n='count(*)' | sink out.ndjson"],
            "views and archives are audited",
        ),
        (["query", "SELECT * FROM pagse"], 'did you mean "pages"?'),
        (["run", "-c", "ingest archive:raw --follow | sink -"], "--follow is not for archive:raw"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], said: str, written: Path) -> None:
    code, _, err = _clickpipe(written, *words)
    assert code == 2, err
    assert said in err


def test_time_predicates_pass_files_over(tmp_path: Path) -> None:
    """One hour of three days is one file of many."""
    rows = "".join(json.dumps({"ts": START + hour * 3_600_000, "n": hour}) + "\n" for hour in range(72))
    (tmp_path / "in.ndjson").write_text(rows)
    line = "ingest in.ndjson --time ts --name c | sink archive:hours --partition-by hour"
    assert run_steps([["run", "-q", "-c", line]], tmp_path) == [0]
    where = "ts >= ms('2026-01-02T05:00:00Z') AND ts < ms('2026-01-02T06:00:00Z')"
    assert _asked(tmp_path, f"SELECT n FROM hours WHERE {where}") == [{"n": 29}]
    assert (
        "reads 1 of 72 files of archives" in _clickpipe(tmp_path, "query", "--explain", f"SELECT n FROM hours WHERE {where}")[1]
    )
    import clickpipe

    assert callable(clickpipe.scan)


def test_a_program_scans_what_a_query_asks(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import polars as pl

    import clickpipe

    monkeypatch.setenv("CLICKPIPE_HOME", str(written / ".home"))
    assert clickpipe.scan("archive:raw").select(pl.len()).collect().item() == 1_200
    assert clickpipe.scan("pages").select(pl.col("n").sum()).collect().item() > 1_000
