"""An aggregate in two phases gives what it gives undivided, whoever the workers are and whichever of them is ahead."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phases import Input, Manner, by_key, in_phases, read, whole
from resuming import written

from clickpipe.columns import Columns, TimeColumn, WindowInfo
from clickpipe.core.meter import check
from clickpipe.core.summarise import Summarise
from clickpipe.core.two_phase import in_two
from clickpipe.errors import Unsupported
from clickpipe.plan.flags import parse_step

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
_SETTINGS = settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
@_SETTINGS
def test_sketches(records: Records, manner: Manner, batch: int, window: str, tmp_path: Path) -> None:
    """The same bytes."""
    _check_equal(_read(records, tmp_path, batch, f"window {window} | sketch --by page {_said(_SKETCHES)}"), manner, tmp_path)
