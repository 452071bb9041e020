"""What `explain --live` tells of keys, held to a plain count."""

from __future__ import annotations

from collections import Counter

import polars as pl
import pytest

from clickpipe.core.keygroups import worker_of
from clickpipe.core.skew import Skew, spread


@pytest.mark.parametrize("split", [1, 3, 40])
def test_hottest_keys_and_loads_are_those_of_a_count(split: int) -> None:
    """However the records come in batches, and across a snapshot; a null key is a key."""
    keys = ["hot"] * 20 + [None] * 12 + [f"k{n % 7}" for n in range(14)]
    frame = pl.DataFrame({"user": keys})
    skew = Skew(["user"], {})
    for start in range(0, len(keys), split):
        skew.add(frame[start : start + split])
        skew = Skew(["user"], skew.snapshot())
    found = spread(skew.snapshot(), 3)
    assert found.hottest[:2] == [('"hot"', 20), ("null", 12)]
    workers = frame.select(worker_of(["user"], 3)).to_series().to_list()
    assert found.loads == [Counter(workers)[number] for number in range(3)]


def test_keys_of_several_columns_are_told_as_objects() -> None:
    skew = Skew(["user", "page"], {})
    skew.add(pl.DataFrame({"user": ["a", "a", None], "page": [1, 1, 2]}))
    assert spread(skew.snapshot(), 2).hottest == [('{"user":"a","page":1}', 2), ('{"user":null,"page":2}', 1)]


def test_more_keys_than_counters_keep_the_hot_one() -> None:
    skew = Skew(["user"], {})
    for batch in range(10):
        skew.add(pl.DataFrame({"user": [7] * 500 + list(range(1_000 + batch * 2_000, 3_000 + batch * 2_000))}))
    (key, count), *_ = spread(skew.snapshot(), 2).hottest
    assert key == "7"
    assert 5_000 - 25 <= count <= 5_000
