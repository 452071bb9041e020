"""Sketches as values, against the format written down again in plain Python, and against sets and lists."""

from __future__ import annotations

import base64
import json
import math
import random
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mmh3
import numpy as np
import orjson
import polars as pl
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resuming import written

from clickpipe.aggregates.merge import Merge
from clickpipe.batch import Batch
from clickpipe.columns import Columns
from clickpipe.core import hashing
from clickpipe.core.aggregate import SUB_KEY, VALUE
from clickpipe.core.apache_theta import ALL
from clickpipe.core.asked import answered, combined, union, united
from clickpipe.core.compute import compute, json_of
from clickpipe.core.flat import GROUP
from clickpipe.core.functions import compile
from clickpipe.core.sketch import kinds, opened
from clickpipe.core.summary import Call, Summary
from clickpipe.errors import DataError
from clickpipe.sketches.set import Set
from clickpipe.testing import collect

KINDS = {kind.name(): kind for kind in kinds().values()}
SEED = 9001
POLARS: dict[type, Any] = {str: pl.String, float: pl.Float64, bool: pl.Boolean}
Values = Sequence[Any]

# --- The format, as clickpipe-sketch(5) tells it -------------------------------------------------------------------------


def _value(kind: int, parameter: float, payload: bytes, *, version: int = 1, hash_: int = 1, seed: int = SEED) -> str:
    head = struct.pack("<3sBBBHd", b"CPS", version, kind, hash_, seed, parameter)
    check = mmh3.hash(payload, mmh3.hash(head, SEED, signed=False), signed=False)
    return base64.b64encode(head + struct.pack("<I", check) + payload).decode()


def _halves(text: str) -> tuple[int, int]:
    hashed = mmh3.hash128(text.encode(), SEED, signed=False)
    return hashed & 2**64 - 1, hashed >> 64


def _distinct(values: Values, precision: int) -> str:
    ranks: dict[int, int] = {}
    for value in values:
        low, high = _halves(value)
        register, rest = low & 2**precision - 1, high >> precision
        rank = 64 - precision - rest.bit_length() + 1
        ranks[register] = max(rank, ranks.get(register, 0))
    if len(ranks) * 4 >= 2**precision:
        return _value(1, precision, bytes(ranks.get(register, 0) for register in range(2**precision)))
    return _value(1, precision, b"".join(struct.pack("<I", register << 8 | ranks[register]) for register in sorted(ranks)))


def _set(values: Values, k: int) -> str:
    hashes = sorted({_halves(value)[0] >> 1 for value in values})
    kept, theta = hashes[:k], hashes[k] if len(hashes) > k else None
    longs = 3 if theta is not None else 1 if len(kept) < 2 else 2
    payload = bytes([longs, 3, 3, 0, 0, 0x1E if not kept else 0x1A, 0xCC, 0x93])
    payload += struct.pack("<Q", len(kept)) if longs > 1 else b""
    payload += struct.pack("<Q", theta) if theta is not None else b""
    return _value(2, k, payload + b"".join(struct.pack("<Q", hash_) for hash_ in kept))


def _quantiles(values: Values, accuracy: float) -> str:
    gamma = (1 + accuracy) / (1 - accuracy)
    offset = math.ceil(745.2 / math.log(gamma)) + 1
    counts: Counter[int] = Counter()
    for x in values:
        place = 0 if x == 0 else offset + math.ceil(math.log(abs(x)) / math.log(gamma))
        counts[place if x >= 0 else -place] += 1
    return _value(3, accuracy, b"".join(struct.pack("<iq", bucket, counts[bucket]) for bucket in sorted(counts)))


def _top_k(values: Values, k: int) -> str:
    """Of fewer different values than there are counters."""
    counts = Counter(f'"{value}"' for value in values)
    return _value(4, k, "\n".join(f"{counts[value]} {value}" for value in sorted(counts)).encode())


def _frequency(values: Values, width: int) -> str:
    counts: Counter[int] = Counter()
    for value in values:
        low, high = (half & 2**32 - 1 for half in _halves(value))
        counts.update((low + row * high) % width + row * width for row in range(4))
    return _value(5, width, b"".join(struct.pack("<Iq", cell, counts[cell]) for cell in sorted(counts)))


