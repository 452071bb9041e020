"""An aggregate in two phases gives what it gives undivided, whoever the workers are and whichever of them is ahead."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from examples import examples
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from phases import Given, Input, Manner, by_key, in_phases, read, whole
from resuming import written

from clickpipe.batch import Batch
from clickpipe.cli.accounts import report
from clickpipe.columns import Columns, TimeColumn, WindowInfo
from clickpipe.core.loop import Asides, Loop, Stage, Tail
from clickpipe.core.meter import Ledger, check
from clickpipe.core.operator import Operator
from clickpipe.core.pieces import COLUMNS, unpacked
from clickpipe.core.redivided import redivided
from clickpipe.core.summarise import Summarise
from clickpipe.core.two_phase import in_two
from clickpipe.engine.local import Outcome
from clickpipe.errors import DataError, OursError, Unsupported
from clickpipe.plan.flags import parse_step
from clickpipe.testing import reopened
from clickpipe.wire.frames import Worker

BEGIN = 1_700_000_000_000
Records = list[dict[str, Any]]
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "ms": st.integers(-20, 20) | st.none(),
    "x": st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: x + 0.0) | st.none(),
    "ok": st.booleans() | st.none(),
}
_KEYS: dict[str, st.SearchStrategy[Any]] = {"page": st.sampled_from(["/a", "/b", None]), "user": st.sampled_from("abcdefgh")}
_RECORDS = st.lists(
    st.fixed_dictionaries({"ts": st.integers(0, 60_000).map(lambda step: BEGIN + step), **_KEYS}, optional=_VALUES),
    min_size=1,
    max_size=40,
)
# No two records are of one instant, or equal in what arg_max goes by: arrival decides nothing.
_APART = _RECORDS.map(lambda records: list({record["ts"]: record for record in records}.values()))
_MANNER = st.builds(
    Manner,
    workers=st.integers(1, 3),
    seed=st.integers(0, 1_000),
    resumed=st.sampled_from([0, 0, 1, 2]),
    arrow=st.booleans(),
)
_BATCH = st.sampled_from([100, 600, 600, 1 << 20])
_SETTINGS = settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_COLUMNS = "--columns n:int,ts:int,page:str,user:str,ms:int,x:float,ok:bool"
_INGEST = f"--time ts --max-out-of-orderness 5s {_COLUMNS}"
_CALLS = {
    "n": "count(*)",
    "k": "count(ms)",
    "s": "sum(ms)",
    "sx": "sum(x)",
    "a": "avg(ms)",
    "ax": "avg(x)",
    "lo": "min(x)",
    "hi": "max(page)",
    "v": "var(x)",
    "d": "stddev_pop(ms)",
    "cd": "count(DISTINCT user)",
    "cx": "count(DISTINCT x)",
    "md": "median(ms)",
    "q": "quantile(x, [0.1, 0.9])",
    "mo": "mode(user)",
    "hg": "histogram(ms, [-5, 5])",
    "tk": "approx_top_k(user, 3)",
    "ud": "approx_distinct(user)",
    "aq": "approx_quantile(x, 0.5)",
    "fr": "approx_frequency(user, 'a')",
    "ba": "bool_and(ok)",
    "bo": "bool_or(ms > 5)",
    "f": "first(user)",
    "l": "last(ms)",
    "am": "arg_max(user, n)",
    "li": "list(user, 3)",
    "sa": "string_agg(ms, '; ')",
    "fn": "count(*) FILTER (WHERE ok)",
    "fm": "median(ms) FILTER (WHERE ok)",
    "fu": "approx_distinct(user) FILTER (WHERE ms > 0)",
}
_SKETCHES = {
    "d": "distinct(user)",
    "se": "set(user)",
    "qu": "quantiles(x)",
    "tk": "top_k(page)",
    "fr": "frequency(page, 64)",
    "si": "similarity(user, 16)",
    "sm": "sample(page, n, 3)",
}
_DIVIDED = ["", "window tumble 10s |", "window hop 20s --slide 10s --allowed-lateness 10m |"]
_WINDOWS = ["tumble 10s", "tumble 1d --tz Europe/Berlin", "hop 20s --slide 10s", "hop 25s --slide 10s", "cumulate 20s --step 5s"]


def _said(calls: dict[str, str]) -> str:
    return " ".join(f'{name}="{text}"' for name, text in calls.items())


_SOME = st.lists(st.sampled_from(list(_CALLS)), min_size=1, max_size=6, unique=True).map(
    lambda names: _said({name: _CALLS[name] for name in names})
)


def _read(records: Records, folder: Path, batch: int, steps: str, *, is_declared: bool = True) -> Input:
    path = written(records, folder)
    return read(f"ingest {path} {_INGEST} --batch-bytes {batch} | {steps}", is_declared=is_declared)


def _check_equal(given: Input, manner: Manner, folder: Path) -> None:
    """Rows, late records, dead letters and accounts."""
    alone, split = whole(given), in_phases(given, "user", manner, folder)
    assert split.rows == alone.rows
    assert _sorted(split.late) == _sorted(alone.late)
    assert sorted(split.dead) == sorted(alone.dead)
    assert [ledger.to_json() for ledger in split.accounts] == [ledger.to_json() for ledger in alone.accounts]
    split.accounts[-1].written = len(split.rows)
    check(split.accounts)


def _sorted(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Of late records, what is theirs: text and windows."""
    return sorted(json.dumps({name: row[name] for name in sorted(row) if name.isidentifier()}, default=str) for row in rows)


