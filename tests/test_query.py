"""SQL over views, archives and logs: DuckDB over the same rows says what is right."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from clickpipe.errors import DataError, PlanError
from clickpipe.query import charts
from clickpipe.query.answer import bounded, files_read, query
from clickpipe.query.shown import shown
from clickpipe.query.statement import prepared
from clickpipe.store import views
from clickpipe.store.prefilter import conditions
from clickpipe.testing import run_steps

DAY = 86_400_000
START = 1_767_225_600_000  # 2026-01-01
TYPES = {"window_start": "time", "window_end": "time", "page": "str", "n": "int", "ms": "float", "ok": "bool"}


def _spelled(milliseconds: int) -> str:
    return str(pl.select(pl.from_epoch(pl.lit(milliseconds), "ms").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).item())


def _rows(count: int = 400) -> pl.DataFrame:
    """Times as a sink spells them."""
    starts = [START + (number % 40) * 3_600_000 for number in range(count)]
    return pl.DataFrame(
        {
            "window_start": [_spelled(start) for start in starts],
            "window_end": [_spelled(start + 3_600_000) for start in starts],
            "page": [None if number // 40 == 7 else f"/p/{number // 40}" for number in range(count)],
            "n": [number * 7 % 101 for number in range(count)],
            "ms": [number / 3 for number in range(count)],
            "ok": [number % 3 == 0 for number in range(count)],
        }
    ).unique(["window_start", "page"], keep="last", maintain_order=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def hourly(home: Path) -> Iterator[pl.DataFrame]:
    assert not home.exists()
    rows = _rows()
    view = views.View("hourly", TYPES, ["window_start", "window_end", "page"])
    view.apply(rows, views.Marker("a", 1), anew=True)
    yield rows
    view.close()


def _ask(sql: str, memory: int = 1 << 30) -> pl.DataFrame:
    return query(prepared(sql)).frame(memory)


def _oracle(sql: str, hourly: pl.DataFrame) -> list[tuple[Any, ...]]:
    instants = hourly.with_columns(pl.col("window_start", "window_end").str.to_datetime("%Y-%m-%dT%H:%M:%SZ"))
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        instants.write_parquet(file.name)
        connection = duckdb.connect()
        connection.execute(f"CREATE TABLE hourly AS FROM '{file.name}'")
    return connection.execute(sql).fetchall()


def _plain(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    times = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(pl.col(name).dt.replace_time_zone(None) for name in times).rows()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM hourly ORDER BY window_start, page NULLS LAST",
        "SELECT count(*) FROM hourly",
        "SELECT page, sum(n) AS n FROM hourly GROUP BY page ORDER BY n DESC, page NULLS LAST",
        "SELECT page, n FROM hourly WHERE page = '/p/3' AND n > 20 ORDER BY n, window_start",
        "SELECT n FROM hourly WHERE window_start >= '2026-01-01T10:00:00' AND window_start < '2026-01-01T12:00:00' ORDER BY n",
        "SELECT n FROM hourly WHERE window_start = TIMESTAMP '2026-01-01 10:00:00' ORDER BY n",
        "SELECT n FROM hourly WHERE window_end <= CAST('2026-01-01 03:00:00' AS TIMESTAMP) AND ms > 2.5 ORDER BY n",
        "SELECT n FROM hourly WHERE page IS NULL ORDER BY n",
        "SELECT count(*) FROM hourly WHERE page <> '/p/1' OR n < 3",
        "SELECT count(*) FROM hourly WHERE ok AND 50 > n",
        "SELECT date_trunc('day', window_start) AS day, max(ms) FROM hourly GROUP BY day ORDER BY day",
        "SELECT a.page, count(*) FROM hourly a JOIN hourly b ON a.page = b.page WHERE b.n < 5 GROUP BY a.page ORDER BY a.page",
        "WITH few AS (SELECT * FROM hourly WHERE n < 10) SELECT count(*), min(window_start) FROM few",
        "SELECT n FROM hourly ORDER BY n DESC, window_start LIMIT 3",
    ],
)
def test_a_view_answers_as_duckdb_does(sql: str, hourly: pl.DataFrame) -> None:
    assert _plain(_ask(sql)) == _oracle(sql, hourly)


@pytest.mark.usefixtures("hourly")
def test_a_row_is_found_by_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole view is not read for it."""
    asked: list[str] = []
    connect = sqlite3.connect

    def traced(*given: Any, **more: Any) -> sqlite3.Connection:
        connection = connect(*given, **more)
        connection.set_trace_callback(asked.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    found = _ask(
        "SELECT n FROM hourly WHERE page = '/p/3'"
        " AND window_start = '2026-01-01T03:00:00Z' AND window_end = '2026-01-01T04:00:00Z'"
    )
    assert found.height == 1
    assert any("WHERE _key = " in one for one in asked), asked


@pytest.mark.usefixtures("hourly")
def test_times_are_in_utc_and_zones_are_heeded() -> None:
    two = _ask("SELECT count(*) FROM hourly WHERE window_start = '2026-01-01T04:00:00+02:00'").item()
    assert two == _ask("SELECT count(*) FROM hourly WHERE window_start = '2026-01-01T02:00:00Z'").item() > 0


@pytest.mark.usefixtures("hourly")
def test_now_is_one_moment() -> None:
    statement = prepared("SELECT now() AS a, CURRENT_TIMESTAMP AS b, ms(now()) AS c, ms('2026-01-01') AS d", now=START + 5)
    assert query(statement).frame(1 << 30).select(pl.col("a", "b").dt.epoch("ms"), "c", "d").rows() == [
        (START + 5, START + 5, START + 5, START)
    ]
    assert not statement.is_fixed


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("SELECT * FRM hourly", "expected end of statement, found FRM\n    SELECT * FRM hourly\n             ^"),
        ("SELECT *\nFROM hourly WHRE n", "found n\n    2 | FROM hourly WHRE n"),
        ("SELECT pgae FROM hourly", 'no column "pgae"\n    did you mean "page"?'),
        ("SELECT * FROM hurly", 'no table "hurly"\n    did you mean "hourly"?\n  there are: hourly'),
        ("SELECT * FROM 'view:hourly'", "an address stands in double quotes"),
        ("SELECT nothing_such(n) FROM hourly", "unsupported function 'nothing_such'"),
        ("   ", "no SQL"),
        ("SELECT ms('yesterday')", '"yesterday" is not a time'),
        ("SELECT estimate(page) FROM hourly", "is no sketch"),
    ],
)
@pytest.mark.usefixtures("hourly")
def test_what_is_wrong_is_said(sql: str, text: str) -> None:
    with pytest.raises((PlanError, DataError)) as failed:
        _ask(sql)
    assert text in str(failed.value)


