"""dedup drops exactly what its rule says, however records were batched, and whenever it was stopped and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resuming import driven, pulled, written

from clickpipe.core.meter import check
from clickpipe.core.seen import UNTIL, Seen
from clickpipe.testing import collect

BEGIN = 1_700_000_000_000
_SETTINGS = settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_RECORDS = st.lists(
    st.fixed_dictionaries(
        {"ts": st.integers(0, 40).map(lambda step: BEGIN + step)},
        optional={"id": st.sampled_from(["a", "b", "", "a longer name than twelve bytes"]) | st.none(), "k": st.integers(0, 2)},
    ),
    min_size=1,
    max_size=80,
)


def rule(records: list[dict[str, Any]], by: list[str], within: int, delay: int) -> tuple[list[int], list[int]]:
    """Which records pass and which are late, one by one; nothing is ever forgotten."""
    passed: list[tuple[list[Any], int]] = []
    out, late, greatest = [], [], None
    for record in records:
        time, key = record["ts"], [record.get(name) for name in by]
        mark = None if greatest is None else greatest - delay
        greatest = time if greatest is None else max(greatest, time)
        if mark is not None and time < mark and mark - time >= within:
            late.append(record["n"])
        elif not any(key == other and abs(time - at) < within for other, at in passed):
            passed.append((key, time))
            out.append(record["n"])
    return out, late


@given(
    records=_RECORDS,
    by=st.sampled_from([["id"], ["k"], ["id", "k"], ["k", "id"]]),
    within=st.integers(1, 15),
    delay=st.integers(0, 10),
    batch=st.sampled_from([1, 100, 300, 1 << 20]),
)
@_SETTINGS
def test_the_rule(records: list[dict[str, Any]], by: list[str], within: int, delay: int, batch: int, tmp_path: Path) -> None:
    path = written(records, tmp_path)
    seen = collect(f"{_ingest(path, delay, batch)} | dedup --by {','.join(by)} --within {within}ms")
    passing, late = rule(records, by, within, delay)
    assert [row["n"] for row in seen.rows] == passing
    assert [row["n"] for row in seen.late] == late
    check(seen.accounts)
    assert seen.accounts[0].read == len(records)
    assert seen.accounts[0].duplicate == len(records) - len(passing) - len(late)


@given(
    records=_RECORDS, within=st.integers(1, 15), delay=st.integers(0, 10), data=st.data(), batch=st.sampled_from([1, 150, 600])
)
@_SETTINGS
def test_stopped_and_resumed_at_any_point(
    records: list[dict[str, Any]], within: int, delay: int, data: st.DataObject, batch: int, tmp_path: Path
) -> None:
    path = written(records, tmp_path)
    step, columns, pulls = pulled(f"{_ingest(path, delay, batch)} | dedup --by id --within {within}ms")
    stops = data.draw(st.sets(st.integers(0, len(pulls)), max_size=4))
    assert driven(step, columns, pulls, sorted(stops)) == driven(step, columns, pulls, ())


@given(
    values=st.lists(st.integers(0, 3) | st.sampled_from([0.0, -0.0, 1.0, 1.5]), min_size=1, max_size=30),
    batch=st.integers(1, 60),
    resumed=st.sampled_from([0, 1, 3]),
)
@_SETTINGS
def test_integers_that_become_floats(values: list[float], batch: int, resumed: int, tmp_path: Path) -> None:
    """The first 1,000 records say integer. A 1 that comes as 1.0 later repeats it."""
    records = [{"ts": BEGIN, "id": number % 3 + 10} for number in range(1_000)] + [{"ts": BEGIN, "id": id_} for id_ in values]
    path = written(records, tmp_path)
    seen = collect(f"ingest {path} --time ts --batch-bytes {batch * 1_000} | dedup --by id --within 1h", resumed)
    assert [row["n"] for row in seen.rows] == rule([{"n": n, **r} for n, r in enumerate(records)], ["id"], 3_600_000, 0)[0]


def test_what_the_watermark_has_passed_is_forgotten() -> None:
    """Memory is bounded by --within: of a long stream little is kept."""
    seen = Seen(["k"])
    for begin in range(0, 100_000, 1_000):
        seen.add(pl.DataFrame({"k": range(begin, begin + 1_000), UNTIL: range(begin + 5_000, begin + 6_000)}))
        seen.forget(begin)
        assert seen.rows().height <= 3 * 6_000
    seen.forget(200_000)
    assert not seen.rows().width


def test_what_is_seen_keeps_no_other_text() -> None:
    """Of each batch one record passes: the keys of the others, 400 MB here, are let go of."""
    seen, before = Seen(["k"]), _resident_mib()
    text = pl.select(pl.concat_str(pl.lit("x" * 120), pl.int_range(80_000).cast(pl.String)))
    for number in range(40):
        keys = text.select(pl.concat_str(pl.first(), pl.lit(f"{number}"))).to_series()
        rows = pl.DataFrame({"k": keys, UNTIL: range(80_000)})
        seen.add(rows.filter(pl.col(UNTIL) == 7))
    assert seen.rows().height == 40
    assert _resident_mib() - before < 200


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) / 256


@pytest.mark.parametrize("latest", [False, True])
def test_keys_are_compared_by_value(latest: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all hashes are one, everything is found, so that a caller who compares values is right."""
    monkeypatch.setattr(pl.Expr, "hash", lambda self, *_: pl.lit(7, pl.UInt64).repeat_by(1).list.first() + 0 * self.len())
    seen = Seen(["k"], latest=latest)
    seen.add(pl.DataFrame({"k": ["a", "b"], UNTIL: [9, 9]}))
    rows, found = seen.find(seen.hashed(pl.DataFrame({"k": ["b", "c"]})))
    assert rows.to_list() == [0, 1]
    assert found["k"].to_list() == ["a", "b"]


def _ingest(path: Path, delay: int, batch: int) -> str:
    declared = "--columns n:int,ts:int,id:str,k:int"
    return f"ingest {path} --time ts --max-out-of-orderness {delay}ms --batch-bytes {batch} {declared}"