@given(records=_APART, manner=_MANNER, batch=_BATCH, calls=_SOME)
@_SETTINGS
def test_by_key(records: Records, manner: Manner, batch: int, calls: str, tmp_path: Path) -> None:
    _check_equal(_read(records, tmp_path, batch, f"aggregate --by page {calls}"), manner, tmp_path)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("window", ["", "window tumble 10s |"])
def test_each_function(window: str, workers: int, tmp_path: Path) -> None:
    """Beside all others."""
    chance = random.Random(workers)
    records = [
        {
            "ts": BEGIN + 997 * n,
            "page": chance.choice("ab"),
            "user": chance.choice("abcdef"),
            "ms": n % 7,
            "x": n / 3,
            "ok": n % 3 > 1,
        }
        for n in range(60)
    ]
    given = _read(records, tmp_path, 900, f"{window} aggregate --by page {_said(_CALLS)}")
    _check_equal(given, Manner(workers, seed=workers, resumed=2), tmp_path)


@given(
    records=_APART,
    manner=_MANNER,
    batch=_BATCH,
    window=st.sampled_from(_WINDOWS),
    by=st.sampled_from(["", "--by page"]),
    calls=_SOME,
)
@_SETTINGS
def test_in_windows(records: Records, manner: Manner, batch: int, window: str, by: str, calls: str, tmp_path: Path) -> None:
    """Late records too, and those that come too late for some of their windows."""
    _check_equal(_read(records, tmp_path, batch, f"window {window} | aggregate {by} {calls}"), manner, tmp_path)


@given(records=_APART, manner=_MANNER, batch=_BATCH, window=st.sampled_from(_WINDOWS))
@example(records=[{"ts": BEGIN, "page": "/a", "user": "a"}], manner=Manner(2, 0, resumed=1), batch=100, window="tumble 10s")
@_SETTINGS
def test_sketches(records: Records, manner: Manner, batch: int, window: str, tmp_path: Path) -> None:
    """The same bytes."""
    _check_equal(_read(records, tmp_path, batch, f"window {window} | sketch --by page {_said(_SKETCHES)}"), manner, tmp_path)


