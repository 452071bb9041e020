"""Expressions over a batch, where a value may refuse: CAST('x' AS INT) fails for the whole batch."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from clickpipe.batch import Batch, Dead


def compute(batch: Batch, exprs: Sequence[pl.Expr]) -> tuple[Batch, pl.DataFrame, Dead | None]:
    """The records whose expressions have values, those values, and the other records."""
    try:
        return batch, _select(batch.frame, exprs), None
    except pl.exceptions.PolarsError:
        reasons = _reasons(batch.frame, exprs)
    series = pl.Series(reasons, dtype=pl.String)
    good = batch.keep(series.is_null())
    bad = batch.keep(series.is_not_null())
    return good, _select(good.frame, exprs), bad.as_dead([reason for reason in reasons if reason is not None])


def _select(frame: pl.DataFrame, exprs: Sequence[pl.Expr]) -> pl.DataFrame:
    """One value a record, also where an expression is a constant."""
    if frame.width and all(expr.meta.root_names() for expr in exprs):
        return frame.select(*exprs)
    return frame.select(pl.int_range(pl.len()).alias("\0row") if not frame.width else pl.first().alias("\0row"), *exprs).drop(
        "\0row"
    )


def _reasons(frame: pl.DataFrame, exprs: Sequence[pl.Expr]) -> list[str | None]:
    """Per record, why it has no value. Halving finds the few that have none; many are rare here."""
    try:
        _select(frame, exprs)
    except pl.exceptions.PolarsError as error:
        if frame.height == 1:
            return [str(error).split("\n", 1)[0]]
        half = frame.height // 2
        return _reasons(frame[:half], exprs) + _reasons(frame[half:], exprs)
    return [None] * frame.height