PLAIN: dict[str, Callable[[Values, Any], str]] = {
    "distinct": _distinct,
    "set": _set,
    "quantiles": _quantiles,
    "top_k": _top_k,
    "frequency": _frequency,
}
PARAMETERS: dict[str, list[Any]] = {
    "distinct": [4, 8, 12],
    "set": [16, 4096],
    "quantiles": [0.01, 0.2],
    "top_k": [1, 10],
    "frequency": [16, 2048],
}

_TEXTS = st.lists(st.integers(0, 200).map(str), max_size=60)
_NUMBERS = st.lists(st.integers(-1000, 1000).map(lambda n: n / 8), max_size=60)


def _drawn(chance: st.DataObject, kind: str) -> list[Any]:
    return list(chance.draw(_NUMBERS if kind == "quantiles" else _TEXTS))


def _column(kind: str, parameter: Any, groups: Sequence[Values], parts: int = 1) -> pl.Series:
    """A sketch of each of the groups, made of so many frames."""
    type_ = "float" if kind == "quantiles" else "str"
    sketch: Any = KINDS[kind]
    call = Call("v", sketch(type_, parameter), pl.col("x"))
    summary = Summary(["g"], [call], {})
    # Each group has a null too, so that one without values has a row.
    rows = [(group, value) for group, values in enumerate(groups) for value in (*values, None)]
    for part in range(parts):
        frame = pl.DataFrame(
            rows[part::parts], schema={"g": pl.Int64, "x": pl.Float64 if type_ == "float" else pl.String}, orient="row"
        )
        summary.add(frame.select("g", *call.inputs()), pl.lit(0))
    return summary.values(lambda rows: rows).sort("g")["v"]


def _one(kind: str, parameter: Any, values: Values) -> str:
    return str(_column(kind, parameter, [values]).item())


@pytest.mark.parametrize("kind", PLAIN)
@given(chance=st.data())
@settings(max_examples=examples(60), deadline=None)
def test_values_are_byte_for_byte_what_the_format_says(kind: str, chance: st.DataObject) -> None:
    parameter = chance.draw(st.sampled_from(PARAMETERS[kind]))
    groups = [_drawn(chance, kind) for _ in range(chance.draw(st.integers(1, 4)))]
    found = _column(kind, parameter, groups, chance.draw(st.integers(1, 5)))
    assert found.to_list() == [PLAIN[kind](values, parameter) for values in groups]


_TURNING = st.lists(st.integers(-3, 3) | st.sampled_from([0.0, -0.0, 1.0, -2.0, 0.5]), min_size=1, max_size=20)


@given(turning=_TURNING, cut=st.sampled_from([(2_000, 0), (2_000, 1), (9_000, 3), (1 << 20, 0)]))
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_integers_that_become_floats(turning: list[float], cut: tuple[int, int], tmp_path: Path) -> None:
    """The first 1,000 records say integer: bytes are those of the numbers' texts, however records are batched."""
    numbers = [number % 5 for number in range(1_000)] + turning
    path = written([{"x": x, "p": "a"} for x in numbers], tmp_path)
    calls = "distinct='distinct(x)' set='set(x)' frequency='frequency(x)' quantiles='quantiles(x)' id='sample(p, x)'"
    (row,) = collect(f"ingest {path} --batch-bytes {cut[0]} | sketch {calls} v='sample(x, n, 2000)'", resumed_every=cut[1]).rows
    texts = [str(int(x)) if x == int(x) else str(x) for x in numbers]
    for kind, parameter in (("distinct", 12), ("set", 4096), ("frequency", 2048)):
        assert row[kind] == PLAIN[kind](texts, parameter), kind
    assert row["quantiles"] == _quantiles(numbers, 0.01)
    assert _sampled(row["id"]) == ['"a"'] * len(set(texts))
    assert sorted(_sampled(row["v"])) == sorted(texts)


def _sampled(value: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in base64.b64decode(value)[20:].decode().split("\n")]


