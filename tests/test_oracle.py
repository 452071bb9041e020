"""Results are those of DuckDB over the raw input, however the records were batched.

The oracle is SQL, written from the rules in clickpipe-design.7 and not from the streaming code: lateness
is a window function over the order of arrival, windows are arithmetic, aggregates are DuckDB's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickpipe.core.meter import check
from clickpipe.testing import Collected, collect

BEGIN = 1_700_000_000_000
TABLE = "{n: 'BIGINT', ts: 'BIGINT', page: 'VARCHAR', ms: 'BIGINT', x: 'DOUBLE', ok: 'BOOLEAN'}"

_RECORDS = st.lists(
    st.fixed_dictionaries(
        {"ts": st.integers(-30_000, 90_000).map(lambda step: BEGIN + step)},
        optional={
            "page": st.sampled_from(["/a", "/b", "/c", "", "é"]),
            "ms": st.integers(-1_000, 1_000) | st.none(),
            "x": st.floats(-1e6, 1e6).map(lambda x: x + 0.0 if abs(x) > 1e-15 else 0.0) | st.none(),  # smaller ones are rounded
            "ok": st.booleans(),
        },
    ),
    min_size=1,
    max_size=60,
)
_CALLS = (
    "n='count(*)' k='count(ms)' s='sum(ms)' a='avg(ms)' lo='min(x)' hi='max(page)' sx='sum(x)' ax='avg(x)' "
    "v='var(x)' d='stddev(ms)' u='count(DISTINCT page)' w=\"count(*) FILTER (WHERE ok)\" "
    "fs=\"sum(ms) FILTER (WHERE page = '/a')\" e='sum(ms * 2 + 1)'"
)
_SQL = (
    "count(*) n, count(ms) k, sum(ms) s, avg(ms) a, min(x) lo, max(page) hi, sum(x) sx, avg(x) ax, "
    "var_samp(x) v, stddev_samp(ms) d, count(DISTINCT page) u, count(*) FILTER (WHERE ok) w, "
    "sum(ms) FILTER (WHERE page = '/a') fs, sum(ms * 2 + 1) e"
)
_SETTINGS = settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_DECLARED = "--columns n:int,ts:int,page:str,ms:int,x:float,ok:bool"


@given(records=_RECORDS, delay=st.integers(0, 40_000), batch=st.sampled_from([1, 100, 1_000, 1 << 20]))
@_SETTINGS
def test_tumbling_windows(records: list[dict[str, Any]], delay: int, batch: int, tmp_path: Path) -> None:
    """Records that are neither late nor dead are aggregated; which those are is decided record by record."""
    path = _written(records, tmp_path)
    seen = collect(
        f"ingest {path} --time ts --max-out-of-orderness {delay}ms --batch-bytes {batch} {_DECLARED} "
        f"| window tumble 10s | aggregate --by page {_CALLS}"
    )
    judged = f"""
        WITH arrived AS (SELECT *, max(ts) OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - {delay} AS mark,
                                CAST(floor(ts / 10000) AS BIGINT) * 10000 AS window_start FROM input)"""
    kept = "(mark IS NULL OR ts >= mark OR window_start + 10000 > mark)"
    expected = f"""{judged} SELECT window_start, window_start + 10000 AS window_end, page, {_SQL}
                   FROM arrived WHERE {kept} GROUP BY ALL"""
    _same(seen.rows, _asked(path, expected), ["window_start", "page"])
    late = f"{judged} SELECT n, mark FROM arrived WHERE NOT {kept}"
    _same([{"n": r["n"], "mark": r["_mark"]} for r in seen.late], _asked(path, late), ["n"])
    _balanced(seen, len(records))


@given(records=_RECORDS, size=st.integers(1, 8), slide=st.integers(1, 8), batch=st.sampled_from([1, 300, 1 << 20]))
@_SETTINGS
def test_hopping_windows(records: list[dict[str, Any]], size: int, slide: int, batch: int, tmp_path: Path) -> None:
    """A record stands in each window that holds it, and is counted once in the accounts."""
    size, slide = max(size, slide), min(size, slide)
    path = _written(records, tmp_path)
    seen = collect(
        f"ingest {path} --time ts --max-out-of-orderness 1h --batch-bytes {batch} {_DECLARED} "
        f"| window hop {size}s --slide {slide}s | aggregate --by page {_CALLS}"
    )
    expected = f"""
        WITH starts AS (SELECT input.*, unnest(range(CAST(floor(ts / {slide}000) AS BIGINT) * {slide}000,
                                                     ts - {size}000, -{slide}000)) AS window_start FROM input)
        SELECT window_start, window_start + {size}000 AS window_end, page, {_SQL} FROM starts GROUP BY ALL"""
    _same(seen.rows, _asked(path, expected), ["window_start", "page"])
    _balanced(seen, len(records))


@given(records=_RECORDS, keys=st.sampled_from([[], ["page"], ["ok", "page"]]))
@_SETTINGS
def test_the_whole_input(records: list[dict[str, Any]], keys: list[str], tmp_path: Path) -> None:
    """Without a window there is one row per key, or one in all; nulls are a key."""
    path = _written(records, tmp_path)
    by = f"--by {','.join(keys)}" if keys else ""
    seen = collect(f"ingest {path} {_DECLARED} | aggregate {by} {_CALLS}")
    _same(seen.rows, _asked(path, f"SELECT {', '.join([*keys, _SQL])} FROM input {'GROUP BY ALL' if keys else ''}"), keys)


@given(records=_RECORDS, batch=st.sampled_from([1, 100, 1_000]))
@_SETTINGS
def test_floats_do_not_depend_on_batches(records: list[dict[str, Any]], batch: int, tmp_path: Path) -> None:
    """To the last bit: sums are exact before they are rounded."""
    path = _written(records, tmp_path)
    calls = "s='sum(x)' a='avg(x)' v='var(x)' d='stddev(x)'"
    whole = collect(f"ingest {path} {_DECLARED} | aggregate --by ok {calls}")
    parts = collect(f"ingest {path} {_DECLARED} --batch-bytes {batch} | aggregate --by ok {calls}")
    assert whole.rows == parts.rows


@given(records=_RECORDS, in_order=st.booleans(), batch=st.sampled_from([1, 100, 1 << 20]))
@_SETTINGS
def test_first_and_last_go_by_time_then_arrival(
    records: list[dict[str, Any]], in_order: bool, batch: int, tmp_path: Path
) -> None:
    """Also where Polars knows that the times are sorted, and takes short cuts."""
    path = _written(sorted(records, key=lambda r: int(r["ts"])) if in_order else records, tmp_path)
    seen = collect(
        f"ingest {path} --time ts --max-out-of-orderness 1h {_DECLARED} --batch-bytes {batch} "
        "| window tumble 20s | aggregate --by page f='first(ms)' l='last(ms)'"
    )
    window = "CAST(floor(ts / 20000) AS BIGINT) * 20000 AS window_start, window_start + 20000 AS window_end"
    expected = f"""SELECT {window}, page, arg_min(ms, (ts, n)) FILTER (WHERE ms IS NOT NULL) f,
                          arg_max(ms, (ts, n)) FILTER (WHERE ms IS NOT NULL) l FROM input GROUP BY ALL"""
    _same(seen.rows, _asked(path, expected), ["window_start", "page"])


@given(
    values=st.lists(st.integers(-1_000, 1_000) | st.floats(-1e6, 1e6).map(lambda x: x + 0.0), max_size=40),
    start=st.integers(0, 20_000),
)
@settings(_SETTINGS, max_examples=examples(15))
def test_integers_that_become_floats_in_mid_window(values: list[float], start: int, tmp_path: Path) -> None:
    """The first 1,000 records say integer. What was summed until then stays in the sum, to the last digit."""
    records = [{"ts": BEGIN + start + n * 20, "ms": n % 7, "x": x} for n, x in enumerate([*range(1_000), *values])]
    path = _written(records, tmp_path)
    calls = (
        "s='sum(x)' a='avg(x)' lo='min(x)' hi='max(x)' v='var(x)' u='count(DISTINCT x)' f='first(x)' l='last(x)' e='sum(x + ms)'"
    )
    sql = (
        "sum(x) s, avg(x) a, min(x) lo, max(x) hi, var_samp(x) v, count(DISTINCT x) u, arg_min(x, (ts, n)) f, "
        "arg_max(x, (ts, n)) l, sum(x + ms) e"
    )
    asked = f"SELECT CAST(floor(ts / 10000) AS BIGINT) * 10000 AS window_start, window_start + 10000 AS window_end, {sql}"
    for batch in (5_000, 1 << 20):
        seen = collect(f"ingest {path} --time ts --batch-bytes {batch} | window tumble 10s | aggregate {calls}")
        _same(seen.rows, _asked(path, f"{asked} FROM input GROUP BY ALL"), ["window_start"])


@pytest.mark.parametrize(
    "condition",
    [
        "ms > 100 AND page = '/a'",
        "NOT ok OR ms IS NULL",
        "page IN ('/a', '/b') AND x BETWEEN -10.5 AND 10000",
        "page LIKE '/%' AND ms % 7 = 3",
        "coalesce(ms, 0) * 2 >= x / 3.0",
        "CASE WHEN ok THEN ms > 0 ELSE x < 0 END",
        "upper(page) <> lower(page) AND length(page) > 0",
        "abs(ms) > 500 OR round(x) = 0",
        "page || '!' = '/a!'",
    ],
)
@given(records=_RECORDS)
@settings(max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_conditions_are_sql(condition: str, records: list[dict[str, Any]], tmp_path: Path) -> None:
    path = _written(records, tmp_path)
    seen = collect(f'ingest {path} {_DECLARED} | filter "{condition}"')
    assert sorted(r["n"] for r in seen.rows) == sorted(n for (n,) in _rows(path, f"SELECT n FROM input WHERE {condition}"))
    _balanced(seen, len(records))


def _written(records: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / "input.ndjson"
    path.write_text("".join(json.dumps({"n": n, **record}, ensure_ascii=False) + "\n" for n, record in enumerate(records)))
    return path


def _rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    source = f"(SELECT * FROM read_json('{path}', format = 'newline_delimited', columns = {TABLE}))"
    return duckdb.sql(sql.replace("FROM input", f"FROM {source} AS input")).fetchall()


def _asked(path: Path, sql: str) -> list[dict[str, Any]]:
    source = f"(SELECT * FROM read_json('{path}', format = 'newline_delimited', columns = {TABLE}))"
    relation = duckdb.sql(sql.replace("FROM input", f"FROM {source} AS input"))
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def _same(seen: list[dict[str, Any]], expected: list[dict[str, Any]], keys: Sequence[str]) -> None:
    def order(row: dict[str, Any]) -> str:
        return repr([row[key] for key in keys])

    assert len(seen) == len(expected)
    for got, want in zip(sorted(seen, key=order), sorted(expected, key=order), strict=True):
        assert list(got) == list(want)
        assert all(_close(pair) for pair in _pairs(got, want)), (got, want)


def _pairs(got: dict[str, Any], want: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    return ((got[name], want[name]) for name in got)


def _close(pair: tuple[Any, Any]) -> bool:
    got, want = pair
    if isinstance(got, float) and isinstance(want, (int, float)):
        return math.isclose(got, want, rel_tol=1e-9, abs_tol=1e-4)  # DuckDB's variance and sums are rounded on the way
    return bool(got == want)


def _balanced(seen: Collected, count: int) -> None:
    check(seen.accounts)
    assert seen.accounts[0].read == count
