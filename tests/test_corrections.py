"""Results that are given more than once: what a view keeps of them, what closed a window, whatever is killed meanwhile."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pytest

from clickpipe.batch import Batch
from clickpipe.columns import Columns, TimeColumn
from clickpipe.core.operator import Late, Operator
from clickpipe.core.step import OperatorStep
from clickpipe.plan.flags import parse_step
from clickpipe.testing import run_steps

GIVEN = Columns({"ts": "int"}, time=TimeColumn("ts", "ms"), idles=True)


def _opened(given: Columns, name: str, *words: str) -> tuple[Operator, Columns]:
    step = parse_step(name, words)
    assert isinstance(step, OperatorStep)
    return step.open(given, {}), step.columns(given)


def _batch(columns: Columns, times: list[int], marks: list[int | None] | None = None) -> Batch:
    frame = pl.DataFrame({"ts": times}, schema={"ts": pl.Int64})
    if marks is not None:
        frame = frame.with_columns(pl.Series("_mark", marks, dtype=pl.Int64))
    return Batch(frame, columns)


def _rows(batches: Iterable[object]) -> list[dict[str, object]]:
    return [row for batch in batches if isinstance(batch, Batch) for row in batch.frame.to_dicts()]


def test_rows_say_what_closed_their_window() -> None:
    """The records, the clock while nothing came, or the end; only where the clock may."""
    window, columns = _opened(GIVEN, "window", "tumble", "10s")
    aggregate, results = _opened(columns, "aggregate", "n=count(*)")
    for batch in window.on_batch(_batch(GIVEN, [1_000, 11_000, 21_000])):
        assert isinstance(batch, Batch)
        list(aggregate.on_batch(batch))
    seen = _rows(aggregate.on_watermark(12_000))
    aggregate.on_idle()
    seen += _rows(aggregate.on_watermark(20_000))
    seen += _rows(aggregate.on_watermark(2**62))
    assert [row["closed_by"] for row in seen] == ["watermark", "idle", "end"]
    assert "closed_by" in results.types
    assert (
        "closed_by"
        not in _opened(Columns(columns.types, time=GIVEN.time, window=columns.window), "aggregate", "n=count(*)")[1].types
    )


def test_a_window_that_only_the_clock_had_closed() -> None:
    """Its late records say so; those of windows that records had closed are late as ever. Also after a restart."""
    step = parse_step("window", ["tumble", "5s"])
    assert isinstance(step, OperatorStep)
    window = step.open(GIVEN, {})
    window.on_watermark(6_000)
    window.on_idle()
    window.on_watermark(30_000)
    window = step.open(GIVEN, window.snapshot())
    late = [
        out for out in window.on_batch(_batch(GIVEN, [1_000, 8_000, 31_000], [30_000, 30_000, None])) if isinstance(out, Late)
    ]
    assert {out.reason: out.batch.frame["ts"].to_list() for out in late} == {"late": [1_000], "idle": [8_000]}
    window.on_watermark(31_000)
    late = [out for out in window.on_batch(_batch(GIVEN, [8_000], [31_000])) if isinstance(out, Late)]
    assert [out.reason for out in late] == ["late"]


# A view, killed.

_LINE = (
    "ingest in.ndjson --time ts --max-out-of-orderness 1s --batch-bytes 4KiB --name c --checkpoint 1ms | window {window} "
    "--allowed-lateness 10m | aggregate {by} n='count(*)' s='sum(x)' {then}| sink all.ndjson --pass | sink view:rows"
)
_WINDOWS = {"tumble": "tumble 10s", "hop": "hop 20s --slide 5s", "session": "session 3s --by user", "rollup": "tumble 2s"}


def _records(folder: Path) -> None:
    chance = random.Random(5)
    times = [1_767_225_600_000 + n * 300 - (chance.randrange(20_000) if n % 9 == 0 else 0) for n in range(1_500)]
    lines = [json.dumps({"ts": t, "user": f"u{chance.randrange(40)}", "x": n % 11}) + "\n" for n, t in enumerate(times)]
    (folder / "in.ndjson").write_text("".join(lines))


def _run(folder: Path, kind: str, kill: str = "") -> int:
    by, then = "" if kind == "session" else "--by user", "| rollup 10s " if kind == "rollup" else ""
    line = _LINE.format(window=_WINDOWS[kind], by=by, then=then)
    return run_steps([["run", "-q", "--restart", "no", "-c", line]], folder, kill={0: kill} if kill else None)[0]


def _view(folder: Path) -> list[tuple[object, ...]]:
    """Less `_rev`: how often a row was given depends on the frames."""
    connection = sqlite3.connect(folder / ".home" / "views" / "rows.sqlite")
    names = [row[1] for row in connection.execute("PRAGMA table_info(rows)")]
    rows = connection.execute(f"SELECT {', '.join(name for name in names if name != '_rev')} FROM rows ORDER BY _key").fetchall()
    connection.close()
    assert "deleted" not in names
    return rows


@pytest.mark.parametrize("kind", _WINDOWS)
def test_a_view_has_the_latest_rows_whatever_is_killed(kind: str, tmp_path: Path) -> None:
    """The last revision of each key, without the sessions that became part of others: those of a file that keeps all."""
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    for one in (folder, whole):
        one.mkdir()
        _records(one)
    assert _run(whole, kind) == 0
    for point in ("after-prepare", "after-manifest", "before-view-commit", "after-commit"):
        assert _run(folder, kind, f"{point}:3") != 0, f"{point} was not reached"
    assert _run(folder, kind) == 0
    assert _view(folder) == _view(whole)

    key = ("window_start", "user") if kind == "session" else ("window_start", "window_end", "user")
    latest: dict[tuple[object, ...], dict[str, object]] = {}
    for line in (folder / "all.ndjson").read_text().splitlines():
        row = json.loads(line)
        latest[tuple(row[name] for name in key)] = row
    rows = [row for row in latest.values() if not row.pop("deleted", False)]
    assert len(_view(folder)) == len(rows)
    assert {str(row["n"]) + str(row["window_start"]) + str(row["user"]) for row in rows} == _named(_view(folder), folder)
    assert max(int(str(row["rev"])) for row in rows) > 0
    lates = folder.glob(".home/**/late.ndjson")
    assert sum(int(str(row["n"])) for row in rows) == 1_500 * (4 if kind == "hop" else 1)
    assert not list(lates)


def _named(rows: list[tuple[object, ...]], folder: Path) -> set[str]:
    connection = sqlite3.connect(folder / ".home" / "views" / "rows.sqlite")
    names = [row[1] for row in connection.execute("PRAGMA table_info(rows)") if row[1] != "_rev"]
    connection.close()
    at = {name: number for number, name in enumerate(names)}
    return {f"{row[at['n']]}{row[at['window_start']]}{row[at['user']]}" for row in rows}
