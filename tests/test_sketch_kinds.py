"""top_k, frequency and similarity, against plain counting and datasketch; in any order and grouping, and within their bounds."""

from __future__ import annotations

import base64
import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import mmh3
import numpy as np
import polars as pl
import pytest
from datasets import DATA
from datasketch import LeanMinHash, MinHash
from examples import IS_THOROUGH, examples, some
from hypothesis import given, settings
from hypothesis import strategies as st

from clickpipe.core.asked import answered, compared, union
from clickpipe.core.exchange import exported, imported
from clickpipe.core.sketch import Sketch, kinds, opened
from clickpipe.core.summary import Call, Summary
from clickpipe.errors import DataError

KINDS: dict[str, Any] = {kind.name(): kind for kind in kinds().values()}
TYPES = {int: "int", float: "float", bool: "bool", str: "str"}
POLARS = {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "str": pl.String}


def _sketch(kind: str, values: list[Any], *more: Any, cuts: int = 1) -> pl.Series:
    """A column of the one sketch of these values, which come in so many batches."""
    type_ = TYPES[type(values[0])] if values else "str"
    call = Call("v", KINDS[kind](type_, *more), pl.col("x"), more=more)
    summary = Summary([], [call], {})
    for number in range(cuts):
        frame = pl.DataFrame({"x": values[number::cuts]}, schema={"x": POLARS[type_]})
        summary.add(frame.select(call.inputs()), pl.lit(0))
    return summary.values(lambda rows: rows)["v"]