@pytest.mark.parametrize("kind", PLAIN)
@given(chance=st.data())
@settings(max_examples=examples(60), deadline=None)
def test_merged_in_any_order_and_grouping_they_are_one_pass(kind: str, chance: st.DataObject) -> None:
    """Exactly, also sets that keep a part of their hashes: and union is the same as merge."""
    parameter = chance.draw(st.sampled_from(PARAMETERS[kind]))
    groups = [_drawn(chance, kind) for _ in range(chance.draw(st.integers(1, 8)))]
    whole = PLAIN[kind]([value for values in groups for value in values], parameter)
    parts = chance.draw(st.permutations(_column(kind, parameter, groups).to_list()))
    paired = list(parts)
    while len(parts) > 1:
        cuts = [chance.draw(st.integers(0, 2)) for _ in parts]
        merged = united(pl.Series(parts), pl.Series(cuts))
        assert set(merged[GROUP]) == set(cuts)
        if len(merged) == len(parts):
            break
        parts = merged.sort(GROUP)["\0value"].to_list()
    assert united(pl.Series(parts), pl.Series([0] * len(parts)))["\0value"].item() == whole
    while len(paired) > 1:
        first, second, *rest = paired
        paired = [*rest, union(pl.Series([first]), pl.Series([second])).item()]
    assert paired == [whole]
    # What counts differences heeds no repeats, what counts records does.
    doubled = [value for values in groups for value in (*values, *values)]
    assert union(pl.Series([whole]), pl.Series(paired)).item() == PLAIN[kind](doubled, parameter)


_RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "ts": st.integers(0, 60_000).map(lambda step: 1_700_000_000_000 + step),
            "page": st.sampled_from(["/a", "/b", None]),
            "user": st.integers(0, 40).map(str) | st.none(),
            "ms": st.integers(-50, 50) | st.none(),
        }
    ),
    min_size=1,
    max_size=60,
)


@given(records=_RECORDS, batch=st.sampled_from([1, 150, 1 << 20]), resumed=st.sampled_from([0, 1, 3]))
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_windows_merged_are_the_whole(records: list[dict[str, Any]], batch: int, resumed: int, tmp_path: Path) -> None:
    """However records are cut into batches, and stopped and resumed between them: sketches and merges are state."""
    path = written(records, tmp_path)
    ingest = (
        f"ingest {path} --time ts --columns n:int,ts:int,page:str,user:str,ms:int --max-out-of-orderness 1h --batch-bytes {batch}"
    )
    calls = "d='distinct(user, 8)' s='set(user, 16)' q='quantiles(ms)'"
    merges = "d='merge(d)' s='merge(s)' q='merge(q)'"
    line = f"{ingest} | window tumble 10s | sketch --by page {calls} | aggregate --by page {merges}"
    found = {row["page"]: row for row in collect(line, resumed_every=resumed).rows}
    assert set(found) == {record["page"] for record in records}
    for page, row in found.items():
        mine = [record for record in records if record["page"] == page]
        users = [record["user"] for record in mine if record["user"] is not None]
        assert row["d"] == _distinct(users, 8)
        assert row["s"] == _set(users, 16)
        assert row["q"] == _quantiles([record["ms"] for record in mine if record["ms"] is not None], 0.01)


@given(records=_RECORDS)
@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sketches_tell_what_estimates_tell(records: list[dict[str, Any]], tmp_path: Path) -> None:
    path = written(records, tmp_path)
    ingest = f"ingest {path} --columns n:int,ts:int,page:str,user:str,ms:int"
    sketches = "d='distinct(user)' q='quantiles(ms)' e='approx_distinct(user)'"
    told = "'estimate(d) AS u' 'estimate_lo(d) AS u_lo' 'estimate_hi(d) AS u_hi' 'quantile_of(q, 0.9) AS p'"
    asked = "u='approx_distinct(user)' p='approx_quantile(ms, 0.9)'"
    mine = collect(f"{ingest} | sketch --by page {sketches.rsplit(' ', 1)[0]} | select page {told}").rows
    assert mine == [
        {name: row[name] for name in ("page", "u", "u_lo", "u_hi", "p")}
        for row in collect(f"{ingest} | aggregate --by page --bounds {asked}").rows
    ]


# --- Sets ----------------------------------------------------------------------------------------------------------------


def _estimates(texts: pl.Series) -> list[int | None]:
    return answered(texts, "estimates", pl.Int64(), nothing=0).to_list()


