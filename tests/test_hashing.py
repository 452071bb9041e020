"""The one hash of sketches, whichever library computes it."""

from __future__ import annotations

from decimal import Decimal

import mmh3
import polars as pl
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from clickpipe.core import hashing

TEXTS = ["", "a", "abc", "user-4711", "é", "日本語", "🙂", "x" * 1000, None]
# Of the reference implementation, MurmurHash3_x64_128 with seed 9001: the first 64 bits, then the others.
GOLDEN = {"a": (17726747621663146543, 14204157431899926782)}
# What clickpipe-sketch(5) says of floats. Sketches that were written are of these texts: they cannot change.
FLOATS = {
    0.1: "0.1",
    -2.5: "-2.5",
    1 / 3: "0.3333333333333333",
    1234567.891: "1234567.891",
    4503599627370495.5: "4503599627370495.5",
    1e-4: "0.0001",
    1e-5: "0.00001",
    1.5e-5: "0.000015",
    9.99e-6: "9.99e-6",
    1e-6: "1e-6",
    1e-7: "1e-7",
    -2.5e-10: "-2.5e-10",
    2.2250738585072014e-308: "2.2250738585072014e-308",
    5e-324: "5e-324",
    1e16: "10000000000000000",
    -9.2e18: "-9200000000000000000",
    2.0**63: "9.223372036854776e+18",
    1e19: "1e+19",
    -1.5e300: "-1.5e+300",
    1.7976931348623157e308: "1.7976931348623157e+308",
    float(2**53): "9007199254740992",
    -0.0: "0",
}


@pytest.mark.parametrize("text", TEXTS)
def test_both_libraries_agree(text: str | None) -> None:
    frame = pl.DataFrame({"t": [text]}, schema={"t": pl.String})
    fast = frame.select(hashing.hashed(pl.col("t"))).item()
    assert fast == hashing.one_by_one(frame["t"]).item()
    if text is None:
        assert fast is None
    else:
        assert fast == mmh3.hash128(text.encode(), 9001, signed=False)


@pytest.mark.parametrize("text", GOLDEN)
def test_golden_vectors(text: str) -> None:
    frame = pl.DataFrame({"t": [text]}).select(hashed=hashing.hashed(pl.col("t")))
    halves = frame.select(hashing.low(pl.col("hashed")).alias("low"), hashing.high(pl.col("hashed")).alias("high")).row(0)
    assert halves == GOLDEN[text]


def _texts(numbers: list[float]) -> list[str]:
    return pl.DataFrame({"x": numbers}).select(hashing.text_of(pl.col("x"))).to_series().to_list()


def test_floats_have_the_texts_that_the_format_gives_them() -> None:
    assert dict(zip(FLOATS, _texts(list(FLOATS)), strict=True)) == FLOATS


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
@settings(max_examples=examples(150), deadline=None)
def test_every_float_has_the_text_of_the_rule(numbers: list[float]) -> None:
    assert _texts(numbers) == [_text(number) for number in numbers]


def _text(number: float) -> str:
    """The rule, in Python, whose repr has the same digits and other exponents."""
    if number.is_integer() and abs(number) < 2**63:
        return str(int(number))
    if 1e-5 <= abs(number) < 2**63:
        return format(Decimal(repr(number)), "f")
    sign, digits, _ = Decimal(repr(number)).normalize().as_tuple()
    first, *rest = map(str, digits)
    point = "." if rest else ""
    return f"{'-' * sign}{first}{point}{''.join(rest)}e{Decimal(repr(number)).adjusted():+d}"


def test_equal_numbers_have_one_text() -> None:
    """An integer column that turns out to hold floats must not count its values twice."""
    numbers = [7.0, -0.0, 0.0, 7.5, 1e300, -3.0, 2.0**53, None]
    texts = pl.DataFrame({"x": numbers}).select(hashing.text_of(pl.col("x"))).to_series().to_list()
    assert texts == ["7", "0", "0", "7.5", "1e+300", "-3", "9007199254740992", None]
    integers = pl.DataFrame({"x": [7, 0, -3, 2**53]}).select(hashing.text_of(pl.col("x"))).to_series().to_list()
    assert integers == ["7", "0", "-3", "9007199254740992"]
    truth = pl.DataFrame({"x": [True, False]}).select(hashing.text_of(pl.col("x"))).to_series().to_list()
    assert truth == ["true", "false"]
