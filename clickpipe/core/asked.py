"""What is asked of sketches: columns of them, with nulls, all rows of a column at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from clickpipe.core.aggregate import VALUE
from clickpipe.core.flat import GROUP
from clickpipe.core.sketch import PAYLOAD, Opened, Sketch, kinds, opened
from clickpipe.errors import DataError


def checked(texts: pl.Series) -> pl.Series:
    """The same, if each of them is a sketch. Raises ComputeError, as an expression does that a value refuses."""
    try:
        opened(texts)
    except DataError as error:
        raise pl.exceptions.ComputeError(str(error)) from None
    return texts


def united(texts: pl.Series, groups: pl.Series) -> pl.DataFrame:
    """Values and the numbers of their groups -> GROUP and VALUE, of those that have any. Raises DataError."""
    parts = opened(texts)
    if not parts:
        return pl.DataFrame(schema={GROUP: pl.UInt32, VALUE: pl.String})
    sketch = _alike(parts)
    groups, rows = groups.cast(pl.UInt32), parts[0].rows()
    merged = sketch.merged(rows.with_columns(groups.gather(rows[GROUP]).alias(GROUP)))
    return _valued(sketch, merged, groups.gather(parts[0].at))


def union(first: pl.Series, second: pl.Series) -> pl.Series:
    """Of two columns, where both have a sketch. Raises DataError."""
    one, other = _both(first, second)
    places = pl.Series(range(first.len()), dtype=pl.UInt32)
    found = united(pl.concat([one, other.alias(one.name)]), pl.concat([places, places]))
    return _by_place([found], first, pl.String())


def combined(first: pl.Series, second: pl.Series, question: str) -> pl.Series:
    """Of two columns, where both have one, the sketch that their method `question` makes of the rows of both."""

    def answer(sketch: Sketch, places: pl.Series, *rows: pl.DataFrame) -> pl.DataFrame:
        return _valued(sketch, getattr(sketch, question)(*rows), places)

    return _of_both(first, second, question, answer, pl.String())


def compared(first: pl.Series, second: pl.Series, question: str, type_: pl.DataType) -> pl.Series:
    """Of two columns, where both have a sketch, what their method `question` tells of the rows of both."""

    def answer(sketch: Sketch, places: pl.Series, *rows: pl.DataFrame) -> pl.DataFrame:
        return pl.DataFrame({GROUP: places}).join(getattr(sketch, question)(*rows), on=GROUP, how="left")

    return _of_both(first, second, question, answer, type_)


def answered(texts: pl.Series, question: str, type_: pl.DataType, *more: Any, nothing: Any = None) -> pl.Series:
    """What each of the sketches tells, by their method `question`; null of null. Raises DataError.

    `nothing`: what a sketch tells that has seen nothing.
    """
    found = []
    for part in opened(texts):
        answers = _able(part.sketch, question)(part.rows(), *more).select(GROUP, VALUE)
        answers = pl.DataFrame({GROUP: part.at}).join(answers, on=GROUP, how="left")
        found.append(answers if nothing is None else answers.with_columns(pl.col(VALUE).fill_null(nothing)))
    return _by_place(found, texts, type_)


def _of_both(
    first: pl.Series, second: pl.Series, question: str, answer: Callable[..., pl.DataFrame], type_: pl.DataType
) -> pl.Series:
    one, other = (opened(texts) for texts in _both(first, second))
    if not one:
        return _by_place([], first, type_)
    sketch = _alike([*one, *other])
    _able(sketch, question)
    return _by_place([answer(sketch, one[0].at, one[0].rows(), other[0].rows())], first, type_)


def _both(first: pl.Series, second: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Null where one of them is."""
    is_missing = first.is_null() | second.is_null()
    return first.set(is_missing, None), second.set(is_missing, None)


def _alike(parts: Sequence[Opened]) -> Sketch:
    """What all of them are. Raises DataError."""
    for part in parts:
        if part.sketch.head() != parts[0].sketch.head():
            raise DataError(_unlike(parts[0].sketch, part.sketch))
    return parts[0].sketch


def _unlike(one: Sketch, other: Sketch) -> str:
    said = f"unlike sketches: {one}, and {other}"
    silent = [form for form in one.forms if not one.forms[form].says_parameter and form in other.forms]
    is_same_kind = one.number == other.number
    return f"{said}; sketch_from(text, '{silent[0]}', {one.parameter()[0]}) says which" if is_same_kind and silent else said


def _able(sketch: Sketch, question: str) -> Callable[..., pl.DataFrame]:
    """The method that answers. Raises DataError if this kind cannot."""
    if not hasattr(sketch, question):
        able = " and ".join(kind.name() for kind in kinds().values() if hasattr(kind, question))
        raise DataError(f"only sketches of kind {able} tell this, and one is {sketch}")
    method: Callable[..., pl.DataFrame] = getattr(sketch, question)
    return method


def _valued(sketch: Sketch, rows: pl.DataFrame, groups: pl.Series) -> pl.DataFrame:
    """Merged rows -> GROUP and VALUE, of each of these groups: some have no rows."""
    at = rows.rename({GROUP: "at"})
    found = sketch.payloads(at, ["at"]).select(pl.col("at").alias(GROUP), PAYLOAD)
    nothing = sketch.payloads(at.clear(), [])[PAYLOAD].item()
    payloads = pl.DataFrame({GROUP: groups.unique()}).join(found, on=GROUP, how="left")
    return payloads.select(GROUP, sketch.sealed(pl.col(PAYLOAD).fill_null(pl.lit(nothing))).alias(VALUE))


def _by_place(found: Sequence[pl.DataFrame], like: pl.Series, type_: pl.DataType) -> pl.Series:
    """Answers by GROUP, their place -> one for each of `like`, null elsewhere."""
    places = pl.DataFrame({GROUP: range(like.len())}, schema={GROUP: pl.UInt32})
    answers = [some.select(GROUP, pl.col(VALUE).cast(type_)) for some in found]
    if not answers:
        return pl.Series(like.name, [None] * like.len(), dtype=type_)
    return places.join(pl.concat(answers), on=GROUP, how="left", maintain_order="left")[VALUE].alias(like.name)