@given(first=st.lists(_TEXTS, min_size=3, max_size=3), second=st.lists(_TEXTS, min_size=3, max_size=3))
@settings(max_examples=examples(60), deadline=None)
def test_small_sets_are_exact(first: list[list[str]], second: list[list[str]]) -> None:
    one, other = _column("set", 4096, first), _column("set", 4096, second)
    pairs = [(set(a), set(b)) for a, b in zip(first, second, strict=True)]
    assert _estimates(union(one, other)) == [len(a | b) for a, b in pairs]
    assert _estimates(combined(one, other, "intersection")) == [len(a & b) for a, b in pairs]
    assert _estimates(combined(one, other, "difference")) == [len(a - b) for a, b in pairs]


def test_large_sets_are_within_their_error() -> None:
    """Of 20 pairs of 20,000 with 4,000 in common: within three standard deviations, and right on the average."""
    k, offs = 1_024, []
    for seed in range(20):
        a = [f"{seed}-{n}" for n in range(20_000)]
        b = [f"{seed}-{n}" for n in range(16_000, 36_000)]
        one, other = _column("set", k, [a]), _column("set", k, [b])
        for found, true in (
            (union(one, other), 36_000),
            (combined(one, other, "intersection"), 4_000),
            (combined(one, other, "difference"), 16_000),
        ):
            # Of the k values that are kept of the union, those of the answer are as if drawn.
            deviation = math.sqrt(36_000 / true / k)
            off = _estimates(found)[0] / true - 1  # type: ignore[operator]  # none is null
            assert abs(off) < 3.5 * deviation, (seed, true, off)
            offs.append(off / deviation)
    assert abs(sum(offs) / len(offs)) < 3 / math.sqrt(20)
    assert 0.3 < sum(off * off for off in offs) / len(offs) < 1.5


@pytest.mark.parametrize("share", [1e-4, 0.01, 0.3, 0.9])
@pytest.mark.parametrize("true", [0, 1, 3, 10, 50, 1_000, 30_000])
def test_bounds_of_sets_hold_the_truth_in_95_of_100(true: int, share: float) -> None:
    """Of sets of `true` values, each of which is among the hashes with a probability: also where hardly any is."""
    theta, seeds = int(share * ALL), 3_000
    found = np.random.default_rng(true).binomial(true, share, seeds)[: 3_000_000 // (1 + int(true * share))]
    groups = np.arange(found.size, dtype=np.uint32)
    schema = {GROUP: pl.UInt32, SUB_KEY: pl.UInt64, "theta": pl.UInt64}
    said = pl.DataFrame({GROUP: groups, SUB_KEY: None, "theta": theta}, schema=schema)
    hashes = pl.DataFrame({GROUP: np.repeat(groups, found), SUB_KEY: 1, "theta": None}, schema=schema)
    rows, sketch = pl.concat([said, hashes]), Set("str")
    lows, highs = (told.sort(GROUP)[VALUE].to_numpy() for told in (sketch.lows(rows), sketch.highs(rows)))
    assert (lows >= found).all()
    assert (highs > lows).all()
    assert ((lows <= true) & (true <= highs)).mean() >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / found.size)


@pytest.mark.parametrize(
    ("k", "size", "common"), [(16, 300, 5), (16, 300, 150), (256, 2_000, 4), (256, 2_000, 40), (256, 2_000, 0)]
)
def test_bounds_of_intersections_and_differences(k: int, size: int, common: int) -> None:
    """Of 200 pairs of sets: as many hashes as few values have in common, or none at all."""
    seeds = 200
    starts = np.arange(seeds)[:, None] * 3 * size
    first, second = (starts + np.arange(size) + off for off in (0, size - common))
    one, other = (_of_integers(k, values) for values in (first, second))
    for question, true in (("intersection", common), ("difference", size - common)):
        found = combined(one, other, question)
        low, value, high = (answered(found, told, pl.Int64(), nothing=0) for told in ("lows", "estimates", "highs"))
        assert ((low >= 0) & (low <= value) & (value <= high) & (high > 0)).all()
        assert ((low <= true) & (true <= high)).mean() >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / seeds)


def _of_integers(k: int, groups: np.ndarray[Any, Any]) -> pl.Series:
    call = Call("v", Set("int", k), pl.col("x"))
    summary = Summary(["g"], [call], {})
    frame = pl.DataFrame({"g": np.repeat(np.arange(groups.shape[0]), groups.shape[1]), "x": groups.ravel()})
    summary.add(frame.select("g", *call.inputs()), pl.lit(0))
    return summary.values(lambda rows: rows).sort("g")["v"]


