"""Access logs of web servers: the combined and the common log format of Apache and nginx.

Shape: time (epoch milliseconds), host, user, method, path, protocol, status, bytes, referrer,
user_agent. A dash is null. Source: httpd.apache.org/docs/2.4/logs.html, "Combined Log Format".
"""

from __future__ import annotations

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns
from clickpipe.core.format import Format, Wants, dead_lines, lines_at
from clickpipe.lines import Block
from clickpipe.ndjson import LONGEST_LINE
from clickpipe.text import split_lines

# In a quoted field the servers write a quote as \" and an odd byte as \xhh.
_LINE = (
    r'^(?P<host>\S+) \S+ (?P<user>\S+) \[(?P<time>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)"'
    r" (?P<status>\d{3}) (?P<bytes>\d{1,18}|-)"
    r'(?: "(?P<referrer>(?:[^"\\]|\\.)*)" "(?P<user_agent>(?:[^"\\]|\\.)*)")?[ \t]*\r?$'
)
_REQUEST = r"^(?P<method>[A-Z]+) (?P<path>\S+)(?: (?P<protocol>HTTP/\S+))?$"
_TYPES = {
    "time": "int",
    "host": "str",
    "user": "str",
    "method": "str",
    "path": "str",
    "protocol": "str",
    "status": "int",
    "bytes": "int",
    "referrer": "str",
    "user_agent": "str",
}


class Combined(Format):
    time = "time"
    types = _TYPES

    def infer(self, blocks: list[Block]) -> dict[str, str]:
        return dict(_TYPES)

    def read(self, block: Block, columns: Columns, wants: Wants, source: str) -> tuple[Batch, list[Dead], int]:
        lines = _lines(block.data)
        fields = lines.str.extract_groups(_LINE).struct.unnest()
        request = fields["request"].str.extract_groups(_REQUEST).struct.unnest()
        frame = fields.hstack(request).select(
            pl.col("time").str.to_datetime("%d/%b/%Y:%H:%M:%S %z", time_unit="ms", strict=False).dt.epoch("ms"),
            *(pl.col(name).cast(pl.Int64, strict=False) for name in ("status", "bytes")),
            *(_text(name) for name in ("host", "user", "method", "path", "protocol", "referrer", "user_agent")),
        )
        reasons = _reasons(lines, fields, frame)
        good = reasons.is_null()
        bad = [(row, reasons[row]) for row in (~good & (lines.str.strip_chars() != "")).arg_true().to_list()]
        batch = Batch(frame.filter(good).select(columns.names()), columns, source=source)
        return batch, list(dead_lines(block, lines_at(block, bad), source)), batch.height + len(bad) + len(block.overlong)


def _lines(data: bytes) -> pl.Series:
    return split_lines(data)


def _text(name: str) -> pl.Expr:
    value = pl.col(name).str.replace_all(r"\"", '"', literal=True)
    return pl.when(value != "-").then(value).alias(name)


def _reasons(lines: pl.Series, fields: pl.DataFrame, frame: pl.DataFrame) -> pl.Series:
    reason = (
        pl.when(pl.lit(lines).str.len_bytes() > LONGEST_LINE)
        .then(pl.lit(f"longer than {LONGEST_LINE} bytes"))
        .when(pl.lit(fields["status"]).is_null())
        .then(pl.lit("not a line of the combined log format"))
        .when(pl.lit(frame["time"]).is_null())
        .then(pl.lit("the time in brackets is no instant"))
    )
    return pl.select(reason.alias("reason")).to_series()
