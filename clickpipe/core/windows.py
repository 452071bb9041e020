"""Fixed windows: start inclusive, end exclusive, aligned to the epoch in UTC, floor division before 1970 too."""

from __future__ import annotations

import polars as pl

WINDOW = ("window_start", "window_end")


def newest_start(time: pl.Series, slide: int, offset: int = 0) -> pl.Series:
    """The start of the newest window that holds an instant. Unit: milliseconds."""
    if offset == 0:
        return time // slide * slide
    return (time - offset) // slide * slide + offset


def starts(newest: pl.Expr, size: int, slide: int) -> list[pl.Expr]:
    """The starts of all windows that hold an instant, newest first. Those that began too early are not among them."""
    return [newest - step * slide for step in range(-(-size // slide))]