def test_what_is_left_of_sets_goes_on_being_a_set() -> None:
    """Empty intersections of parts of hashes have a theta, which a later union must heed."""
    a, b, c = (_column("set", 16, [[f"{name}{n}" for n in range(500)]]) for name in "abc")
    nothing = combined(a, b, "intersection")
    assert _estimates(nothing) == [0]
    both = union(nothing, c)
    assert _estimates(both)[0] == pytest.approx(500, rel=1)
    assert _estimates(combined(both, c, "difference")) == [0]
    assert union(c, nothing).equals(both)


# --- What is refused ------------------------------------------------------------------------------------------------------

SAMPLES = {
    "distinct": _one("distinct", 12, ["a", "b", "c"]),
    "distinct, dense": _one("distinct", 4, [str(n) for n in range(50)]),
    "set": _one("set", 16, [str(n) for n in range(40)]),
    "set of one": _one("set", 4096, ["a"]),
    "quantiles": _one("quantiles", 0.01, [1.0, -2.0, 0.0]),
    "top_k": _one("top_k", 3, ["a", "é", "a"]),
    "frequency": _one("frequency", 16, ["a", "b"]),
    "similarity": _one("similarity", 16, ["a", "b"]),
    "nothing": _one("distinct", 12, []),
}


def _opened(data: bytes) -> None:
    for part in opened(pl.Series([base64.b64encode(data).decode()])):
        assert part.rows is not None


@pytest.mark.parametrize("name", SAMPLES)
def test_a_changed_bit_anywhere_is_noticed(name: str) -> None:
    data = base64.b64decode(SAMPLES[name])
    _opened(data)
    for place in range(len(data)):
        for bit in range(8):
            with pytest.raises(DataError):
                _opened(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])


@pytest.mark.parametrize("name", SAMPLES)
def test_a_cut_or_a_longer_value_is_noticed(name: str) -> None:
    data = base64.b64decode(SAMPLES[name])
    for size in range(len(data)):
        with pytest.raises(DataError):
            _opened(data[:size])
    for more in (b"\0", b"\0" * 4, data):
        with pytest.raises(DataError):
            _opened(data + more)