@given(records=_APART, manner=_MANNER, batch=_BATCH, by=st.sampled_from(["", "--by page", "--by ms"]), data=st.data())
@_SETTINGS
def test_integers_that_become_floats(
    records: Records, manner: Manner, batch: int, by: str, data: st.DataObject, tmp_path: Path
) -> None:
    """In one worker, and not yet, or never, in another."""
    for place in data.draw(st.sets(st.integers(0, len(records) - 1), max_size=2)):
        records[place]["ms"] = data.draw(st.sampled_from([0.5, 3.25, -7.0]))
    names = ["n", "k", "s", "a", "v", "d", "md", "hg", "bo", "l"]
    more = {"cm": "count(DISTINCT ms)", "mm": "mode(ms)", "mi": "min(ms)", "fi": "arg_min(user, ms * 1000 + n)", "lm": "list(ms)"}
    more |= {"am": "approx_distinct(ms)", "aq": "approx_quantile(ms, 0.5)", "qm": "quantile(ms, [0, 1])", "e": "sum(ms * 2 + 1)"}
    calls = _said({name: _CALLS[name] for name in names} | more)
    window = data.draw(st.sampled_from(["", "window tumble 10s |", "window hop 20s --slide 10s |"]))
    given = _read(records, tmp_path, batch, f"{window} aggregate {by} {calls}", is_declared=False)
    _check_equal(given, manner, tmp_path)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("window", ["", "window tumble 10s |", "window hop 20s --slide 10s |"])
