"""Sums of doubles are exact until they are rounded once, in any order and grouping."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import polars as pl
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from clickpipe.core import exact
from clickpipe.core.aggregate import Aggregate
from clickpipe.core.catalog import Catalog

FUNCTIONS = Catalog("clickpipe.aggregates", "aggregate", "_")
_NUMBERS = st.lists(st.floats(-1e15, 1e15).filter(lambda x: x == 0 or abs(x) > 1e-15), min_size=1, max_size=40)


@given(_NUMBERS, st.integers(0, 2**32), st.integers(1, 10))
@settings(max_examples=examples(300), deadline=None)
def test_a_sum_is_rounded_once(numbers: list[float], seed: int, piece: int) -> None:
    """Shuffled and cut into pieces it is what Shewchuk's algorithm gives, to the last bit or its neighbour."""
    random.Random(seed).shuffle(numbers)
    parts = [
        pl.DataFrame({"x": numbers[at : at + piece]}).select(**exact.partial(pl.col("x"))) for at in range(0, len(numbers), piece)
    ]
    merged = pl.concat(parts).select(**exact.merge({name: pl.col(name) for name in exact.PIECES}))
    total = merged.select(exact.final({name: pl.col(name) for name in exact.PIECES})).item()
    assert math.isclose(total, math.fsum(numbers), rel_tol=3e-16, abs_tol=1e-30)
    whole = pl.DataFrame({"x": numbers}).select(**exact.partial(pl.col("x")))
    assert merged.rows() == whole.select(merged.columns).rows()


@given(st.lists(st.integers(-(10**6), 10**6).map(lambda n: n / 64), min_size=2, max_size=40), st.integers(1, 10))
@settings(max_examples=examples(60), deadline=None)
def test_variance_does_not_cancel(numbers: list[float], piece: int) -> None:
    """Around a mean of ten billion, where the schoolbook formula has no digit left."""
    numbers = [1e10 + number for number in numbers]
    variance = _value("var", "float", numbers, piece)
    expected = _variance(numbers, 1)
    assert math.isclose(variance, expected, rel_tol=1e-15)
    assert math.isclose(_value("stddev", "float", numbers, piece), math.sqrt(expected), rel_tol=1e-15)


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=40), st.integers(1, 10))
@settings(max_examples=examples(150), deadline=None)
def test_a_sum_of_any_doubles_is_one(numbers: list[float], piece: int) -> None:
    """Within the last digits of the largest of them: the smallest are not cut off, nor do the largest vanish."""
    off = abs(_value("sum", "float", numbers, piece) - math.fsum(numbers))
    assert off <= 1e-15 * len(numbers) * max(map(abs, numbers))


_WHOLE = st.integers(-(2**63), 2**63 - 1)
_REAL = st.floats(-1e24, 1e24).filter(lambda x: x == 0 or abs(x) > 1e-15)


@pytest.mark.parametrize("kind", ["int", "float"])
@given(chance=st.data(), piece=st.integers(1, 10))
@settings(max_examples=examples(150), deadline=None)
def test_variances_are_rounded_once(kind: str, chance: st.DataObject, piece: int) -> None:
    """Of integers of 64 bits, and of doubles up to 1e24, however large their mean is."""
    numbers = chance.draw(st.lists(_WHOLE if kind == "int" else _REAL, min_size=2, max_size=20))
    for name, less in (("var", 1), ("var_pop", 0)):
        found = _value(name, kind, numbers, piece)
        assert math.isclose(found, _variance(numbers, less), rel_tol=3e-16, abs_tol=1e-36), name


@given(st.lists(st.floats(1e-150, 1e-10), min_size=2, max_size=20), st.integers(1, 10))
@settings(max_examples=examples(60), deadline=None)
def test_variances_of_small_numbers(numbers: list[float], piece: int) -> None:
    """As by the formula in doubles, at the worst."""
    off = abs(_value("var", "float", numbers, piece) - _variance(numbers, 1))
    assert off <= 1e-15 * len(numbers) ** 2 * max(numbers) ** 2


def _variance(numbers: list[float], less: int) -> float:
    exactly = [Fraction(number) for number in numbers]
    mean = sum(exactly) / len(exactly)
    return float(sum((number - mean) ** 2 for number in exactly) / (len(exactly) - less))


def test_beyond_its_range_there_is_no_variance() -> None:
    assert _value("var", "float", [1e25, 1.0], 1) is None
    assert _value("var_pop", "float", [1.5e24], 1) is None
    assert _value("var", "float", [1.0], 1) is None


def test_the_known_traps_of_floating_point() -> None:
    assert _value("sum", "float", [0.1] * 10, 3) == 1.0
    assert _value("sum", "float", [1e16, 1.0, -1e16], 1) == 1.0
    assert _value("avg", "float", [1e16, 1.0, -1e16, 3.0], 2) == 1.0
    assert _value("sum", "float", [1e300, 1.0], 1) == 1e300


def test_counts_and_sums_of_integers_do_not_wrap_round() -> None:
    """Polars counts in 32 bits and sums in 64; pieces are wider than both."""
    assert _value("sum", "int", [2**62, 2**62, -(2**62)], 1) == 2**62
    frame = pl.DataFrame({"n": [3_000_000_000, 3_000_000_000]})
    count = FUNCTIONS.find("count", Aggregate)("*")
    assert frame.select(**count.merge({"n": pl.col("n")}))["n"].item() == 6_000_000_000


def _value(name: str, kind: str, numbers: list[float] | list[int], piece: int) -> float:
    """Through partial, merge and final, as a stream would go."""
    function = FUNCTIONS.find(name, Aggregate)(kind)
    frame = pl.DataFrame({"x": numbers}).select(function.prepared(pl.col("x")))
    parts = [frame[at : at + piece].select(**function.partial(pl.col("x"), pl.lit(0))) for at in range(0, len(numbers), piece)]
    pieces = {column: pl.col(column) for column in parts[0].columns}
    merged = pl.concat(parts).select(**function.merge(pieces))
    value: float = merged.select(function.final(pieces)).item()
    return value
