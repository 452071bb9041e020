"""What is asked of sketches: columns of them, with nulls, all rows of a column at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from clickpipe.core.aggregate import VALUE
from clickpipe.core.flat import GROUP
from clickpipe.core.refused import Refusals
from clickpipe.core.sketch import PAYLOAD, Opened, Sketch, kinds, opened
from clickpipe.errors import DataError

_UNLIKE = "unlike sketches: {}, and {}{}"


def checked(texts: pl.Series) -> pl.Series:
    """The same, if each of them is a sketch. Raises Refused."""
    opened(texts)
    return texts


def united(texts: pl.Series, groups: pl.Series) -> pl.DataFrame:
    """Values and the numbers of their groups -> GROUP and VALUE, of those that have any. Raises DataError."""
    parts, groups = opened(texts), groups.cast(pl.UInt32)
    _check_alike(parts, groups)
    found = [pl.DataFrame(schema={GROUP: pl.UInt32, VALUE: pl.String})]
    for part in parts:
        rows = part.rows.with_columns(groups.gather(part.rows[GROUP]).alias(GROUP))
        found.append(_valued(part.sketch, part.sketch.merged(rows), groups.gather(part.at)))
    return pl.concat(found)


def union(first: pl.Series, second: pl.Series) -> pl.Series:
    """Of two columns, where both have a sketch. Raises Refused."""

    def answer(sketch: Sketch, places: pl.Series, *rows: pl.DataFrame) -> pl.DataFrame:
        return _valued(sketch, sketch.merged(pl.concat(rows)), places)

    return _of_both(first, second, "merged", answer, pl.String())


def combined(first: pl.Series, second: pl.Series, question: str) -> pl.Series:
    """Of two columns, where both have one, the sketch that their method `question` makes of the rows of both. Raises Refused."""

    def answer(sketch: Sketch, places: pl.Series, *rows: pl.DataFrame) -> pl.DataFrame:
        return _valued(sketch, getattr(sketch, question)(*rows), places)

    return _of_both(first, second, question, answer, pl.String())


def compared(first: pl.Series, second: pl.Series, question: str, type_: pl.DataType) -> pl.Series:
    """Of two columns, where both have a sketch, what their method `question` tells of the rows of both. Raises Refused."""

    def answer(sketch: Sketch, places: pl.Series, *rows: pl.DataFrame) -> pl.DataFrame:
        return pl.DataFrame({GROUP: places}).join(getattr(sketch, question)(*rows), on=GROUP, how="left")

    return _of_both(first, second, question, answer, type_)


def answered(texts: pl.Series, question: str, type_: pl.DataType, *more: Any, nothing: Any = None) -> pl.Series:
    """What each of the sketches tells, by their method `question`; null of null. Raises Refused.

    `nothing`: what a sketch tells that has seen nothing.
    """
    parts, found = opened(texts), []
    _check_able(parts, question, texts.len())
    for part in parts:
        answers = getattr(part.sketch, question)(part.rows, *more).select(GROUP, VALUE)
        answers = pl.DataFrame({GROUP: part.at}).join(answers, on=GROUP, how="left")
        found.append(answers if nothing is None else answers.with_columns(pl.col(VALUE).fill_null(nothing)))
    return _by_place(found, texts, type_)


def _of_both(
    first: pl.Series, second: pl.Series, question: str, answer: Callable[..., pl.DataFrame], type_: pl.DataType
) -> pl.Series:
    ones, others = (opened(texts) for texts in _both(first, second))
    _check_pairs(ones, others, first.len())
    _check_able(ones, question, first.len())
    second_rows = {part.sketch.head(): part.rows for part in others}
    found = [answer(part.sketch, part.at, part.rows, second_rows[part.sketch.head()]) for part in ones]
    return _by_place(found, first, type_)


def _both(first: pl.Series, second: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Null where one of them is."""
    is_missing = first.is_null() | second.is_null()
    return first.set(is_missing, None), second.set(is_missing, None)


def _check_pairs(ones: Sequence[Opened], others: Sequence[Opened], count: int) -> None:
    """Raises Refused unless at each place both are alike."""
    both = _heads(ones).join(_heads(others), on=GROUP)
    unlike = both.filter(pl.col("head") != pl.col("head_right"))
    refusals = Refusals(count)
    hint = pl.when(pl.col("hint") == pl.col("hint_right")).then("hint").otherwise(pl.lit(""))
    refusals.add(unlike[GROUP], unlike.select(pl.format(_UNLIKE, "said", "said_right", hint)).to_series())
    refusals.check()


def _check_alike(parts: Sequence[Opened], groups: pl.Series) -> None:
    """Raises DataError unless all of a group are alike."""
    heads = _heads(parts)
    heads = heads.with_columns(groups.gather(heads[GROUP]).alias(GROUP)).unique(maintain_order=True)
    unlike = heads.filter(pl.col(GROUP).is_duplicated())
    if unlike.height:
        one, other, *_ = unlike.filter(pl.col(GROUP) == pl.col(GROUP).first()).iter_rows(named=True)
        raise DataError(_UNLIKE.format(one["said"], other["said"], one["hint"] if one["hint"] == other["hint"] else ""))


def _heads(parts: Sequence[Opened]) -> pl.DataFrame:
    """At each place what the sketch there says that it is."""
    nothing = pl.DataFrame(schema={GROUP: pl.UInt32, "head": pl.Binary, "said": pl.String, "hint": pl.String})
    said = [
        part.at.to_frame(GROUP).with_columns(
            head=pl.lit(part.sketch.head()), said=pl.lit(str(part.sketch)), hint=pl.lit(_hint(part.sketch))
        )
        for part in parts
    ]
    return pl.concat([nothing, *said])


def _hint(sketch: Sketch) -> str:
    """What to do about two of this kind, where a library's bytes do not say their parameter."""
    silent = [name for name, form in sketch.forms.items() if not form.says_parameter]
    return f"; sketch_from(text, '{silent[0]}', {sketch.parameter()[0]}) says which" if silent else ""


def _check_able(parts: Sequence[Opened], question: str, count: int) -> None:
    """Raises Refused if kinds of them cannot be asked this."""
    refusals = Refusals(count)
    for part in parts:
        if not hasattr(part.sketch, question):
            able = " and ".join(kind.name() for kind in kinds().values() if hasattr(kind, question))
            refusals.add(part.at, f"only sketches of kind {able} tell this, and one is {part.sketch}")
    refusals.check()


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
