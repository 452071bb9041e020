"""Approximate functions stay within what they publish, on friendly and on unfriendly data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from clickpipe.aggregates.quantile_disc import QuantileDisc
from clickpipe.core.buckets import Buckets
from clickpipe.core.counters import Counters
from clickpipe.core.registers import Registers
from clickpipe.core.summary import Call, Summary

Data = Callable[[np.random.Generator, int], NDArray[np.float64]]
DATA: dict[str, Data] = {
    "uniform": lambda chance, n: chance.uniform(0, 1000, n),
    "lognormal": lambda chance, n: chance.lognormal(5, 2, n),
    "zipf": lambda chance, n: chance.zipf(1.3, n).astype(float),
    "sorted": lambda chance, n: np.sort(chance.exponential(100, n)),
    "constant": lambda chance, n: chance.choice([42.0], n),
    "few": lambda chance, n: chance.choice([1.0, 1.02, 1000.0], n),
    "ties": lambda chance, n: np.round(chance.normal(0, 3, n)),
    "negative": lambda chance, n: -chance.lognormal(0, 1, n),
    "zeros": lambda chance, n: chance.normal(0, 1, n) * chance.integers(0, 2, n),
    "huge": lambda chance, n: 10.0 ** chance.uniform(-300, 300, n),
}
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
    for n in (1, 2, 3, 5, 7, 100, 20_000):
        values = DATA[name](np.random.default_rng(n), n)
        found = _value(Buckets("float", QUANTILES, accuracy), values)
        for q, estimate, true in zip(QUANTILES, found, _value(QuantileDisc("float", QUANTILES), values), strict=True):
            assert abs(estimate - true) <= accuracy * abs(true) * (1 + 1e-9), (n, q)
        assert _value(Buckets("float", QUANTILES, accuracy), values, parts=7) == found


def test_bounds_of_quantiles_hold_the_true_value() -> None:
    values = DATA["zeros"](np.random.default_rng(1), 5_000)
    for q in QUANTILES:
        aggregate = Buckets("float", q)
        bounds = aggregate.bounds(pl.lit(_value(aggregate, values)))
        assert bounds is not None
        low, high = pl.select(low=bounds[0], high=bounds[1]).row(0)
        assert low - 1e-12 <= _value(QuantileDisc("float", q), values) <= high + 1e-12


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


@pytest.mark.parametrize("name", ["uniform", "zipf", "constant", "few", "ties"])
def test_frequent_values_and_their_error(name: str) -> None:
    """count <= true <= count + error, error <= records / counters, and nothing frequent is missed."""
    n = 60_000
    values = np.round(DATA[name](np.random.default_rng(3), n)).astype(np.int64) % 40_000
    true = Counter(values.tolist())
    top = _value(Counters("int", 20), values, parts=9)
    error = top[0]["error"]
    assert error <= n / 1_000
    for one in top:
        assert one["count"] <= true[one["value"]] <= one["count"] + error
    given = {one["value"] for one in top}
    least = min(one["count"] for one in top)
    assert all(value in given for value, count in true.items() if count > least + error)
    if len(true) <= 1_000:
        assert error == 0


def test_few_values_are_counted_exactly_in_every_group() -> None:
    """Where one group has too many different values and another has not, the other stays exact."""
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
    assert crowded is None or crowded[0]["error"] > 0
