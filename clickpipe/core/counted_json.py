"""Lines of a number and a JSON value <-> bytes of groups, all at once.

12 "/home"
7 {"a":1}
"""

from __future__ import annotations

import polars as pl

from clickpipe.core.flat import GROUP, all_groups
from clickpipe.errors import DataError

NUMBER, JSON = "number", "json"
_LINE = "line"
_DIGITS = r"^(?:0|[1-9][0-9]*)$"
# Of what JSON allows, the one spelling of a value: nothing between its parts, escapes only where they must be, no idle digits.
_TEXT = r'"(?:[^"\\]|\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f])))*"'
_PLAIN = rf"(?s)\A(?:{_TEXT}|-?[0-9]+(?:\.(?:0|[0-9]*[1-9]))?(?:e[+-][1-9][0-9]*)?(?-u:\b)|true|false|null|[\]\[{{}},:])+\z"


def packed_lines(rows: pl.DataFrame, groups: int) -> pl.Series:
    """Rows of GROUP, NUMBER and JSON, in their order -> the bytes of each of so many groups. JSON may be null."""
    line = pl.format("{} {}", pl.col(NUMBER), pl.col(JSON).fill_null("")).str.join("\n").alias(_LINE)
    texts = rows.group_by(GROUP, maintain_order=True).agg(line)
    return all_groups(texts, groups)[_LINE].fill_null("").cast(pl.Binary)


def unpacked_lines(payloads: pl.Series, number: type[pl.DataType]) -> pl.DataFrame:
    """The bytes of groups -> GROUP, NUMBER and JSON. Raises DataError for what is no such line."""
    lines = pl.DataFrame({_LINE: payloads}).with_row_index(GROUP).filter(pl.col(_LINE).bin.size() > 0)
    try:
        lines = lines.with_columns(pl.col(_LINE).cast(pl.String).str.split("\n")).explode(_LINE)
    except pl.exceptions.PolarsError:
        raise DataError("a sketch is damaged: it is not UTF-8") from None
    parts = pl.col(_LINE).str.splitn(" ", 2).struct
    value = parts.field("field_1")
    is_json = (value == "") | (value.str.json_path_match("$").is_not_null() & value.str.contains(_PLAIN))
    digits = parts.field("field_0")
    read = pl.when(digits.str.contains(_DIGITS)).then(digits).cast(number, strict=False).alias(NUMBER)
    found = lines.select(GROUP, read, value.alias(JSON), is_json.alias("ok"))
    if found[NUMBER].null_count() or not found["ok"].fill_null(value=False).all():
        raise DataError("a sketch is damaged: a line that is not a number and a value")
    return found.select(GROUP, NUMBER, pl.when(pl.col(JSON) != "").then(pl.col(JSON)).alias(JSON))


def check_lines(rows: pl.DataFrame, by: str, most: int) -> None:
    """Raises DataError unless the lines of each group are in the order of this column, no two alike, and no more than so many."""
    mine, before = pl.col(by), pl.col(by).shift(1)
    is_next = (pl.col(GROUP) != pl.col(GROUP).shift(1)) | (mine > before) | (mine.is_not_null() & before.is_null())
    if not rows.select(is_next.all()).item() or rows.group_by(GROUP).len().select((pl.col("len") > most).any()).item():
        raise DataError("a sketch is damaged: its lines are not in order, or too many")
