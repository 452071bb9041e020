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
    is_json = (value == "") | value.str.json_path_match("$").is_not_null()
    read = parts.field("field_0").cast(number, strict=False).alias(NUMBER)
    found = lines.select(GROUP, read, value.alias(JSON), is_json.fill_null(value=False).alias("ok"))
    refuse(found[GROUP], found[NUMBER].is_null() | ~found["ok"], "a line that is not a number and a value")
    return found.select(GROUP, NUMBER, pl.when(pl.col(JSON) != "").then(pl.col(JSON)).alias(JSON))


def _texts(payloads: pl.Series) -> pl.Series:
    try:
        return payloads.cast(pl.String)
    except pl.exceptions.PolarsError:
        bad = [place for place, data in enumerate(payloads) if data.decode("utf-8", "ignore").encode() != data]
        raise Damaged("it is not UTF-8", pl.Series(bad, dtype=pl.UInt32)) from None
