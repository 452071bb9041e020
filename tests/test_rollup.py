"""Rows of fine windows, rolled up, are the rows that plain loops over the records give for the coarse windows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resuming import collected

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns, Merging, TimeColumn, WindowInfo
from clickpipe.core.operator import Late
from clickpipe.core.step import OperatorStep
from clickpipe.plan.flags import parse_step
from clickpipe.testing import Collected, collect, reopened

BEGIN = 1_700_006_400_000  # a multiple of all the windows below
_DECLARED = "--columns n:int,ts:int,user:str,page:str,v:int,x:float,ok:bool"
_CALLS = (
    "n='count(*)' c='count(v)' s='sum(v)' sx='sum(x)' lo='min(v)' hi='max(user)' a='avg(v)' ax='avg(x)' f='first(n)' l='last(v)' "
    "every='bool_and(ok)' any='bool_or(ok)' two='approx_frequency(v, 2)' paid='sum(v) FILTER (WHERE ok)' --keep-pieces"
)
_UNORDERED = _CALLS.replace("f='first(n)' l='last(v)' ", "")
_TIMES = st.integers(-100, 500) | st.integers(0, 30)  # often several in one fine window
_EVENTS = st.lists(
    st.fixed_dictionaries(
        {"t": _TIMES, "user": st.sampled_from(["a", "b", None]), "page": st.sampled_from(["/1", "/2"])},
        optional={
            "v": st.integers(-3, 9),
            "x": st.integers(-40, 40).map(lambda quarters: quarters / 4),  # their sums are exact
            "ok": st.booleans(),
        },
    ),
    min_size=1,
    max_size=60,
)
_CUTS = st.sampled_from([(1, 0), (1, 1), (1, 3), (200, 2), (400, 0), (1 << 20, 0)])  # bytes of a batch; resumed every so many
_SETTINGS = settings(max_examples=examples(90), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_FINE = 10

Event = dict[str, Any]
Rows = list[dict[str, Any]]


def _run(events: list[Event], folder: Path, cut: tuple[int, int], delay: int, steps: str) -> Collected:
    records = [{"ts": BEGIN + event["t"] * 1_000, **event} for event in events]
    return collected(records, folder, cut, f"--max-out-of-orderness {delay}s {_DECLARED}", steps)


def _counted(events: list[Event], delay: int, lateness: int) -> list[tuple[int, Event, bool]]:
    """The records that are not late for their fine window, and whether it had been given out."""
    counted, greatest = [], None
    for n, event in enumerate(events):
        mark = None if greatest is None or event["t"] >= greatest - delay else greatest - delay
        end = event["t"] // _FINE * _FINE + _FINE
        if mark is None or end + lateness > mark:
            counted.append((n, event, mark is not None and end <= mark))
        greatest = event["t"] if greatest is None else max(greatest, event["t"])
    return counted


def _values(members: list[tuple[int, Event, bool]], name: str) -> list[Any]:
    """By event time; of one instant as they came."""
    by_time = sorted(members, key=lambda member: (member[1]["t"], member[0]))
    return [event[name] for _, event, _ in by_time if event.get(name) is not None]


def _mean(values: list[Any]) -> float | None:
    return sum(values) / len(values) if values else None


def _summary(members: list[tuple[int, Event, bool]]) -> dict[str, Any]:
    v, x, ok, users = (_values(members, name) for name in ("v", "x", "ok", "user"))
    paid = [event["v"] for _, event, _ in members if event.get("ok") and event.get("v") is not None]
    first = min(members, key=lambda member: (member[1]["t"], member[0]))[0]
    return {
        "n": len(members),
        "c": len(v),
        "s": sum(v) if v else None,
        "sx": sum(x) if x else None,
        "lo": min(v, default=None),
        "hi": max(users, default=None),
        "a": _mean(v),
        "a_n": len(v),
        "a_sum": sum(v) if v else None,
        "ax": _mean(x),
        "ax_n": len(x),
        "ax_sum": sum(x) if x else None,
        "f": first,
        "l": v[-1] if v else None,
        "every": all(ok) if ok else None,
        "any": any(ok) if ok else None,
        "two": v.count(2),
        "paid": sum(paid) if paid else None,
    }


def _expected(counted: list[tuple[int, Event, bool]], size: int, by: tuple[str, ...], names: set[str]) -> Rows:
    groups: dict[tuple[Any, ...], list[tuple[int, Event, bool]]] = {}
    for member in counted:
        groups.setdefault((member[1]["t"] // size * size, *(member[1][name] for name in by)), []).append(member)
    rows = []
    for (start, *key), members in groups.items():
        bounds = {"window_start": BEGIN + start * 1_000, "window_end": BEGIN + (start + size) * 1_000}
        rev = {"rev": sum(had_fired for _, _, had_fired in members)}
        values = {**bounds, **dict(zip(by, key, strict=True)), **_summary(members), **rev}
        rows.append({name: value for name, value in values.items() if name in names})
    return sorted(rows, key=str)


def _latest(rows: Iterable[dict[str, Any]], by: tuple[str, ...]) -> Rows:
    """What a view would hold. `rev` goes up whenever a row comes again."""
    held: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        at = tuple(row[name] for name in ("window_start", "window_end", *by))
        assert at not in held or row["rev"] > held[at]["rev"], f"given again: {held[at]} {row}"
        held[at] = row
    return sorted(held.values(), key=str)


@given(
    events=_EVENTS,
    delay=st.integers(0, 200),
    lateness=st.sampled_from([0, 0, 15, 30, 200]),
    emit=st.sampled_from(["final", "final", "update", "early=3s"]),
    sizes=st.sampled_from([(60,), (10,), (60, 240), (30, 60, 240)]),
    by=st.sampled_from([("user", "page"), ("user",), ()]),
    cut=_CUTS,
)
@_SETTINGS
def test_rolled_up_rows_are_those_of_the_coarse_window(
    events: list[Event],
    delay: int,
    lateness: int,
    emit: str,
    sizes: tuple[int, ...],
    by: tuple[str, ...],
    cut: tuple[int, int],
    tmp_path: Path,
) -> None:
    """Of all records that were in time for their fine window, over one level or several, by all columns or by fewer."""
    is_whole = len(by) == 2
    late = f"--allowed-lateness {lateness}s" if lateness else ""
    fine = f"window tumble {_FINE}s {late} | aggregate --by user,page {_CALLS if is_whole else _UNORDERED} --emit {emit}"
    fewer = "" if is_whole else f"--by {','.join(by) or 'total'}"
    rollups = [f"rollup {sizes[0]}s {fewer}", *(f"rollup {size}s" for size in sizes[1:])]
    seen = _run(events, tmp_path, cut, delay, " | ".join([fine, *rollups]))

    rows = _latest(seen.rows, by)
    expected = _expected(_counted(events, delay, lateness), sizes[-1], by, set(seen.rows[0]) if seen.rows else set())
    assert rows == expected
    assert not rows or ("rev" in rows[0]) == bool(lateness)
    assert len(seen.late) == len(events) - len(_counted(events, delay, lateness))
    if not lateness:
        assert len(seen.rows) == len(expected)


@given(events=_EVENTS, cut=_CUTS, lateness=st.sampled_from([0, 60]))
@_SETTINGS
def test_integers_that_turn_into_floats(events: list[Event], cut: tuple[int, int], lateness: int, tmp_path: Path) -> None:
    """A column whose first values are integers goes on as one of floats, also where rows are corrected."""
    for number, event in enumerate(events):
        event["v"] = number if number < 3 else number / 4
    path = tmp_path / "in.ndjson"
    path.write_text("".join(json.dumps({"ts": BEGIN + e["t"] * 1_000, "v": e["v"]}) + "\n" for e in events))
    late = f"--allowed-lateness {lateness}s" if lateness else ""
    calls = "s='sum(v)' hi='max(v)' a='avg(v)' --keep-pieces"
    steps = f"window tumble 10s {late} | aggregate {calls} | rollup 60s"
    seen = collect(f"ingest {path} --time ts --max-out-of-orderness 20s --batch-bytes {cut[0]} | {steps}", cut[1])
    groups: dict[int, list[float]] = {}
    for _, event, _ in _counted(events, 20, lateness):
        groups.setdefault(event["t"] // 60 * 60, []).append(event["v"])
    expected = {BEGIN + at * 1_000: (sum(v), max(v), len(v), sum(v) / len(v)) for at, v in groups.items()}
    rows = {row["window_start"]: (row["s"], row["hi"], row["a_n"], row["a"]) for row in seen.rows}
    assert rows == expected


@pytest.mark.parametrize("lateness", [0, 1_000])
def test_rows_that_a_tool_moved_behind_their_watermark_are_late(lateness: int) -> None:
    """They are not counted in a window that has been let go, and not lost; the late stream has their coarse window."""
    fine = WindowInfo("tumble", 10_000, 10_000, lateness=lateness)
    types = {"window_start": "time", "window_end": "time", "n": "int"} | ({"rev": "int"} if lateness else {})
    key = ("window_start", "window_end")
    given = Columns(types, time=TimeColumn("window_start"), key=key, results_of=fine, merges={"n": Merging("count", "sum")})
    step = parse_step("rollup", ["60s"])
    assert isinstance(step, OperatorStep)
    operator = step.open(given, {})

    def outs(start: int) -> list[Batch | Late | Dead]:
        row = {"window_start": [start], "window_end": [start + 10_000], "n": [1]} | ({"rev": [0]} if lateness else {})
        return list(operator.on_batch(Batch(pl.DataFrame(row), given)))

    assert outs(0) == []
    assert [batch.frame["n"].to_list() for batch in operator.on_watermark(70_000)] == [[1]]
    (late,) = outs(20_000)
    assert isinstance(late, Late)
    assert (late.reason, json.loads(late.batch.to_ndjson())["window_end"]) == ("behind", 60_000)
    assert outs(60_000) == []


def test_no_row_so_far_is_a_state_too() -> None:
    """What has seen a watermark and no row goes on from what it has saved."""
    given = Columns({"ts": "int"}, time=TimeColumn("ts"))
    for steps in (["aggregate n=count(*)"], ["aggregate n=count(*)", "rollup 60s"]):
        for lateness in ([], ["--allowed-lateness", "1m"]):
            columns = given
            for name, *words in [["window", "tumble", "10s", *lateness], *(text.split() for text in steps)]:
                step, before = parse_step(name, words), columns
                assert isinstance(step, OperatorStep)
                columns = step.columns(before)
            operator = step.open(before, {})
            assert list(operator.on_watermark(5_000)) == []
            assert list(reopened(step, before, operator).on_watermark(80_000)) == []


@pytest.mark.parametrize(
    "merging", [Merging("count", "sum"), Merging("avg", "", {"n": "a_n", "sum": "a_sum"}), Merging("x", why="y")]
)
def test_the_stream_line_says_how_columns_merge(merging: Merging) -> None:
    columns = Columns({"a": "int"}, merges={"a": merging})
    assert Columns.from_json(json.loads(json.dumps(columns.to_json()))) == columns