def test_one_worker_has_floats_and_another_never(window: str, seed: int, tmp_path: Path) -> None:
    """Whichever of them is ahead, and whether they are stopped or not."""
    values = [n + 0.25 if n > 9 and n % 2 else n for n in range(40)]
    records = [{"ts": BEGIN + 900 * n, "page": "ab"[n % 3 // 2], "user": "ad"[n % 2], "ms": ms} for n, ms in enumerate(values)]
    calls = "s='sum(ms)' a='avg(ms)' md='median(ms)' v='var(ms)' cm='count(DISTINCT ms)' l='last(ms)'"
    given = _read(records, tmp_path, 400, f"{window} aggregate --by page {calls}", is_declared=False)
    _check_equal(given, Manner(2, seed, resumed=seed % 3), tmp_path)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("window", ["tumble 10s", "hop 20s --slide 10s"])
def test_corrections(window: str, seed: int, tmp_path: Path) -> None:
    """Records that come when their windows have been given out."""
    times = [0, 9_000, 30_000, 8_000, 21_000, 45_000, 7_000, 22_000, 60_000, 31_000, 46_000, 90_000]
    records = [{"ts": BEGIN + time, "page": "/a", "user": "abc"[n % 3], "ms": n} for n, time in enumerate(times)]
    given = _read(records, tmp_path, 1, f"window {window} --allowed-lateness 40s | aggregate --by page {_AGAIN}")
    alone, split = whole(given), in_phases(given, "user", Manner(3, seed, resumed=seed % 3), tmp_path)
    assert max(row["rev"] for row in alone.rows) > 0
    key = ["window_start", "window_end", "page"]
    assert by_key(split.rows, key) == by_key(alone.rows, key)


_AGAIN = "n='count(*)' s='sum(ms)' md='median(ms)' u='count(DISTINCT user)' f='first(user)'"


@given(
    records=_APART,
    manner=_MANNER,
    batch=_BATCH,
    window=st.sampled_from([*(f"{window} --allowed-lateness 15s" for window in _WINDOWS), *_WINDOWS]),
    emit=st.sampled_from(["final", "update", "early=2s"]),
    by=st.sampled_from(["", "--by page"]),
)
@_SETTINGS
def test_rows_that_come_again(
    records: Records, manner: Manner, batch: int, window: str, emit: str, by: str, tmp_path: Path
) -> None:
    """The last row of each key is that of the undivided aggregate, and the revision too. Of one worker all rows are."""
    steps = f"window {window} | aggregate {by} --emit {emit} {_AGAIN}"
    given = _read(records, tmp_path, batch, steps)
    alone, split = whole(given), in_phases(given, "user", manner, tmp_path)
    key = ["window_start", "window_end", *by.split()[1:]]
    assert by_key(split.rows, key) == by_key(alone.rows, key)
    assert _sorted(split.late) == _sorted(alone.late)
    assert manner.workers > 1 or split.rows == alone.rows
    for row in split.rows:
        last = by_key(split.rows, key)[tuple(row[name] for name in key)]
        assert (row["n"], row.get("rev", 0)) <= (last["n"], last.get("rev", 0))


@given(records=_APART, manner=_MANNER, batch=_BATCH)
@_SETTINGS
def test_updates_without_a_window(records: Records, manner: Manner, batch: int, tmp_path: Path) -> None:
    given = _read(records, tmp_path, batch, f"aggregate --by page --emit update {_AGAIN}")
    alone, split = whole(given), in_phases(given, "user", manner, tmp_path)
    assert by_key(split.rows, ["page"]) == by_key(alone.rows, ["page"])
    assert manner.workers > 1 or split.rows == alone.rows


@given(
    records=_APART,
    manner=_MANNER,
    batch=_BATCH,
    window=st.sampled_from(["", *(f"window {window} |" for window in _WINDOWS)]),
    more=st.sampled_from(
        [
            "--also page --also total",
            "--top 2",
            "--top 1 --order 's ASC' --also total",
            "--bounds",
            "--keep-pieces",
            "--max-groups 1000",
        ]
    ),
)
@_SETTINGS
def test_what_is_said_of_rows(records: Records, manner: Manner, batch: int, window: str, more: str, tmp_path: Path) -> None:
    calls = "n='count(*)' s='sum(ms)' a='avg(x)' u='approx_distinct(user)' q='approx_quantile(x, 0.9)'"
    _check_equal(_read(records, tmp_path, batch, f"{window} aggregate --by page,ok {more} {calls}"), manner, tmp_path)


@given(records=_RECORDS, most=st.integers(1, 12), manner=_MANNER, window=st.sampled_from(["", "window tumble 10s |"]))
@_SETTINGS
def test_groups_that_are_too_many(records: Records, most: int, manner: Manner, window: str, tmp_path: Path) -> None:
    """The run stops if, and only if, the undivided aggregate would; which group there is no place for may be another."""
    given = _read(records, tmp_path, 600, f"{window} aggregate --by page,ok --max-groups {most} n='count(*)'")
    assert _is_stopped(lambda: whole(given)) == _is_stopped(lambda: in_phases(given, "user", manner, tmp_path))


def _is_stopped(run: Callable[[], object]) -> bool:
    try:
        run()
    except DataError:
        return True
    return False


# Records that nothing but their arrival tells apart.

_EQUAL = st.lists(
    st.fixed_dictionaries(
        {
            "ts": st.integers(0, 3).map(lambda step: BEGIN + 1_000 * step),
            "page": st.sampled_from("ab"),
            "user": st.sampled_from("abcdefgh"),
            "ms": st.integers(0, 2) | st.none(),
        }
    ),
    min_size=1,
    max_size=30,
)


@given(records=_EQUAL, manner=_MANNER, batch=_BATCH)
@_SETTINGS
def test_of_equals_the_value_decides(records: Records, manner: Manner, batch: int, tmp_path: Path) -> None:
    """Whatever comes first, and however many workers there are."""
    calls = "f='first(user)' l='last(user)' an='any_value(ms)' mx='arg_max(user, ms)' mn='arg_min(user, ms)'"
    calls += " li='list(user, 4)' sa='string_agg(ms)'"
    given = _read(records, tmp_path, batch, f"aggregate --by page {calls}")
    rows = in_phases(given, "user", manner, tmp_path).rows
    for row in rows:
        mine = [record for record in records if record["page"] == row["page"]]
        timed = [record for record in mine if record["ms"] is not None]
        assert row["f"] == min((record["ts"], record["user"]) for record in mine)[1]
        assert row["l"] == max((record["ts"], record["user"]) for record in mine)[1]
        assert json.loads(row["li"]) == [user for _, user in sorted((record["ts"], record["user"]) for record in mine)][:4]
        if not timed:
            assert [row[name] for name in ("an", "mx", "mn", "sa")] == [None] * 4
            continue
        assert row["an"] == min((record["ts"], record["ms"]) for record in timed)[1]
        assert row["mx"] == min((-record["ms"], record["user"]) for record in timed)[1]
        assert row["mn"] == min((record["ms"], record["user"]) for record in timed)[1]
        assert row["sa"] == ",".join(str(ms) for _, ms in sorted((record["ts"], record["ms"]) for record in timed))
    assert len(rows) == len({record["page"] for record in records})


# What is rare.


def test_no_records(tmp_path: Path) -> None:
    """There is one row all the same, as in SQL; with a key, or in windows, there is none."""
    for steps in ("aggregate", "aggregate --by page", "window tumble 1m | aggregate"):
        _check_equal(_read([], tmp_path, 600, f"{steps} n='count(*)' s='sum(ms)'"), Manner(3), tmp_path)


@pytest.mark.parametrize("arrow", [True, False])
def test_pieces_that_are_larger_than_a_record(arrow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are handed on in parts."""
    monkeypatch.setattr("clickpipe.core.pieces.MOST_BYTES", 5_000)
    records = [{"ts": BEGIN + n, "page": f"/{n % 90}", "user": f"u{n % 7}", "ms": n, "ok": True} for n in range(700)]
    steps = "window tumble 1m | aggregate --by page n='count(*)' md='median(ms)' u='count(DISTINCT user)' v='var(ms)'"
    _check_equal(_read(records, tmp_path, 20_000, steps), Manner(3, arrow=arrow), tmp_path)


def test_a_group_that_no_record_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clickpipe.core.pieces.MOST_BYTES", 500)
    given = _read([{"ts": BEGIN, "user": "a", "page": "x" * 1_000}], tmp_path, 600, "aggregate --by page n='count(*)'")
    with pytest.raises(DataError, match="pieces of one group are too large"):
        in_phases(given, "user", Manner(), tmp_path)


def test_records_behind_the_watermark(tmp_path: Path) -> None:
    """A tool may have moved them past the windows that they stand in: the worker knows."""
    records = [{"ts": BEGIN + 7_000 * n, "page": "/a", "user": "ab"[n % 2]} for n in range(12)]
    given = _read(records, tmp_path, 100, "window tumble 10s | aggregate --by page n='count(*)'")
    moved = given.pulls[0]
    given.pulls[-1].batches = [*moved.batches, *given.pulls[-1].batches]
    given.pulls[-1].read += moved.read
    moved.batches, moved.read = [], 0
    alone = whole(given)
    assert [record["n"] for record in alone.late] == list(range(len(alone.late)))
    assert alone.late
    _check_equal(given, Manner(2, resumed=1), tmp_path)


def test_pieces_behind_the_watermark(tmp_path: Path) -> None:
    """A merge that has given out a watermark too soon is found out, and results do not become wrong."""
    given = _read([{"ts": BEGIN, "page": "/a", "user": "a"}], tmp_path, 100, "window tumble 10s | aggregate n='count(*)'")
    columns = given.steps[0].columns(given.columns)
    step = given.steps[1]
    assert isinstance(step, Summarise)
    partial, final = in_two(step, columns)
    first, second = partial.open(columns, {}), final.open(partial.columns(columns), {})
    window = given.steps[0].open(given.columns, {})
    for batch in given.pulls[0].batches:
        for out in window.on_batch(batch):
            assert isinstance(out, Batch)
            list(first.on_batch(out.need(partial.needs(columns), set())[0]))
    (pieces,) = first.on_watermark(BEGIN)
    list(second.on_watermark(BEGIN + 60_000))
    with pytest.raises(OursError, match="a watermark too soon"):
        list(second.on_batch(pieces))


@given(records=_APART, before=st.integers(1, 3), after=st.integers(1, 3), window=st.sampled_from(_DIVIDED), data=st.data())
@_SETTINGS
def test_another_number_of_workers(
    records: Records, before: int, after: int, window: str, data: st.DataObject, tmp_path: Path
) -> None:
    """Pieces that had not been handed on, where the watermark was, and which integers are floats: nothing is lost."""
    for place in data.draw(st.sets(st.integers(0, len(records) - 1), max_size=1)):
        records[place]["ms"] = 0.5
    steps = f"{window} aggregate --by page n='count(*)' s='sum(ms)' md='median(ms)' a='avg(ms)'"
    given = _read(records, tmp_path, 1 << 20, steps, is_declared=False)
    batches, columns = _windowed(given)
    step = given.steps[-1]
    assert isinstance(step, Summarise)
    partial, final = in_two(step, columns)
    operators = [partial.open(columns, {}) for _ in range(before)]
    for operator, batch in _dealt(operators, batches):
        list(operator.on_batch(batch.need(partial.needs(columns), set())[0]))
    last = final.open(partial.columns(columns), {})
    for operator in operators:  # as at a barrier
        for pieces in operator.on_update():
            list(last.on_batch(pieces))
    saved = {number: operator.snapshot() for number, operator in enumerate(operators)}
    last = reopened(final, partial.columns(columns), last)
    for worker in (Worker(number, after, ("user",)) for number in range(after)):
        for pieces in partial.open(columns, redivided(saved, before, worker)).on_watermark(2**62):
            list(last.on_batch(pieces))
    rows = [row for out in last.on_watermark(2**62) for row in out.frame.to_dicts()]
    assert rows == whole(given).rows


def _windowed(given: Input) -> tuple[list[Batch], Columns]:
    """The records that come to the aggregate, none of which is late here, and their columns."""
    batches, columns = [batch for pull in given.pulls for batch in pull.batches], given.columns
    for step in given.steps[:-1]:
        operator = step.open(columns, {})
        needed = [batch.need(step.needs(columns), set())[0] for batch in batches]
        batches = [out for batch in needed for out in operator.on_batch(batch) if isinstance(out, Batch)]
        columns = step.columns(columns)
    return batches, columns


def _dealt(operators: Sequence[Operator], batches: Sequence[Batch]) -> Iterator[tuple[Operator, Batch]]:
    """Each record goes to one of them."""
    for batch in batches:
        for place, operator in enumerate(operators):
            mine = pl.Series([row % len(operators) == place for row in range(batch.height)])
            if mine.any():
                yield operator, batch.keep(mine)


def test_damaged_pieces() -> None:
    step = parse_step("aggregate", ["n=count(*)"])
    assert isinstance(step, Summarise)
    _, final = in_two(step, Columns({"a": "int"}))
    operator = final.open(COLUMNS, {})
    for text in ("?", "AAAA", ""):
        frame = pl.DataFrame([("groups", "", text)], schema=COLUMNS.schema(), orient="row")
        with pytest.raises(DataError, match="what should be pieces of an aggregate"):
            list(operator.on_batch(Batch(frame, COLUMNS)))


def test_a_hot_key_costs_a_row_a_batch(tmp_path: Path) -> None:
    """However many records it has."""
    records = [{"ts": BEGIN + n, "page": "/hot", "user": "a", "ms": n} for n in range(5_000)]
    given = _read(records, tmp_path, 1 << 16, "aggregate --by page n='count(*)' s='sum(ms)' lo='min(ms)' v='var(ms)'")
    step = given.steps[0]
    assert isinstance(step, Summarise)
    partial, _ = in_two(step, given.columns)
    operator = partial.open(given.columns, {})
    handed_on = []
    for pull in given.pulls:
        for batch in pull.batches:
            assert not list(operator.on_batch(batch.need(partial.needs(given.columns), set())[0]))
        assert pull.watermark is not None
        handed_on += [part.rows.height for out in operator.on_watermark(pull.watermark) for part in unpacked(out.frame)]
    assert handed_on == [1] * len(given.pulls)
    assert len(given.pulls) > 3
    assert "groups" not in operator.snapshot()


def test_accounts_that_a_person_sees(capsys: pytest.CaptureFixture[str]) -> None:
    """Pieces are nobody's records."""
    accounts = [Ledger(7, aggregated=7), Ledger(3, aggregated=3, pieces=2), Ledger(4, written=4)]
    check(accounts)
    assert [Ledger.from_json(ledger.to_json()).pieces for ledger in accounts] == [0, 2, 0]
    report(Outcome(accounts, has_sink=True))
    assert capsys.readouterr().err.splitlines() == ["clickpipe: read 7 = aggregated 7", "clickpipe: results 4 = written 4"]


_SESSION = WindowInfo("session", 1_000, 1_000, by=("user",))
_COUNT = WindowInfo("count", 10, 10)
_CORRECTED = WindowInfo("tumble", 1_000, 1_000, lateness=5)
_TIME = TimeColumn("ts", "ms")
_MOST = ["n=count(*)", "--by", "page", "--max-groups", "3"]


@pytest.mark.parametrize(
    ("words", "given", "message", "hint"),
    [
        (["n=count(*)", "--by", "page,user"], {"window": _SESSION}, "of one session window would be in", "partition --by user"),
        (["n=count(*)", "--by", "page"], {"window": _COUNT}, "holds the next records to come", "behind merge"),
        ([*_MOST, "--overflow", "other"], {}, "which groups were the first to come is not known", "--overflow stop can be"),
        (_MOST, {"window": _CORRECTED}, "depend on which worker is ahead", ""),
        (["f=first(page)"], {"time": None}, "without event time the first to come decides", "ingest --time ts"),
        (["f=string_agg(page)"], {"time": None}, "without event time the first to come decides", "ingest --time ts"),
    ],
)
def test_what_cannot_be_divided(words: list[str], given: dict[str, Any], message: str, hint: str) -> None:
    types = {"ts": "int", "page": "str", "user": "str", "window_start": "time", "window_end": "time", "window_number": "int"}
    step = parse_step("aggregate", words)
    assert isinstance(step, Summarise)
    with pytest.raises(Unsupported, match=message) as error:
        in_two(step, Columns(types, **{"time": _TIME, **given}))
    assert hint in error.value.hint


def test_stopped_it_hands_on_what_it_has(tmp_path: Path) -> None:
    """Else pieces would be saved, which have no worker of their own when there is another number of them."""
    path = tmp_path / "in.ndjson"
    path.write_text('{"ts":1700000000000,"page":"/a"}\n')
    given = read(f"ingest {path} --time ts | aggregate --by page n='count(*)'")
    (step,) = given.steps
    assert isinstance(step, Summarise)
    partial, _ = in_two(step, given.columns)
    feed = Given(given.columns, [replace(pull, watermark=None) for pull in given.pulls])
    feed.is_stopped, feed.restore = True, 0
    operator = partial.open(given.columns, {})
    batches: list[Batch] = []
    tail = Tail(batches.append, lambda *_: None, ())
    stage = Stage("aggregate", partial, given.columns, operator, partial.needs(given.columns))
    Loop(feed, [stage], tail, Asides(lambda _: None, lambda _: None), set()).run()
    (pieces,) = batches
    assert [part.rows.height for part in unpacked(pieces.frame)] == [1]
    assert not any("page" in table.columns and table.height for table in operator.snapshot().values())
