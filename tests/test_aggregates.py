"""Each function against a plain loop over the records, however they are cut into batches, stopped, and merged."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resuming import written

from clickpipe.core.aggregate import Aggregate
from clickpipe.core.catalog import Catalog
from clickpipe.core.summary import Call, Summary
from clickpipe.testing import collect

FUNCTIONS = Catalog("clickpipe.aggregates", "aggregate", "_")
BEGIN = 1_700_000_000_000
_RECORDS = st.lists(
    st.fixed_dictionaries(
        {"ts": st.integers(0, 40_000).map(lambda step: BEGIN + step), "page": st.sampled_from(["/a", "/b", None])},
        optional={
            "ms": st.integers(-20, 20) | st.none(),
            "x": st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: x + 0.0) | st.none(),
            "user": st.sampled_from("abcde") | st.none(),
            "ok": st.booleans() | st.none(),
        },
    ),
    min_size=1,
    max_size=50,
)
_SETTINGS = settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_INGEST = "--time ts --columns n:int,ts:int,page:str,ms:int,x:float,user:str,ok:bool"
Records = list[dict[str, Any]]


def _by_time(records: Records, name: str, also: str = "ts") -> list[Any]:
    """The values in the order of event time; of one instant as they came."""
    some = [record for record in records if record.get(name) is not None and record.get(also) is not None]
    return [record[name] for record in sorted(some, key=lambda record: record["ts"])]


def _values(records: Records, name: str) -> list[Any]:
    return [record[name] for record in records if record.get(name) is not None]


def _disc(values: list[Any], q: float) -> Any:
    n = len(values)
    return sorted(values)[max(1, math.ceil(Fraction(str(q)) * n)) - 1] if n else None


def _cont(values: list[Any], q: float) -> float | None:
    if not values:
        return None
    place = (len(values) - 1) * q
    low, high = sorted(values)[math.floor(place)], sorted(values)[math.ceil(place)]
    return float(low + (high - low) * (place - math.floor(place)))


def _about(value: float | None, accuracy: float) -> Any:
    """Equal to what is within a share of the value."""
    return None if value is None else pytest.approx(value, rel=accuracy * (1 + 1e-9), abs=0)


def _mode(values: list[Any]) -> Any:
    counts = Counter(values)
    return min((value for value in counts if counts[value] == max(counts.values())), default=None)


def _arg_max(records: Records, name: str, by: str) -> Any:
    some = [record for record in records if record.get(name) is not None and record.get(by) is not None]
    return max(some, key=lambda record: record[by])[name] if some else None  # of equals max gives the first


def _top(values: list[Any], k: int) -> list[dict[str, Any]] | None:
    ranked = sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))[:k]
    return [{"value": value, "count": count, "error": 0} for value, count in ranked] or None


def _histogram(values: list[Any], bounds: list[float]) -> list[dict[str, Any]]:
    ends = [-math.inf, *bounds, math.inf]
    counts = [sum(low < value <= high for value in values) for low, high in itertools.pairwise(ends)]
    return [{"le": le, "count": count} for le, count in zip([*bounds, None], counts, strict=True)]


_CASES: dict[str, tuple[str, Callable[[Records], Any]]] = {
    "md": ("median(ms)", lambda rows: _cont(_values(rows, "ms"), 0.5)),
    "mx": ("median(x)", lambda rows: _cont(_values(rows, "x"), 0.5)),
    "qd": ("quantile(ms, 0.75)", lambda rows: _disc(_values(rows, "ms"), 0.75)),
    "ql": (
        "quantile(ms, [0, 0.5, 1])",
        lambda rows: [_disc(_values(rows, "ms"), q) for q in (0, 0.5, 1)] if _values(rows, "ms") else None,
    ),
    "qt": ("quantile(user, 0.5)", lambda rows: _disc(_values(rows, "user"), 0.5)),
    "qc": ("quantile_cont(x, 0.25)", lambda rows: _cont(_values(rows, "x"), 0.25)),
    "qa": ("approx_quantile(x, 0.9, 0.001)", lambda rows: _about(_disc(_values(rows, "x"), 0.9), 0.001)),
    "mo": ("mode(user)", lambda rows: _mode(_values(rows, "user"))),
    "mm": ("mode(ms)", lambda rows: _mode(_values(rows, "ms"))),
    "am": ("arg_max(user, ms)", lambda rows: _arg_max(rows, "user", "ms")),
    "ba": ("bool_and(ok)", lambda rows: all(_values(rows, "ok")) if _values(rows, "ok") else None),
    "bo": ("bool_or(ms > 5)", lambda rows: any(ms > 5 for ms in _values(rows, "ms")) if _values(rows, "ms") else None),
    "li": ("list(user, 3)", lambda rows: _by_time(rows, "user")[:3] or None),
    "sa": ("string_agg(ms, '; ')", lambda rows: "; ".join(map(str, _by_time(rows, "ms"))) or None),
    "hi": ("histogram(ms, [-5, 0, 5])", lambda rows: _histogram(_values(rows, "ms"), [-5.0, 0.0, 5.0])),
    "tk": ("approx_top_k(user, 2)", lambda rows: _top(_values(rows, "user"), 2)),
    "fr": ("approx_frequency(user, 'a')", lambda rows: _values(rows, "user").count("a")),
    "ud": ("approx_distinct(user)", lambda rows: len(set(_values(rows, "user")))),
    "cd": ("count(DISTINCT x)", lambda rows: len(set(_values(rows, "x")))),
    "an": ("any_value(user)", lambda rows: next(iter(_by_time(rows, "user")), None)),
    "mf": ("median(ms) FILTER (WHERE ok)", lambda rows: _cont(_values([row for row in rows if row.get("ok")], "ms"), 0.5)),
}
_CALLS = " ".join(f'{name}="{text}"' for name, (text, _) in _CASES.items())


@given(records=_RECORDS, batch=st.sampled_from([1, 150, 1 << 20]), resumed=st.sampled_from([0, 1, 3]))
@_SETTINGS
def test_by_key(records: Records, batch: int, resumed: int, tmp_path: Path) -> None:
    path = written(records, tmp_path)
    seen = collect(f"ingest {path} {_INGEST} --batch-bytes {batch} | aggregate --by page {_CALLS}", resumed_every=resumed)
    _check(seen.rows, lambda row: [record for record in records if record["page"] == row["page"]])


@given(
    records=_RECORDS,
    batch=st.sampled_from([1, 150, 1 << 20]),
    window=st.sampled_from(["tumble 10s", "hop 20s --slide 10s", "session 3s --by page", "tumble 10s --allowed-lateness 1m"]),
)
@_SETTINGS
def test_in_windows(records: Records, batch: int, window: str, tmp_path: Path) -> None:
    path = written(records, tmp_path)
    by = "" if "session" in window else "--by page"
    line = f"ingest {path} {_INGEST} --max-out-of-orderness 1m --batch-bytes {batch} | window {window} | aggregate {by} {_CALLS}"

    def mine(row: dict[str, Any]) -> Records:
        inside = [record for record in records if row["window_start"] <= record["ts"] < row["window_end"]]
        if "hop" in window:  # by slides, of equals that of the earliest comes first
            inside.sort(key=lambda record: record["ts"] // 10_000)
        return [record for record in inside if record["page"] == row["page"]]

    _check(collect(line).rows, mine)


def _check(rows: Sequence[dict[str, Any]], mine: Callable[[dict[str, Any]], Records]) -> None:
    for row in rows:
        records = mine(row)
        assert records
        for name, (text, expected) in _CASES.items():
            value = json.loads(row[name]) if isinstance(row[name], str) and row[name].startswith("[") else row[name]
            assert _is_near(value, expected(records)), text


def _is_near(value: Any, expected: Any) -> bool:
    """But for the last digits of a float."""
    if isinstance(value, float) and isinstance(expected, float):
        return math.isclose(value, expected, rel_tol=1e-12, abs_tol=1e-12)
    return bool(value == expected)


@given(
    records=_RECORDS,
    batch=st.sampled_from([1, 200, 1 << 20]),
    q=st.sampled_from([0.0, 0.1, 0.5, 0.55, 0.9, 0.99, 1.0]),
    resumed=st.sampled_from([0, 1]),
)
@_SETTINGS
def test_quantiles_and_populations_as_in_duckdb(records: Records, batch: int, q: float, resumed: int, tmp_path: Path) -> None:
    path = written(records, tmp_path)
    calls = f"d='quantile_disc(x, {q})' c='quantile_cont(x, {q})' v='var_pop(ms)' s='stddev_pop(ms)'"
    seen = collect(f"ingest {path} {_INGEST} --batch-bytes {batch} | aggregate --by page {calls}", resumed_every=resumed)
    table = f"read_ndjson('{path}', columns = {{page: 'VARCHAR', x: 'DOUBLE', ms: 'BIGINT'}})"
    asked = f"quantile_disc(x, {q}), quantile_cont(x, {q}::DOUBLE), var_pop(ms), stddev_pop(ms)"
    expected = {page: values for page, *values in duckdb.sql(f"SELECT page, {asked} FROM {table} GROUP BY 1").fetchall()}
    assert {row["page"] for row in seen.rows} == set(expected)
    for row in seen.rows:
        for name, value in zip("dcvs", expected[row["page"]], strict=True):
            assert _is_near(row[name], value), name


_TURNING = st.lists(
    st.tuples(*[st.integers(0, 3) | st.sampled_from([0.0, -0.0, 1.0, 2.0, 0.5, 1e-9, 1e300])] * 2), min_size=1, max_size=30
)
_OF_ANY_NUMBERS: dict[str, tuple[str, Callable[[list[Any]], Any]]] = {
    "n": ("count(*)", len),
    "lo": ("min(x)", min),
    "hi": ("max(x)", max),
    "mo": ("mode(x)", _mode),
    "md": ("quantile(x, 0.5)", lambda xs: _disc(xs, 0.5)),
    "cd": ("count(DISTINCT x)", lambda xs: len(set(xs))),
    "ud": ("approx_distinct(x)", lambda xs: len(set(xs))),
    "tk": ("approx_top_k(x, 3)", lambda xs: _top(xs, 3)),
    "fr": ("approx_frequency(x, 1)", lambda xs: xs.count(1)),
    "fi": ("first(x)", lambda xs: xs[0]),
    "li": ("list(x, 5)", lambda xs: xs[:5]),
    "sa": (
        "string_agg(x, ' ', 2000)",
        lambda xs: " ".join(str(int(x)) if x == int(x) < 2**63 else _TEXTS.get(x, str(x)) for x in xs),
    ),
}
_TEXTS = {1e-9: "1e-9"}


@given(
    turning=_TURNING,
    cut=st.sampled_from([(2_000, 0), (2_000, 1), (9_000, 3), (1 << 20, 0)]),
    steps=st.sampled_from(
        [
            "aggregate --by k",
            "aggregate --by k --max-groups 20",
            "window tumble 1h | aggregate --by k",
            "window tumble 1h --allowed-lateness 1h | aggregate --by k --emit update",
            "window session 1h --by k | aggregate --by k",
            "window session 1h --by k --allowed-lateness 1h | aggregate --by k",
            "window count 2000 --by k | aggregate --by k",
        ]
    ),
)
@settings(_SETTINGS, max_examples=examples(30))
def test_integers_that_become_floats(
    turning: list[tuple[float, float]], cut: tuple[int, int], steps: str, tmp_path: Path
) -> None:
    """Keys and values, of which the first 1,000 records say that they are integers: 1 is 1.0, and -0.0 is 0.0."""
    pairs = [(number % 3, number % 4) for number in range(1_000)] + turning
    path = written([{"ts": BEGIN, "k": k, "x": x} for k, x in pairs], tmp_path)
    calls = " ".join(f'{name}="{text}"' for name, (text, _) in _OF_ANY_NUMBERS.items())
    seen = collect(f"ingest {path} --time ts --batch-bytes {cut[0]} | {steps} {calls}", resumed_every=cut[1])
    groups: dict[float, list[float]] = {}
    for k, x in pairs:
        groups.setdefault(k, []).append(x)
    rows = {row["k"]: row for row in seen.rows if row.get("final", True)}
    assert rows.keys() == groups.keys()
    for k, xs in groups.items():
        for name, (text, expected) in _OF_ANY_NUMBERS.items():
            value = json.loads(rows[k][name]) if name in ("tk", "li") else rows[k][name]
            assert value == expected(xs), text
            assert not (isinstance(value, float) and math.copysign(1, value) < 0), text


@given(records=_RECORDS, batch=st.sampled_from([1, 150, 1 << 20]), resumed=st.sampled_from([0, 1, 3]))
@_SETTINGS
def test_sets_of_columns(records: Records, batch: int, resumed: int, tmp_path: Path) -> None:
    """--also: as if each set had been asked for by itself."""
    path = written(records, tmp_path)
    line = f"ingest {path} {_INGEST} --max-out-of-orderness 1m --batch-bytes {batch} | window tumble 10s | aggregate"
    calls = "n='count(*)' md='median(ms)' u='approx_distinct(user)'"
    whole = collect(f"{line} --by page,user --also page --also total {calls}", resumed_every=resumed).rows
    for name, by in (("page,user", "--by page,user"), ("page", "--by page"), ("total", "")):
        alone = collect(f"{line} {by} {calls}").rows
        mine = [row for row in whole if row["grouping"] == name]
        assert [{key: row[key] for key in alone[0]} for row in mine] == alone


@given(
    records=_RECORDS,
    most=st.integers(1, 6),
    batch=st.sampled_from([1, 150, 1 << 20]),
    resumed=st.sampled_from([0, 1, 3]),
    is_late=st.booleans(),
)
@_SETTINGS
def test_groups_that_are_too_many(records: Records, most: int, batch: int, resumed: int, is_late: bool, tmp_path: Path) -> None:
    """The first of each window have rows, all others share one; late records that correct a window are no exception."""
    path = written(records, tmp_path)
    delays = ("1s", "--allowed-lateness 1m") if is_late else ("1m", "")
    line = f"ingest {path} {_INGEST} --max-out-of-orderness {delays[0]} --batch-bytes {batch} | window tumble 10s {delays[1]}"
    seen = collect(f"{line} | aggregate --by user --max-groups {most} --overflow other n='count(*)'", resumed_every=resumed)
    first: dict[int, list[Any]] = {}
    counts: Counter[tuple[int, Any, bool]] = Counter()
    for record in records:
        start, user = record["ts"] // 10_000 * 10_000, record.get("user")
        known = first.setdefault(start, [])
        if user not in known and len(known) < most:
            known.append(user)
        counts[(start, user, False) if user in known else (start, None, True)] += 1
    newest = {(row["window_start"], row["user"], row["other"]): row["n"] for row in seen.rows}  # the last to come of each
    assert newest == counts


def test_too_many_groups_take_bounded_memory() -> None:
    """300,000 keys against a limit of 1,000: what is kept is some rows per group that has a place."""
    from clickpipe.core.capped import Cap, Capped

    capped = Capped(Cap(1_000, "other", ("user",), ()), {})
    summary = Summary(["user", "other"], [_call("n", "count", "*")], {})
    for at in range(0, 300_000, 30_000):
        frame = pl.DataFrame({"user": pl.Series(range(at, at + 30_000), dtype=pl.Int64)})
        summary.add(capped.admit(frame), pl.lit(0))
    assert capped.snapshot()["known"].height == 1_000
    values = summary.values(lambda rows: rows)
    assert values.height == 1_001
    assert values.filter("other")["n"].to_list() == [299_000]


def test_lists_keep_as_many_values_as_they_say() -> None:
    """Also where a hundred records stand at each of a hundred instants, in many batches."""
    call = _call("v", "list", "int", 100)
    summary = Summary(["g"], [call], {})
    for at in range(20):
        frame = pl.DataFrame({"g": [1] * 10_000, "x": range(at * 10_000, (at + 1) * 10_000)})
        summary.add(frame.with_columns(call.inputs()), pl.col("x") % 100)
    rows = summary.groups()
    assert rows["\0v.values"].list.len().sum() <= 100 * 100
    summary.merge()
    assert summary.groups()["\0v.values"].list.len().sum() == 100
    assert summary.values(lambda rows: rows)["v"].to_list() == [list(range(0, 10_000, 100))]


@pytest.mark.parametrize("name", ["approx_distinct", "approx_quantile", "quantile_cont", "mode", "histogram"])
@given(seed=st.integers(0, 2**32), parts=st.integers(1, 12))
@settings(max_examples=examples(30), deadline=None)
def test_any_order_and_grouping_of_parts_is_one_pass(name: str, seed: int, parts: int) -> None:
    """Exactly, for what merges exactly."""
    chance = random.Random(seed)
    more: tuple[Any, ...] = {"approx_quantile": ([0.5, 0.99],), "quantile_cont": (0.3,), "histogram": ([0.0, 10.0],)}.get(
        name, ()
    )
    frame = pl.DataFrame(
        {
            "g": [chance.randrange(3) for _ in range(2_000)],
            "x": [round(chance.lognormvariate(1, 3) * chance.choice([-1, 1]), 2) for _ in range(2_000)],
        }
    )
    call = _call("v", name, "float", *more)
    cuts = sorted(chance.randrange(2_000) for _ in range(parts - 1))
    pieces = [frame[low:high] for low, high in zip([0, *cuts], [*cuts, 2_000], strict=True)]
    chance.shuffle(pieces)
    assert _merged(call, pieces) == _merged(call, [frame])


def _merged(call: Call, pieces: list[pl.DataFrame]) -> list[Any]:
    """By way of a restart after each part."""
    summary = Summary(["g"], [call], {})
    for piece in pieces:
        summary.add(piece.with_columns(call.inputs()), pl.lit(0))
        summary = Summary(["g"], [call], dict(summary.snapshot()))
    return summary.values(lambda rows: rows).sort("g")["v"].to_list()


def _call(name: str, function: str, kind: str, *more: Any) -> Call:
    return Call(name, FUNCTIONS.find(function, Aggregate)(kind, *more), pl.col("x"), more=more)


@pytest.mark.parametrize(("q", "place"), [(0.55, 55), (0.07, 7), (0.551, 56), (0.0, 1), (1e-300, 1), (1.0, 100)])
def test_a_share_is_what_is_written(q: float, place: int) -> None:
    """Not the double nearest to it: 0.55 of 100 values are 55 values."""
    summary = Summary([], [_call("v", "quantile_disc", "int", q)], {})
    summary.add(pl.DataFrame({"x": range(1, 101)}).select(_call("v", "quantile_disc", "int", q).inputs()), pl.lit(0))
    assert summary.values(lambda rows: rows)["v"].item() == place


def test_no_records_at_all(tmp_path: Path) -> None:
    """Without a key there is one row, whatever is asked for."""
    path = written([], tmp_path)
    (row,) = collect(f"ingest {path} {_INGEST} | aggregate {_CALLS}").rows
    expected = {
        "fr": 0,
        "ud": 0,
        "cd": 0,
        "hi": '[{"le":-5.0,"count":0},{"le":0.0,"count":0},{"le":5.0,"count":0},{"le":null,"count":0}]',
    }
    assert row == dict.fromkeys(row) | expected
