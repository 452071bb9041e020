"""Expressions over a batch, where a value may refuse: CAST('x' AS INT) fails for the whole batch."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.core.refused import reasons_of
from clickpipe.errors import DataError


def compute(batch: Batch, exprs: Sequence[pl.Expr]) -> tuple[Batch, pl.DataFrame, Dead | None]:
    """The records whose expressions have values, those values, and the other records."""
    try:
        return batch, _select(batch.frame, exprs), None
    except (pl.exceptions.PolarsError, DataError):
        found = [_reasons(batch.frame, expr) for expr in exprs]
    reasons = pl.select(pl.coalesce(found)).to_series()
    good, bad = batch.keep(reasons.is_null()), batch.keep(reasons.is_not_null())
    values = _select(good.frame, exprs) if good.height else _none(good.frame, exprs)
    return good, values, bad.as_dead(reasons.drop_nulls())


def _select(frame: pl.DataFrame, exprs: Sequence[pl.Expr]) -> pl.DataFrame:
    """One value a record, also where an expression is a constant."""
    if frame.width and all(expr.meta.root_names() for expr in exprs):
        return finite(frame.select(*exprs))
    row = pl.int_range(pl.len()) if not frame.width else pl.first()
    return finite(frame.select(row.alias("\0row"), *exprs).drop("\0row"))


def finite(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with null for what is no number: JSON has no other word for 1.0 / 0."""
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    return frame.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in floats)


def as_json(name: str) -> pl.Expr:
    """A list or struct as its JSON."""
    return json_of(pl.col(name)).alias(name)


def json_of(value: pl.Expr) -> pl.Expr:
    """A value as its JSON; null of null."""
    said = pl.struct(value.alias("v")).struct.json_encode()
    return pl.when(value.is_not_null()).then(said.str.slice(5).str.head(-1))


def _none(frame: pl.DataFrame, exprs: Sequence[pl.Expr]) -> pl.DataFrame:
    """The values of no record: a constant has one all the same, and may be what is refused."""
    return pl.DataFrame(schema=frame.lazy().select(*exprs).collect_schema())


def _reasons(frame: pl.DataFrame, expr: pl.Expr) -> pl.Series:
    """Per record, why it has no value. What does not say that of each, halving finds: it is rare."""
    nothing = pl.repeat(None, frame.height, dtype=pl.String, eager=True)
    try:
        _select(frame, [expr])
    except (pl.exceptions.PolarsError, DataError) as error:
        reasons = reasons_of(error)
        if reasons is not None and reasons.len() == frame.height and reasons.count():
            rest = reasons.is_null().arg_true()
            return reasons.scatter(rest, _reasons(frame[rest], expr))
        if frame.height < 2:
            return nothing.fill_null(str(error).split("\n", 1)[0])
        half = frame.height // 2
        return pl.concat([_reasons(frame[:half], expr), _reasons(frame[half:], expr)])
    return nothing
