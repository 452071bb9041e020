"""Lines of a number and a JSON value <-> bytes of groups, all at once.

12 "/home"
7 {"a":1}
"""

from __future__ import annotations

import polars as pl

from clickpipe.core.compute import json_of
from clickpipe.core.flat import GROUP, all_groups
from clickpipe.core.hashing import text_of
from clickpipe.errors import DataError

NUMBER, JSON = "number", "json"
_LINE = "line"


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
    """The bytes of groups -> GROUP, NUMBER and JSON. Raises DataError for what is no such line."""
    lines = pl.DataFrame({_LINE: payloads}).with_row_index(GROUP).filter(pl.col(_LINE).bin.size() > 0)
    try:
        lines = lines.with_columns(pl.col(_LINE).cast(pl.String).str.split("\n")).explode(_LINE)
    except pl.exceptions.PolarsError:
        raise DataError("a sketch is damaged: it is not UTF-8") from None
    parts = pl.col(_LINE).str.splitn(" ", 2).struct
    value = parts.field("field_1")
    is_json = (value == "") | value.str.json_path_match("$").is_not_null()
    read = parts.field("field_0").cast(number, strict=False).alias(NUMBER)
    found = lines.select(GROUP, read, value.alias(JSON), is_json.alias("ok"))
    if found[NUMBER].null_count() or not found["ok"].fill_null(value=False).all():
        raise DataError("a sketch is damaged: a line that is not a number and a value")
    return found.select(GROUP, NUMBER, pl.when(pl.col(JSON) != "").then(pl.col(JSON)).alias(JSON))
