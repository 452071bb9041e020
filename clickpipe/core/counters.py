"""The most frequent values, approximately: Misra-Gries, with its counters as rows of (group, value, count).

    more than `most` counters of a group -> each less by the count of the first that is too many; what is left of them stays

The row without a value has what was taken off: no count is short by more. Merging adds counts, and what was taken off.
Where no group has more different values than counters, all counts are exact.

Memory: `most` rows per group.
Error: at most records / `most`, and said with each value. Which values are kept when there are too many depends on how the
records were batched; the bound does not.
Source: Misra, Gries 1982, "Finding repeated elements"; merging as in Agarwal et al. 2012, "Mergeable summaries".
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import polars as pl

from clickpipe.core.aggregate import SUB_KEY, VALUE
from clickpipe.core.calls import is_whole
from clickpipe.core.flat import GROUP, numbered
from clickpipe.core.values import Values
from clickpipe.errors import PlanError

LARGEST = 10_000
_FEWEST = 1_000
_OFF, _ALL, _LEN = "\0off", "\0all", "\0len"


class Counters(Values):
    """`k`: how many values are given. Shape of the value: a list of {"value", "count", "error"}, the most frequent first: it came
    from count to count + error times. Where no counter is left one of them without a value: none came more than `error` times."""

    keeps = "counters of {x}, 1,000 or ten times as many as are asked for"
    grows = False

    def __init__(self, kind: str, k: Any = 10) -> None:
        super().__init__(kind)
        if not is_whole(k, 1, LARGEST):
            raise PlanError(f"the number of values is from 1 to {LARGEST:,}, and not {k}")
        self.k, self.most = k, max(_FEWEST, 10 * k)

    def result(self) -> str:
        return "json"

    def shares(self) -> Hashable:
        return ("counters", self.most)

    def trimmed(self, rows: pl.DataFrame, keys: Sequence[str], piece: Mapping[str, str]) -> pl.DataFrame:
        if rows.height <= self.most:
            return rows
        has_value, n = pl.col(SUB_KEY).is_not_null(), pl.col(piece["n"])
        by = [pl.lit(0).alias(_ALL), *keys]  # also where there are no keys
        large = rows.filter(has_value).group_by(by).agg(n.top_k(self.most + 1).min().alias(_OFF), pl.len().alias(_LEN))
        large = large.filter(pl.col(_LEN) > self.most).drop(_LEN, _ALL)
        if not large.height:
            return rows
        if keys:
            mine = rows.join(large, on=list(keys), how="left", nulls_equal=True)
        else:
            mine = rows.with_columns(pl.lit(large[_OFF].item()).alias(_OFF))
        off = pl.col(_OFF).fill_null(0)
        mine = mine.with_columns(pl.when(has_value).then(n - off).otherwise(n).alias(piece["n"]))
        kept = mine.filter((n > 0) | ~has_value).drop(_OFF)
        nothing = pl.lit(None, rows.schema[SUB_KEY]).alias(SUB_KEY)
        taken = large.select(*keys, nothing, pl.col(_OFF).alias(piece["n"])).select(rows.columns)
        both = pl.concat([kept.select(rows.columns), taken])
        return both.group_by(*keys, SUB_KEY).agg(self.merge({"n": n})["n"].alias(piece["n"])).select(rows.columns)

    def values(self, rows: pl.DataFrame, keys: Sequence[str], piece: Mapping[str, str]) -> pl.DataFrame:
        groups, rows = numbered(rows, keys)
        n, has_value = pl.col(piece["n"]), pl.col(SUB_KEY).is_not_null()
        errors = rows.group_by(GROUP).agg(n.filter(~has_value).sum().alias(_OFF)).filter(pl.col(_OFF) > 0)
        top = rows.filter(has_value & (n > 0)).sort([n, pl.col(SUB_KEY)], descending=[True, False])
        top = top.group_by(GROUP, maintain_order=True).head(self.k)
        top = top.join(errors, on=GROUP, how="full", coalesce=True, maintain_order="left_right")
        one = pl.struct(pl.col(SUB_KEY).alias("value"), n.fill_null(0).alias("count"), pl.col(_OFF).fill_null(0).alias("error"))
        lists = top.group_by(GROUP, maintain_order=True).agg(one.alias(VALUE))
        return groups.join(lists, on=GROUP, how="left", maintain_order="left").select(*keys, VALUE)