# Of what would be read as a number and a value, all but one spelling.
WRONG_NUMBERS = [b'+1 "a"', b'0001 "a"', b" 1 1", b"1 1.50", b"1 1E+50", b"1 1e50", b"1 01"]
WRONG_LINES = [*WRONG_NUMBERS, b'1  "a"', b'1 "\\u0041"', b'1 "\\/"', b'1 {"a": 1}', b'1 "a"\n']
WRONG_COUNTS = [*WRONG_LINES, b'2 "b"\n1 "a"', b'2 "a"\n1 "a"', b"9007199254740993 1"]
WRONG_LOTS = [*WRONG_LINES, b'2 "a"\n1 "b"', b'1 "a"\n1 "b"', b"5 "]
_SET = bytes([2, 3, 3, 0, 0, 0x1A, 0xCC, 0x93])
FORGED = {
    "a later version": (_value(1, 12, b"", version=2), "format version 2"),
    "another hash": (_value(1, 12, b"", hash_=2), "hash 2, seed 9001"),
    "another seed": (_value(1, 12, b"", seed=1), "hash 1, seed 1"),
    "an unknown kind": (_value(99, 12, b""), "kind 99"),
    "no such precision": (_value(1, 30, b""), "precision is from"),
    "no number": (_value(1, math.nan, b""), "damaged"),
    "infinite": (_value(2, math.inf, b""), "damaged"),
    "half a precision": (_value(1, 12.5, b""), "damaged"),
    "half a record": (_value(1, 12, b"abc"), "ends in the middle"),
    "no such register": (_value(1, 12, struct.pack("<I", 4096 << 8 | 1)), "no such register"),
    "no such rank": (_value(1, 12, struct.pack("<I", 54)), "no such register"),
    "a register without rank": (_value(1, 12, struct.pack("<I", 7 << 8)), "no such register"),
    "half a bucket": (_value(3, 0.01, b"\0" * 13), "ends in the middle"),
    "no such bucket": (_value(3, 0.01, struct.pack("<iq", 2**31 - 1, 1)), "no such cell or bucket"),
    "no such negative bucket": (_value(3, 0.01, struct.pack("<iq", -(2**31), 1)), "no such cell or bucket"),
    "no such cell": (_value(5, 16, struct.pack("<Iq", 64, 1)), "no such cell or bucket"),
    "a count beyond 2**53": (_value(3, 0.01, struct.pack("<iq", 5, 2**53 + 1)), "too much"),
    "a count below zero": (_value(3, 0.01, struct.pack("<iq", 5, -1)), "damaged"),
    "a bucket twice": (_value(3, 0.01, struct.pack("<iqiq", 5, 1, 5, 1)), "damaged"),
    "no theta sketch": (_value(2, 16, b"\1\2\3\4\5\6\7\x08"), "theta"),
    "a set without bytes": (_value(2, 16, b""), "theta"),
    "a set out of order": (_value(2, 16, _SET + struct.pack("<QQQ", 2, 7, 5)), "not in order"),
    "a set with a hash twice": (_value(2, 16, _SET + struct.pack("<QQQ", 2, 5, 5)), "not in order"),
    "a set beyond its theta": (_value(2, 16, b"\3" + _SET[1:] + struct.pack("<QQQ", 1, 5, 7)), "theta excludes"),
    "a set that ends before its theta": (_value(2, 16, b"\3" + _SET[1:]), "theta"),
    "a register twice": (_value(1, 12, struct.pack("<II", 7 << 8 | 1, 7 << 8 | 2)), "not in order"),
    "a set of less than it says": (_value(2, 16, _SET + struct.pack("<QQ", 2, 5)), "theta"),
    "a set of so many that their size wraps": (_value(2, 1 << 20, _SET + struct.pack("<QQQ", 2**29 + 2, 5, 7)), "theta"),
    "a set of one as one of many": (_value(2, 16, _SET + struct.pack("<QQ", 1, 5)), "theta"),
    "a set of too many": (_value(2, 16, _SET + struct.pack("<18Q", 17, *range(1, 18))), "theta"),
    "a set with theta 0": (_value(2, 16, b"\3" + _SET[1:] + struct.pack("<QQ", 0, 0)), "theta"),
    "a set of all, with theta": (_value(2, 16, b"\3" + _SET[1:] + struct.pack("<QQQ", 1, 2**63 - 1, 5)), "theta"),
    "a set with hash 0": (_value(2, 16, _SET + struct.pack("<QQQ", 2, 0, 5)), "a hash that is none"),
    "a set, big-endian": (_value(2, 16, _SET[:5] + b"\x1b" + _SET[6:] + struct.pack("<QQQ", 2, 5, 7)), "theta"),
    "a set of another seed": (_value(2, 16, _SET[:6] + b"\0\0" + struct.pack("<QQQ", 2, 5, 7)), "theta"),
    "many registers one by one": (_value(1, 4, b"".join(struct.pack("<I", i << 8 | 1) for i in range(16))), "not written so"),
    "few registers among all": (_value(1, 4, b"\1" + bytes(15)), "not written so"),
    **{f"counted lines {lines!r}": (_value(4, 3, lines), "damaged") for lines in WRONG_COUNTS},
    **{f"drawn lines {lines!r}": (_value(7, 3, lines), "damaged") for lines in WRONG_LOTS},
    "a sample of too many": (_value(7, 1, b"1 1\n2 1"), "too many"),
    "too many values": (_value(4, 1, b"\n".join(sorted(b"1 %d" % value for value in range(1_002)))), "too many"),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_cannot_be_is_refused_also_if_its_check_is_right(name: str) -> None:
    text, why = FORGED[name]
    with pytest.raises(DataError, match=why):
        _opened(base64.b64decode(text))


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (
            _one("distinct", 12, ["a"]),
            _one("distinct", 14, ["a"]),
            "(?m)unlike sketches: distinct with precision 12, and distinct with precision 14$",
        ),
        (
            _one("set", 16, ["a"]),
            _one("set", 32, ["a"]),
            r"set with k 16, and set with k 32; sketch_from\(text, 'apache', k\) says which",
        ),
        (_one("quantiles", 0.01, [1.0]), _one("quantiles", 0.02, [1.0]), "accuracy 0.01, and quantiles with accuracy 0.02"),
        (_one("quantiles", 0.01, [1.0]), _one("quantiles", 0.01 + 1e-17, [1.0]), "accuracy 0.01, and .* 0.01000000000000001"),
        (_one("set", 4096, ["a"]), _one("distinct", 12, ["a"]), "(?m)set with k 4096, and distinct with precision 12$"),
    ],
    ids=["precision", "k", "accuracy", "accuracies that are nearly one", "kind"],
)
def test_unlike_ones_are_refused_with_both_named(one: str, other: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        united(pl.Series([one, other]), pl.Series([0, 0]))
    with pytest.raises(DataError, match=said):
        union(pl.Series([one]), pl.Series([other]))


ANY = [
    *SAMPLES.values(),
    *(text for text, _ in FORGED.values()),
    _one("distinct", 14, ["a"]),
    _one("set", 16, ["b"]),
    "x",
    "",
    None,
]
QUESTIONS = (
    "union(a, b)",
    "intersect(a, b)",
    "similarity(a, b)",
    "estimate(a)",
    "estimate_lo(union(a, b))",
    "quantile_of(a, 0.5)",
    "top_of(a)",
    "export(a, 'apache')",
    "sketch_from(a, 'apache')",
)


def _fates(rows: Sequence[tuple[str | None, str | None]], expr: pl.Expr) -> tuple[list[Any], list[str]]:
    """The values of these records, and why the others are dead letters."""
    frame = pl.DataFrame(rows, schema={"a": pl.String, "b": pl.String}, orient="row")
    _, values, dead = compute(Batch(frame, Columns({"a": "str", "b": "str"})), [expr.alias("v")])
    return values["v"].to_list(), dead.reason if dead else []


@pytest.mark.parametrize("question", [*QUESTIONS, "merge"])
@given(rows=st.lists(st.tuples(st.sampled_from(ANY), st.sampled_from(ANY)), min_size=1, max_size=12))
@settings(max_examples=examples(60), deadline=None)
def test_a_record_is_judged_by_itself(question: str, rows: list[tuple[str | None, str | None]]) -> None:
    """Whatever kinds, and whatever that is none, stand in the other records of its batch."""
    columns = Columns({"a": "str", "b": "str"})
    expr = Merge("str").prepared(pl.col("a")) if question == "merge" else compile(question, columns).expr
    alone = [_fates([row], expr) for row in rows]
    values = [value for some, _ in alone for value in some]
    assert _fates(rows, expr) == (values, [reason for _, some in alone for reason in some])


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.sampled_from([*SAMPLES.values(), None])), min_size=1, max_size=12),
)
@settings(max_examples=examples(60), deadline=None)
def test_only_sketches_of_one_group_must_be_alike(rows: list[tuple[int, str | None]]) -> None:
    groups, texts = (pl.Series(column) for column in zip(*rows, strict=True))
    texts = texts.cast(pl.String)
    mine = {group: texts.filter(groups == group) for group in groups}
    if any(len(opened(some)) > 1 for some in mine.values()):
        with pytest.raises(DataError, match="unlike sketches"):
            united(texts, groups)
        return
    alone = {group: united(some, groups.filter(groups == group)).rows() for group, some in mine.items()}
    assert sorted(united(texts, groups).rows()) == sorted(row for some in alone.values() for row in some)