def test_a_query_that_takes_too_much_memory_is_given_up() -> None:
    held: list[bytes] = []
    is_over = threading.Event()

    def grow() -> None:
        while not is_over.wait(0.001):
            held.append(b"x" * (4 << 20))

    with pytest.raises(DataError, match="needs more than --memory 64MiB"):
        bounded(grow, 64 << 20)
    is_over.set()


SKETCHED = """ingest in.ndjson --time ts | window tumble 1h
 | sketch --by page users='distinct(user)' ms='quantiles(ms)' | sink view:sketched"""
RECORDS = [
    {"ts": START + number * 60_000, "page": f"/p/{number % 3}", "user": f"u{number * number % 97}", "ms": 1 + number % 50}
    for number in range(1_200)
]


@pytest.fixture(scope="module")
def sketched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sketched")
    (directory / "in.ndjson").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    assert run_steps([["run", "-q", "-c", SKETCHED]], directory) == [0]
    return directory


def _users(records: list[dict[str, Any]]) -> int:
    return len({record["user"] for record in records})


def test_sketches_of_groups_become_one(sketched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distinct users of a day from those of its hours."""
    monkeypatch.setenv("CLICKPIPE_HOME", str(sketched / ".home"))
    found = _ask(
        "SELECT page, estimate(union(users)) AS users, estimate(union(users)) * 2 AS twice, count(*) AS hours,"
        " quantile_of(union(ms), 0.5) AS half FROM sketched GROUP BY page HAVING estimate(union(users)) > 1 ORDER BY page DESC"
    )
    assert found["page"].to_list() == ["/p/2", "/p/1", "/p/0"]
    for page, users, twice, hours, half in found.rows():
        mine = [record for record in RECORDS if record["page"] == page]
        assert users == pytest.approx(_users(mine), rel=0.05)
        assert (twice, hours) == (users * 2, 20)
        assert half == pytest.approx(sorted(record["ms"] for record in mine)[len(mine) // 2], rel=0.1)


_SUM = sum(_users([record for record in RECORDS if record["page"] == page]) for page in ("/p/0", "/p/1", "/p/2"))


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        ("SELECT estimate(union(users)) FROM sketched", _users(RECORDS)),
        ("SELECT sum(n) FROM (SELECT page, estimate(union(users)) AS n FROM sketched GROUP BY 1) AS pages", _SUM),
        ("WITH day AS (SELECT union(users) AS s FROM sketched) SELECT estimate(s) FROM day", _users(RECORDS)),
        ("SELECT count(*) FROM sketched WHERE estimate(users) > 0", 60),
        ("SELECT estimate(merge(users)) FROM sketched WHERE window_start < '2026-01-01'", None),
    ],
)
def test_functions_of_sketches_stand_anywhere(
    sql: str, count: int | None, sketched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLICKPIPE_HOME", str(sketched / ".home"))
    found = _ask(sql).item()
    assert (found is None) if count is None else found == pytest.approx(count, rel=0.05)


def _clickpipe(directory: Path, *words: str) -> tuple[int, str, str]:
    (code,) = run_steps([list(words)], directory)
    return code, (directory / ".stdout").read_text(), (directory / ".stderr").read_text()


def test_an_answer_is_kept_until_its_tables_change(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text('{"a":1}\n{"a":2}\n')
    line = "ingest in.ndjson | aggregate --by a n='count(*)' | sink view:v"
    assert _clickpipe(tmp_path, "run", "-q", "-c", line)[0] == 0
    sql = "SELECT sum(a) AS s FROM v"
    assert _clickpipe(tmp_path, "query", sql)[1] == '{"s":3}\n'
    (kept,) = (tmp_path / ".home" / "cache" / "query").iterdir()
    kept.write_bytes(kept.read_bytes().replace(b'{"s":3}', b'{"s":4}'))
    assert _clickpipe(tmp_path, "query", sql)[1] == '{"s":3}\n'  # what is damaged is none
    data = kept.read_bytes()
    from clickpipe.query import cache

    assert cache.digest(b'{"s":3}\n').encode() in data
    (tmp_path / "in.ndjson").write_text('{"a":5}\n')
    assert _clickpipe(tmp_path, "run", "-q", "-c", line)[0] == 0
    assert _clickpipe(tmp_path, "query", sql)[1] == '{"s":5}\n'
    assert _clickpipe(tmp_path, "query", "--no-cache", "--format", "csv", sql)[1] == "s\n5\n"


@pytest.mark.usefixtures("hourly")
def test_a_kept_answer_is_given_without_polars() -> None:
    import subprocess
    import sys

    script = (
        "import sys, os; real = os._exit\n"
        "def leave(code):\n"
        "    print('LOADED', 'polars._plr' in sys.modules or 'sqlglot' in sys.modules, code, file=sys.stderr); real(0)\n"
        "os._exit = leave\n"
        "sys.argv = ['clickpipe', 'query', 'SELECT count(*) AS n FROM hourly']\n"
        "from clickpipe.cli.main import main; main()"
    )
    said = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False) for _ in range(2)]
    assert said[0].stdout == said[1].stdout == '{"n":400}\n'
    assert said[1].stderr.splitlines()[-1] == "LOADED False 0"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("ndjson", '{"t":"2026-01-01T00:00:00Z","l":[1,2],"d":1.5,"s":"x"}\n'),
        ("json", '[\n{"t":"2026-01-01T00:00:00Z","l":[1,2],"d":1.5,"s":"x"}\n]\n'),
        ("csv", 't,l,d,s\n2026-01-01T00:00:00Z,"[1,2]",1.5,x\n'),
    ],
)
def test_answers_are_shown_as_programs_want_them(form: str, said: str) -> None:
    frame = pl.DataFrame({"t": [START], "l": [[1, 2]], "d": [1.5], "s": ["x"]}).with_columns(pl.col("t").cast(pl.Datetime("ms")))
    assert shown(frame, form, rows=10, width=80).decode() == said


def test_parquet_is_read_back_as_it_was(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [1, None], "s": ["x", "y"]})
    (tmp_path / "x.parquet").write_bytes(shown(frame, "parquet", rows=1, width=1))
    assert pl.read_parquet(tmp_path / "x.parquet").equals(frame)


def test_charts_have_lines_for_times_and_bars_for_names() -> None:
    times = pl.DataFrame({"t": [START, START + DAY], "n": [1, 5]}).with_columns(pl.col("t").cast(pl.Datetime("ms", "UTC")))
    assert "01-02 00:00" in charts.chart(times, 80)
    bars = charts.chart(pl.DataFrame({"page": ["/a\x1b[2J", None], "n": [1_000, 10]}), 60)
    assert "1,000" in bars
    assert "\x1b" not in bars
    assert all(len(line) <= 60 for line in bars.splitlines())
    with pytest.raises(PlanError, match="needs a column"):
        charts.chart(pl.DataFrame({"a": ["x"]}), 80)


def test_what_files_a_plan_reads_is_counted() -> None:
    plan = "Parquet SCAN [/a/b.parquet, ... 29 other sources]\nx\nParquet SCAN [/a/c.parquet]\nParquet SCAN [/a, /b]"
    assert files_read(plan) == 33


def test_conditions_are_comparisons_that_all_rows_meet() -> None:
    found = conditions((pl.col("a") == 1) & (pl.lit(5) > pl.col("b")) & ((pl.col("c") == 1) | (pl.col("d") == 2)) & ~pl.col("e"))
    assert {(one.column, one.operator, one.value) for one in found} == {("a", "=", 1), ("b", "<", 5)}


def test_rows_whose_window_is_long_past_go(tmp_path: Path) -> None:
    lines = [{"ts": START + number * DAY, "n": number} for number in range(10)]
    (tmp_path / "in.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    line = "ingest in.ndjson --time ts --name c{more} | window tumble 1d | aggregate n='sum(n)' | sink view:days --keep 3d"
    for more in ("", " --checkpoint 1ms --batch-bytes 64"):
        assert _clickpipe(tmp_path, "run", "-q", "-c", line.format(more=more))[0] == 0
        left = _clickpipe(tmp_path, "query", "--no-cache", "SELECT n FROM days ORDER BY n")[1]
        assert left == '{"n":6}\n{"n":7}\n{"n":8}\n{"n":9}\n'
    code, _, said = _clickpipe(tmp_path, "run", "-c", "ingest in.ndjson | aggregate --by n m='count(*)' | sink view:x --keep 3d")
    assert (code, "--keep counts from the end of a row's window" in said) == (2, True)
    code, _, said = _clickpipe(tmp_path, "run", "-c", "ingest in.ndjson | sink x.csv --keep 3d")
    assert (code, "--keep is not for x.csv" in said) == (2, True)


@pytest.mark.usefixtures("hourly")
def test_a_view_is_dropped_when_nobody_has_it() -> None:
    with pytest.raises(views.OutsideError, match="view hourly is in use"):
        views.drop("hourly")


def test_a_dropped_view_leaves_nothing(home: Path) -> None:
    view = views.View("gone", {"a": "int"}, ["a"])
    view.apply(pl.DataFrame({"a": [1]}), views.Marker("a", 1), anew=True)
    view.close()
    views.drop("gone")
    assert not [*(home / "views").iterdir()]
    with pytest.raises(PlanError, match='no view "gone"'):
        views.drop("gone")
