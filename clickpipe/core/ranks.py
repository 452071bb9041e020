"""Values at ranks: exact quantiles, and those of a sketch, are one thing over rows of (group, value or bucket, count).

    sorted by group and value     counts 2 1 3     summed up 2 3 6     the row of rank 4 (from 0) is the third

All of it columnar: one sort, running sums, one filter per rank; no loop over groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from clickpipe.core.aggregate import SUB_KEY
from clickpipe.core.flat import GROUP, numbered

TOTAL = "\0total"  # how many values a group has
_UPTO = "\0upto"


def at_ranks(rows: pl.DataFrame, keys: Sequence[str], counts: str, ranks: Sequence[pl.Expr]) -> pl.DataFrame:
    """`keys`, TOTAL and, as columns "0", "1" …, the sub-key at each rank; null where a group has no value.

    `ranks`: from 0, as expressions of TOTAL.
    """
    groups, rows = numbered(rows, keys)
    values = rows.filter(pl.col(SUB_KEY).is_not_null() & (pl.col(counts) > 0))
    values = values.select(GROUP, SUB_KEY, counts).sort(GROUP, SUB_KEY)
    upto = pl.col(counts).cum_sum()
    begins = pl.col(GROUP).ne_missing(pl.col(GROUP).shift(1))
    before = pl.when(begins).then(upto - pl.col(counts)).forward_fill()
    values = values.with_columns((upto - before).alias(_UPTO))
    totals = values.group_by(GROUP).agg(pl.col(_UPTO).max().alias(TOTAL))
    values = values.join(totals, on=GROUP, maintain_order="left")
    groups = groups.join(totals, on=GROUP, how="left", maintain_order="left")
    for place, rank in enumerate(ranks):
        is_there = (pl.col(_UPTO) > rank) & (pl.col(_UPTO) - pl.col(counts) <= rank)
        found = values.filter(is_there).select(GROUP, pl.col(SUB_KEY).alias(str(place)))
        groups = groups.join(found, on=GROUP, how="left", maintain_order="left")
    return groups.drop(GROUP)
