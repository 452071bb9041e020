"""What a late or dead-letter file holds, counted block by block: by reason, by window, by delay.

Reasons are grouped by their kind, which is the text before a value. Memory: a row per kind of reason, per window, and
per delay, of which the first three digits count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from clickpipe.store.sides import DEAD, Kind, Some

# Up to the first colon that a blank follows and that does not stand in a quoted name.
_KIND = r'^((?:"[^"]*"|[^":]|:[^ ])+)'


def _none(kind: type[pl.DataType], name: str) -> pl.DataFrame:
    return pl.DataFrame(schema={name: kind, "count": pl.UInt32})


@dataclass
class Tally:
    """Of one file. `newest`: the last `rows` records."""

    kind: Kind
    rows: int
    records: int = 0
    damaged: int = 0
    least: int | None = None
    most: int | None = None
    newest: pl.DataFrame | None = None
    _reasons: pl.DataFrame = field(default_factory=lambda: _none(pl.String, "reason"))
    _windows: pl.DataFrame = field(default_factory=lambda: _none(pl.Int64, "window_start"))
    _delays: pl.DataFrame = field(default_factory=lambda: _none(pl.Int64, "_late_by"))

    def add(self, some: Some) -> None:
        frame = some.frame
        self.records += frame.height
        self.damaged += some.damaged
        self.newest = frame.tail(self.rows) if self.newest is None else pl.concat([self.newest, frame]).tail(self.rows)
        self._reasons = _counted(self._reasons, frame.select(kind_of_reason(self.kind.reason).alias("reason")))
        if self.kind is not DEAD:
            self._windows = _counted(self._windows, frame.select("window_start"))
            self._delays = _counted(self._delays, frame.select(_three_digits(pl.col("_late_by"))))
            bounds = frame.select(pl.col("_late_by").min().alias("least"), pl.col("_late_by").max().alias("most")).row(0)
            self.least = min((one for one in (self.least, bounds[0]) if one is not None), default=None)
            self.most = max((one for one in (self.most, bounds[1]) if one is not None), default=None)

    def reasons(self) -> list[tuple[str, int]]:
        """The most frequent first."""
        return _ranked(self._reasons)

    def windows(self) -> list[tuple[int, int]]:
        """Starts, with the number of their records; those with most first."""
        return _ranked(self._windows)

    def half(self) -> int | None:
        """Half of the records are late by this or less; to three digits."""
        known = self._delays.drop_nulls().sort("_late_by")
        reached = known.filter(pl.col("count").cum_sum() * 2 >= pl.col("count").sum())
        return reached["_late_by"][0] if reached.height else None


def kind_of_reason(name: str) -> pl.Expr:
    return pl.coalesce(pl.col(name).str.extract(_KIND, 1), pl.col(name))


def _counted(before: pl.DataFrame, values: pl.DataFrame) -> pl.DataFrame:
    name = before.columns[0]
    return pl.concat([before, values.group_by(name).len("count")]).group_by(name).agg(pl.col("count").sum())


def _ranked(counts: pl.DataFrame) -> list[tuple[Any, int]]:
    name = counts.columns[0]
    return counts.drop_nulls().sort("count", name, descending=[True, False]).rows()


def _three_digits(value: pl.Expr) -> pl.Expr:
    unit = 10 ** ((value.clip(1).log(10).floor() - 2).clip(0))
    return (value / unit).floor().cast(pl.Int64) * unit.cast(pl.Int64)
