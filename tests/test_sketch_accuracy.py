"""Approximate functions stay within what they publish, on friendly and on unfriendly data."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
from datasets import DATA
from examples import IS_THOROUGH
from numpy.typing import NDArray

from clickpipe.aggregates.quantile_disc import QuantileDisc
from clickpipe.core.buckets import Buckets
from clickpipe.core.counters import Counters
from clickpipe.core.registers import Registers
from clickpipe.core.summary import Call, Summary

EXTREME = [0.0, 1.0, -1.0, 1.7976931348623157e308, -1.79e308, 2.2250738585072014e-308]
QUANTILES = [0.0, 0.001, 0.01, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0]


def _value(aggregate: Any, values: NDArray[Any], *, parts: int = 1) -> Any:
    call = Call("v", aggregate, pl.col("x"))
    summary = Summary([], [call], {})
    for part in np.array_split(values, parts):
        summary.add(pl.DataFrame({"x": part}).select(call.inputs()), pl.lit(0))
    value = summary.values(lambda rows: rows)["v"].item()
    return value.to_list() if isinstance(value, pl.Series) else value


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("accuracy", [0.01, 0.001])
def test_quantiles_are_within_their_relative_error(name: str, accuracy: float) -> None:
    """Of what the exact function gives, at every quantile of every data, not only on average; and the same merged from parts."""
    for n in (1, 2, 3, 5, 7, 100, 20_000, *([3_000_000] if IS_THOROUGH else [])):
        values = DATA[name](np.random.default_rng(n), n)
        found = _value(Buckets("float", QUANTILES, accuracy), values)
        for q, estimate, true in zip(QUANTILES, found, _value(QuantileDisc("float", QUANTILES), values), strict=True):
            assert abs(estimate - true) <= accuracy * abs(true) * (1 + 1e-9), (n, q)
        assert _value(Buckets("float", QUANTILES, accuracy), values, parts=7) == found


@pytest.mark.parametrize("name", [*DATA, "edges"])
@pytest.mark.parametrize("accuracy", [0.001, 0.01, 0.1, 0.2])
def test_bounds_of_quantiles_hold_every_value(name: str, accuracy: float) -> None:
    """Each is a group of its own: the bounds are certain, and no value may be beyond them."""
    gamma = (1 + accuracy) / (1 - accuracy)
    edges = [gamma**power for power in range(-50, 50)]
    values = np.array(edges) if name == "edges" else DATA[name](np.random.default_rng(1), 20_000)
    frame = pl.DataFrame({"x": np.concatenate([values, -values, EXTREME])}).with_row_index("g")
    aggregate = Buckets("float", [0.5], accuracy)
    call = Call("v", aggregate, pl.col("x"))
    summary = Summary(["g"], [call], {})
    summary.add(frame.select("g", *call.inputs()), pl.lit(0))
    bounds = aggregate.bounds(pl.col("v"))
    assert bounds is not None
    low, high = (bound.list.first() for bound in bounds)
    found = frame.join(summary.values(lambda rows: rows), on="g").with_columns(low=low, high=high)
    assert found.height == frame.height
    assert found.filter((pl.col("x") < pl.col("low")) | (pl.col("x") > pl.col("high"))).rows() == []
    assert found.select((pl.col("low").is_finite() & pl.col("high").is_finite()).all()).item()


@pytest.mark.parametrize(("count", "seeds"), [(1, 30), (10, 60), (1_000, 60), (12_000, 60), (100_000, 40), (1_000_000, 8)])
@pytest.mark.parametrize("precision", [10, 12, 14])
def test_distinct_values_are_within_three_standard_errors(count: int, seeds: int, precision: int) -> None:
    """Over many seeds: no bias to be seen, the spread that is published, and no outlier beyond five."""
    sigma = 1.04 / math.sqrt(2**precision)
    errors = []
    for seed in range(seeds):
        values = np.arange(seed * count, (seed + 1) * count, dtype=np.int64)
        errors.append(_value(Registers("int", precision), values) / count - 1)
    rms = math.sqrt(sum(error * error for error in errors) / seeds)
    rounding = 0.5 / count
    assert rms <= 1.35 * sigma + rounding
    assert abs(sum(errors) / seeds) <= 3 * sigma / math.sqrt(seeds) + rounding
    assert max(map(abs, errors)) <= 5 * sigma + rounding


@pytest.mark.slow
def test_ten_million_distinct_values() -> None:
    found = _value(Registers("int", 12), np.arange(10_000_000, dtype=np.int64), parts=20)
    assert abs(found / 10_000_000 - 1) <= 3 * 1.04 / 64


@pytest.mark.parametrize("precision", [8, 12, 14])
@pytest.mark.parametrize("count", [5, 2_000, 9_000, 60_000])
def test_the_registers_and_their_estimate_are_those_of_a_well_known_library(precision: int, count: int) -> None:
    """Register by register, with the hash function that core/registers.py says; its estimate goes by tables."""
    from datasketch import HyperLogLogPlusPlus

    from clickpipe.core import hashing

    call = Call("v", Registers("int", precision), pl.col("x"))
    frame = pl.DataFrame({"x": pl.Series(range(count), dtype=pl.Int64)})
    summary = Summary([], [call], {})
    summary.add(frame.select(call.inputs()), pl.lit(0))
    hashes = frame.select(hashing.hashed(pl.col("x").cast(pl.String)).cast(pl.String)).to_series().to_list()
    below = 2**precision - 1
    theirs = HyperLogLogPlusPlus(precision, hashfunc=lambda text: ((int(text) >> 64) & ~below) | (int(text) & below))
    for text in hashes:
        theirs.update(text)
    rows = summary.groups()
    ours = np.zeros(2**precision, np.int8)
    ours[rows["\0sub"].to_numpy()] = rows["\0v.rank"].to_numpy()
    assert (ours == theirs.reg).all()
    estimate = summary.values(lambda some: some)["v"].item()
    assert abs(estimate - theirs.count()) <= 0.75 * 1.04 / math.sqrt(2**precision) * count + 0.5


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("seed", [3, 4])
def test_frequent_values_and_their_error(name: str, seed: int) -> None:
    """count <= true <= count + error, error <= records / counters, and nothing frequent is missed."""
    n = 3_000_000 if IS_THOROUGH else 60_000
    values = DATA[name](np.random.default_rng(seed), n)
    true = Counter(values.tolist())
    top = _value(Counters("float", 20), values, parts=9)
    error = top[0]["error"]
    assert error <= n / 1_000
    given = {one["value"]: one["count"] for one in top}
    if None in given:  # nothing stands out
        assert (given, error > 0) == ({None: 0}, True)
    else:
        assert all(count <= true[value] <= count + error for value, count in given.items())
    least = min(given.values()) if len(given) == 20 else 0
    assert all(value in given for value, count in true.items() if count > least + error)
    assert (error == 0) == (len(true) <= 1_000)


def test_few_values_are_counted_exactly_in_every_group() -> None:
    """Where one group has too many different values and another has not, the other stays exact; and it is said of the one."""
    call = Call("v", Counters("int", 3), pl.col("x"))
    summary = Summary(["g"], [call], {})
    frame = pl.DataFrame({"g": [0] * 5_000 + [1] * 6, "x": [*range(5_000), 7, 7, 8, 7, 9, 8]})
    summary.add(frame.select("g", *call.inputs()), pl.lit(0))
    crowded, small = summary.values(lambda rows: rows).sort("g")["v"].to_list()
    assert small == [
        {"value": 7, "count": 3, "error": 0},
        {"value": 8, "count": 2, "error": 0},
        {"value": 9, "count": 1, "error": 0},
    ]
    assert crowded == [{"value": None, "count": 0, "error": 1}]
