"""Lines of a number and a JSON value <-> bytes of groups, all at once.

12 "/home"
7 {"a":1}
"""

from __future__ import annotations

import polars as pl

from clickpipe.core.compute import json_of
from clickpipe.core.flat import GROUP, all_groups
from clickpipe.core.hashing import text_of
from clickpipe.core.refused import Damaged, refuse

NUMBER, JSON = "number", "json"
_LINE = "line"
_DIGITS = r"^(?:0|[1-9][0-9]*)$"
# Of what JSON allows, the one spelling of a value: nothing between its parts, escapes only where they must be, no idle digits.
_TEXT = r'"(?:[^"\\]|\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f])))*"'
_PLAIN = rf"(?s)\A(?:{_TEXT}|-?[0-9]+(?:\.(?:0|[0-9]*[1-9]))?(?:e[+-][1-9][0-9]*)?(?-u:\b)|true|false|null|[\]\[{{}},:])+\z"


def as_said(value: pl.Expr, kind: str) -> pl.Expr:
    """A value of a column as JSON: 7 and 7.0 are one."""
    if kind == "json":
        return value
    return json_of(value) if kind == "str" else text_of(value)


def packed_lines(rows: pl.DataFrame, groups: int) -> pl.Series:
    """Rows of GROUP, NUMBER and JSON, in their order -> the bytes of each of so many groups. JSON may be null."""
    line = pl.format("{} {}", pl.col(NUMBER), pl.col(JSON).fill_null("")).str.join("\n").alias(_LINE)
    texts = rows.group_by(GROUP, maintain_order=True).agg(line)
    return all_groups(texts, groups)[_LINE].fill_null("").cast(pl.Binary)


def unpacked_lines(payloads: pl.Series, number: type[pl.DataType]) -> pl.DataFrame:
    """The bytes of groups -> GROUP, NUMBER and JSON. Raises Damaged for what is no such line."""
    lines = pl.DataFrame({_LINE: _texts(payloads)}).with_row_index(GROUP).filter(pl.col(_LINE) != "")
    lines = lines.with_columns(pl.col(_LINE).str.split("\n")).explode(_LINE)
    parts = pl.col(_LINE).str.splitn(" ", 2).struct
    value = parts.field("field_1")
    is_json = (value == "") | (value.str.json_path_match("$").is_not_null() & value.str.contains(_PLAIN))
    digits = parts.field("field_0")
    read = pl.when(digits.str.contains(_DIGITS)).then(digits).cast(number, strict=False).alias(NUMBER)
    found = lines.select(GROUP, read, value.alias(JSON), is_json.fill_null(value=False).alias("ok"))
    refuse(found[GROUP], found[NUMBER].is_null() | ~found["ok"], "a line that is not a number and a value")
    return found.select(GROUP, NUMBER, pl.when(pl.col(JSON) != "").then(pl.col(JSON)).alias(JSON))


def _texts(payloads: pl.Series) -> pl.Series:
    try:
        return payloads.cast(pl.String)
    except pl.exceptions.PolarsError:
        bad = [place for place, data in enumerate(payloads) if data.decode("utf-8", "ignore").encode() != data]
        raise Damaged("it is not UTF-8", pl.Series(bad, dtype=pl.UInt32)) from None


def check_lines(rows: pl.DataFrame, by: str, most: int) -> None:
    """Raises Damaged unless the lines of each group are in the order of this column, no two alike, and no more than so many."""
    mine, before = pl.col(by), pl.col(by).shift(1)
    is_next = (pl.col(GROUP) != pl.col(GROUP).shift(1)) | (mine > before) | (mine.is_not_null() & before.is_null())
    is_bad = ~is_next.fill_null(value=True) | (pl.len().over(GROUP) > most)
    refuse(rows[GROUP], rows.select(is_bad).to_series(), "its lines are not in order, or too many")