def test_hlls_have_no_intersection() -> None:
    one = pl.Series([_one("distinct", 12, ["a"])])
    with pytest.raises(DataError, match="only sketches of kind set tell this, and one is distinct with precision 12"):
        combined(one, one, "intersection")


def test_the_manual_has_a_worked_example() -> None:
    """Its values are those of the format, and the bytes that it shows are theirs."""
    page = (Path(__file__).parent.parent / "man/clickpipe-sketch.5").read_text()
    shown = page[page.index(".SH EXAMPLE") : page.index(".SH OTHER")]
    for kind, parameter in (("distinct", 12), ("set", 4096)):
        value = _one(kind, parameter, ["ada", "bob"])
        assert value == PLAIN[kind](["ada", "bob"], parameter)
        text = shown[shown.index(value) + len(value) :]
        bytes_ = "".join(line[:27].split("    ")[0] for line in text[: text.index(".fi")].splitlines())
        assert bytes.fromhex(bytes_.replace(" ", "")) == base64.b64decode(value)


_JSON = st.text() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()


@given(values=st.lists(_JSON, max_size=20))
@settings(max_examples=examples(100), deadline=None)
def test_no_spelling_of_ours_is_refused(values: list[Any]) -> None:
    """Of values as the records have them, and as Polars writes columns of them."""
    texts = {orjson.dumps([value, {"a": value}]).decode() for value in values}
    for type_ in (str, float, bool):
        mine = pl.DataFrame({"v": [value for value in values if type(value) is type_]}, schema={"v": POLARS[type_]})
        texts |= set(mine.select(json_of(pl.col("v"))).to_series())
        texts |= set(mine.select(hashing.text_of(pl.col("v"))).to_series()) if type_ is float else set()
    lines = "\n".join(f"1 {text}" for text in sorted(texts, key=str.encode))
    _opened(base64.b64decode(_value(4, 100, lines.encode())))


