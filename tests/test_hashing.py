"""The one hash of sketches, whichever library computes it."""

from __future__ import annotations

import mmh3
import polars as pl
import pytest

from clickpipe.core import hashing

TEXTS = ["", "a", "abc", "user-4711", "é", "日本語", "🙂", "x" * 1000, None]
# Of the reference implementation, MurmurHash3_x64_128 with seed 9001: the first 64 bits, then the others.
GOLDEN = {"a": (17726747621663146543, 14204157431899926782)}


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


def test_equal_numbers_have_one_text() -> None:
    """An integer column that turns out to hold floats must not count its values twice."""
    numbers = [7.0, -0.0, 0.0, 7.5, 1e300, -3.0, 2.0**53, None]
    texts = pl.DataFrame({"x": numbers}).select(hashing.text_of(pl.col("x"))).to_series().to_list()
    assert texts == ["7", "0", "0", "7.5", "1e+300", "-3", "9007199254740992", None]
    integers = pl.DataFrame({"x": [7, 0, -3, 2**53]}).select(hashing.text_of(pl.col("x"))).to_series().to_list()
    assert integers == ["7", "0", "-3", "9007199254740992"]
    truth = pl.DataFrame({"x": [True, False]}).select(hashing.text_of(pl.col("x"))).to_series().to_list()
    assert truth == ["true", "false"]
