"""Of rows that came again when they changed, the latest."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl

REV, DELETED = "rev", "deleted"  # columns of revised rows


def latest(rows: pl.LazyFrame, keys: Sequence[str], columns: Collection[str]) -> pl.LazyFrame:
    """Of the rows of a key the one with the highest rev, the last of several; none where that is a deleted one."""
    last = rows.sort(REV, maintain_order=True) if REV in columns else rows
    kept = last.unique(list(keys), keep="last", maintain_order=True)
    return kept.filter(~pl.col(DELETED).fill_null(False)).drop(DELETED) if DELETED in columns else kept