@pytest.mark.parametrize("merge", ["merged", "in pairs"])
def test_counts_beyond_all_counting_neither_wrap_nor_vanish(merge: str) -> None:
    """Forged ones: nobody has seen so many values. 2**53 is as often as anything came."""
    most = 2**53
    first, step = (half & 2**32 - 1 for half in _halves("x"))
    cells = sorted((first + row * step) % 16 + row * 16 for row in range(4))
    columns: list[tuple[str, str, Any, list[Any]]] = [
        (_value(4, 3, f'{most} "x"\n1 "y"'.encode()), "tops", pl.String(), [None]),
        (_value(3, 0.01, b"".join(struct.pack("<iq", place, most) for place in range(2_000))), "quantiles", pl.Float64(), [0, 1]),
        (_value(5, 16, b"".join(struct.pack("<Iq", cell, most) for cell in cells)), "frequencies", pl.Int64(), ["x"]),
    ]
    for text, question, type_, asked in columns:
        many = pl.Series([text] * 1_500)
        merged = united(many, pl.Series([0] * 1_500))["\0value"] if merge == "merged" else union(many[:1], many[:1])
        for more in asked:
            found, alone = (answered(one, question, type_, more).item() for one in (merged, many[:1]))
            if question == "tops":
                assert [one["value"] for one in json.loads(found)] == ["x", "y"]
                assert json.loads(found)[0]["count"] == most
            else:
                assert found == alone is not None


# --- Nulls, and many ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height", [0, 1, 3])
def test_of_nulls_there_are_nulls(height: int) -> None:
    nulls = pl.Series("s", [None] * height, dtype=pl.String)
    sketches = pl.Series("s", [SAMPLES["set"]] * height, dtype=pl.String)
    assert union(nulls, sketches).equals(nulls)
    assert combined(sketches, nulls, "intersection").equals(nulls)
    assert answered(nulls, "estimates", pl.Int64(), nothing=0).to_list() == [None] * height
    assert united(nulls, pl.Series(range(height), dtype=pl.UInt32)).height == 0


def test_kinds_side_by_side_in_one_column() -> None:
    """Each is asked by itself; only what goes together must be alike."""
    texts = pl.Series([SAMPLES["set of one"], None, SAMPLES["distinct"], SAMPLES["nothing"], SAMPLES["distinct, dense"]])
    found = _estimates(texts)
    assert found[:4] == [1, None, 3, 0]
    assert found[4] is not None


def test_many_groups_keep_their_own() -> None:
    """2,000 groups of different sizes, some full: as if each had been made alone."""
    chance = random.Random(7)
    groups = [[str(chance.randrange(500)) for _ in range(chance.choice([0, 1, 2, 5, 40]))] for _ in range(2_000)]
    for kind, parameter in (("distinct", 5), ("set", 16)):
        found = _column(kind, parameter, groups, parts=3)
        assert found.to_list() == [PLAIN[kind](values, parameter) for values in groups]
        twice = union(found, found.reverse().reverse())
        assert twice.equals(found)
        assert united(found, pl.Series(range(2_000))).sort(GROUP)["\0value"].to_list() == found.to_list()