def _tops(sketch: pl.Series, k: int | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(answered(sketch, "tops", pl.String(), k, nothing="[]").item())
    return found


def _times(sketch: pl.Series, value: Any) -> int:
    return int(answered(sketch, "frequencies", pl.Int64(), value, nothing=0).item())


def _minhash(texts: list[str], permutations: int = 128) -> MinHash:
    made = MinHash(permutations, hashfunc=lambda data: mmh3.hash128(data, 9001, signed=False) & 0xFFFFFFFF)
    for text in texts:
        made.update(text.encode())
    return made


_VALUES = st.one_of(
    st.lists(st.text(max_size=3), max_size=60), st.lists(st.integers(-3, 3), max_size=60), st.lists(st.booleans(), max_size=20)
)


@given(_VALUES, st.integers(1, 4))
@settings(max_examples=examples(200), deadline=None)
def test_top_k_counts_exactly_where_there_are_few(values: list[Any], cuts: int) -> None:
    found = _tops(_sketch("top_k", values, cuts=cuts))
    counted = Counter(values)
    assert [one["count"] for one in found] == sorted(counted.values(), reverse=True)[:10]
    assert all(counted[one["value"]] == one["count"] and one["error"] == 0 for one in found)
    assert _tops(_sketch("top_k", values, cuts=cuts), 2) == found[:2]


@pytest.mark.parametrize("seed", range(3))
def test_top_k_of_many_values_is_within_its_bound(seed: int) -> None:
    """Also when sketches of parts are merged."""
    chance = random.Random(seed)
    values = [f"v{int(chance.paretovariate(0.6)) % 20_000}" for _ in range(60_000)]
    parts = [_sketch("top_k", values[number::3], 20) for number in range(3)]
    found = _tops(union(union(parts[0], parts[1]), parts[2]))
    counted = Counter(values)
    error = found[0]["error"]
    assert 0 < error <= len(values) / 1_000
    assert len(found) == 20
    assert all(one["count"] <= counted[one["value"]] <= one["count"] + error for one in found)
    least = found[-1]["count"] + error
    assert {value for value, count in counted.items() if count > least} <= {one["value"] for one in found}


def test_a_number_and_its_text_are_two_values() -> None:
    assert _tops(_sketch("top_k", [7, 7]))[0]["value"] == 7
    assert _tops(_sketch("top_k", ["7", "7"]))[0]["value"] == "7"
    assert _tops(_sketch("top_k", ['a "b"\n', "\u2028"]))[1]["value"] == "\u2028"
    assert _tops(union(_sketch("top_k", [7]), _sketch("top_k", [7.0])))[0] == {"value": 7, "count": 2, "error": 0}


@given(_VALUES, st.integers(1, 4))
@settings(max_examples=examples(200), deadline=None)
def test_frequencies_are_never_too_few(values: list[Any], cuts: int) -> None:
    sketch = _sketch("frequency", values, 64, cuts=cuts)
    counted = Counter(values)
    assert all(_times(sketch, value) >= count for value, count in counted.items())
    assert all(_times(sketch, value) <= len(values) for value in counted)


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("seed", some(range(3), 3))
def test_frequencies_are_within_their_bound(name: str, seed: int) -> None:
    """Too many by more than e / width of all: for no more than 2 % of the values, of every data."""
    values = [repr(x) for x in DATA[name](np.random.default_rng(seed), 1_000_000 if IS_THOROUGH else 30_000).tolist()]
    sketch = union(_sketch("frequency", values[:20_000]), _sketch("frequency", values[20_000:]))
    counted = Counter(values)
    met = sorted(counted)
    asked = random.Random(seed).sample(met, min(60, len(met))) + [f"never {number}" for number in range(60)]
    off = [_times(sketch, value) - counted[value] for value in asked]
    assert min(off) >= 0
    assert sum(one > 2.72 / 2_048 * len(values) for one in off) <= 0.02 * len(asked) + 2
    assert _times(sketch, counted.most_common(1)[0][0]) < 1.01 * counted.most_common(1)[0][1] + 70


@given(st.lists(st.text(max_size=4), max_size=40), st.integers(1, 3))
@settings(max_examples=examples(60), deadline=None)
def test_similarity_has_the_hashes_of_datasketch(texts: list[str], cuts: int) -> None:
    """And reads and writes its bytes."""
    ours, theirs = _sketch("similarity", texts, 32, cuts=cuts), _minhash(texts, 32)
    payload = opened(ours)[0].payloads.item()
    assert list(memoryview(payload).cast("I")) == theirs.hashvalues.tolist()
    lean = LeanMinHash(theirs)
    image = bytearray(lean.bytesize("<"))
    lean.serialize(image, "<")
    assert base64.b64decode(exported(ours, "datasketch").item()) == bytes(image)
    assert imported(pl.Series([base64.b64encode(bytes(image)).decode()]), "datasketch", None).item() == ours.item()


@pytest.mark.parametrize("kind", ["similarity", "set"])
def test_similarity_is_within_its_bound(kind: str) -> None:
    """Three standard deviations, of pairs that have nothing, something and all in common."""
    deviation = 0.5 / 128**0.5 if kind == "similarity" else 0.5 / 4_096**0.5
    for begin in (0, 2_000, 5_000, 8_000, 10_000):
        one, other = ([f"u{number}" for number in range(at, at + 10_000)] for at in (0, begin))
        alike = (10_000 - begin) / (10_000 + begin)
        found = compared(_sketch(kind, one), _sketch(kind, other), "similarity", pl.Float64()).item()
        assert abs(found - alike) <= 3 * deviation, (begin, found)
    assert compared(_sketch(kind, []), _sketch(kind, []), "similarity", pl.Float64()).item() is None
    assert compared(_sketch(kind, []), _sketch(kind, ["a"]), "similarity", pl.Float64()).item() == 0


@pytest.mark.parametrize("kind", ["top_k", "frequency", "similarity"])
def test_merging_parts_is_the_sketch_of_the_whole(kind: str) -> None:
    values = [f"v{number % 37}" for number in range(500)]
    parts = [_sketch(kind, values[at::5]) for at in range(5)]
    whole = parts[0]
    for part in parts[1:]:
        whole = union(part, whole)
    assert whole.item() == _sketch(kind, values).item() == _sketch(kind, values[::-1], cuts=7).item()
    assert union(whole, _sketch(kind, [])).item() == whole.item()


def _sample(numbers: Sequence[int], k: int, cuts: int = 1, weights: Sequence[float | None] | None = None) -> pl.Series:
    """Of records with these numbers for their ids, and their tens for values."""
    call = Call("v", KINDS["sample"]("int", k), pl.col("x"), by=pl.struct(order="id", weight="w"), more=(k,))
    summary = Summary([], [call], {})
    records = pl.DataFrame({"id": list(numbers), "w": [1.0] * len(numbers) if weights is None else weights}, strict=False)
    records = records.cast({"id": pl.Int64, "w": pl.Float64}).with_columns(x=pl.col("id") // 10 * 10)
    for number in range(cuts):
        summary.add(records.gather_every(cuts, number).select(call.inputs()), pl.lit(0))
    return summary.values(lambda rows: rows)["v"]


def _drawn(sketch: pl.Series) -> list[int]:
    found: list[int] = json.loads(answered(sketch, "samples", pl.String(), nothing="[]").item())
    return found


def test_a_sample_is_of_so_many_and_each_is_as_likely() -> None:
    """Over many populations; three standard deviations."""
    hits: Counter[int] = Counter()
    for population in range(300):
        drawn = _drawn(_sample(range(population * 1_000, population * 1_000 + 100), 20))
        assert len(drawn) == 20
        hits.update(value % 1_000 for value in drawn)
    assert set(hits) == set(range(0, 100, 10))
    assert all(abs(count - 600) <= 3 * (600 * 0.8) ** 0.5 for count in hits.values()), hits


def test_what_weighs_more_is_drawn_more_often() -> None:
    """As much more often as it weighs more, where few of many are drawn; three standard deviations."""
    hits: Counter[int] = Counter()
    for population in range(300):
        numbers = range(population * 1_000, population * 1_000 + 1_000)
        drawn = _drawn(_sample(numbers, 20, weights=[1 + number % 1_000 // 250 for number in numbers]))
        hits.update(value % 1_000 // 250 for value in drawn)
    for quarter in range(4):
        share = (1 + quarter) / 10
        assert abs(hits[quarter] - 6_000 * share) <= 3 * (6_000 * share * (1 - share)) ** 0.5, hits


def _low(text: str) -> int:
    return mmh3.hash128(text.encode(), 9001, signed=False) & (2**64 - 1)


_WEIGHTS = st.floats(0, 1e9) | st.sampled_from([None, -1.0, math.nan, math.inf, 1e-300, 1e300, 0.0])


@given(weights=st.lists(_WEIGHTS, max_size=60), k=st.integers(1, 20), cuts=st.integers(1, 4))
@settings(max_examples=examples(60), deadline=None)
def test_a_weighted_sample_is_what_its_format_says(weights: list[float | None], k: int, cuts: int) -> None:
    lots = [
        (_low(str(number)) / 2**64 / min(max(weight, 1e-100), 1e100), number)
        for number, weight in enumerate(weights)
        if weight is not None and weight > 0
    ]
    drawn = _drawn(_sample(range(len(weights)), k, cuts, weights))
    assert drawn == [number // 10 * 10 for _, number in sorted(lots)[:k]]


def test_samples_merge_and_count_a_record_once() -> None:
    whole = _sample(range(500), 30)
    assert whole.item() == _sample(range(500), 30, cuts=7).item()
    assert union(_sample(range(300), 30), _sample(range(200, 500), 30)).item() == whole.item()
    assert sorted(_drawn(_sample(range(3), 30))) == [0, 0, 0]
    assert _drawn(_sample(range(0), 30)) == []


@pytest.mark.parametrize("kind", ["top_k", "frequency", "similarity"])
def test_what_the_payload_cannot_be_is_refused(kind: str) -> None:
    """Also where the check is right: whoever made it, made it wrong."""
    sketch: Sketch = KINDS[kind]("str")
    payload = opened(_sketch(kind, ["a", "b"]))[0].payloads.item()
    for wrong in (payload[:-1], payload + b"x", payload + payload, b"\xff" + payload, b"0 1\n" + payload):
        text = pl.DataFrame({"p": [wrong]}, schema={"p": pl.Binary}).select(sketch.sealed(pl.col("p"))).to_series()
        with pytest.raises(DataError, match="damaged"):
            opened(text)
