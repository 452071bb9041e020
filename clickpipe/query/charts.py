"""An answer as a chart: the first column says where, the others, as far as they are numbers, how much.

Times and numbers on the first column give lines, names give bars.
"""

from __future__ import annotations

import io

import polars as pl

from clickpipe.core.terminal import shown
from clickpipe.errors import PlanError

_HEIGHT = 18  # lines
_MOST_BARS = 50
_MOST_LINES = 7  # colours that can be told apart
_TICKS = 5


def chart(frame: pl.DataFrame, width: int) -> str:
    """Raises PlanError for an answer without numbers. `width`: characters."""
    if frame.width < 2 or not (numbers := [name for name in frame.columns[1:] if frame.schema[name].is_numeric()]):
        hint = "SELECT window_start, clicks FROM …"
        raise PlanError("--plot needs a column that says where, and behind it one with numbers", hint=hint)
    if not frame.height:
        return "no rows\n"
    where = frame.schema[frame.columns[0]]
    if isinstance(where, pl.Datetime) or where.is_numeric():
        return _lines(frame, numbers[:_MOST_LINES], width)
    return _bars(frame, numbers[0], width)


def _lines(frame: pl.DataFrame, numbers: list[str], width: int) -> str:
    import plotext  # type: ignore[import-untyped]  # it has no types

    frame = frame.drop_nulls(frame.columns[0]).sort(frame.columns[0])
    where = frame[frame.columns[0]]
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.limit_size(False, False)  # what it takes for the terminal's size is none of a pipe
    plotext.plotsize(width, _HEIGHT)
    at = where.dt.epoch("ms") if isinstance(where.dtype, pl.Datetime) else where
    for name in numbers:
        has_value = frame[name].is_not_null()
        plotext.plot(
            at.filter(has_value).to_list(),
            frame[name].filter(has_value).to_list(),
            label=shown(name) if len(numbers) > 1 else None,
            marker="braille",
        )
    if len(numbers) == 1:
        plotext.title(shown(numbers[0]))
    if isinstance(where.dtype, pl.Datetime):
        places = sorted({round(number * (len(at) - 1) / (_TICKS - 1)) for number in range(_TICKS)})
        form = "%m-%d %H:%M" if at[-1] - at[0] < 86_400_000 * 60 else "%Y-%m-%d"
        plotext.xticks([at[place] for place in places], where.gather(places).dt.strftime(form).to_list())
    return str(plotext.uncolorize(plotext.build())).rstrip("\n") + "\n"


def _bars(frame: pl.DataFrame, name: str, width: int) -> str:
    from rich.bar import Bar
    from rich.console import Console
    from rich.table import Table

    rows = frame.select(pl.col(frame.columns[0]).cast(pl.String), pl.col(name)).head(_MOST_BARS)
    most = float(rows[name].max() or 0) or 1.0  # type: ignore[arg-type]  # a column of numbers
    table = Table(box=None, pad_edge=False, show_header=False, expand=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    for label, value in rows.iter_rows():
        spelled = "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
        table.add_row(shown(label or "-"), Bar(most, 0, max(0.0, value or 0.0)), spelled)
    text = io.StringIO()
    console = Console(file=text, width=width, highlight=False, markup=False, emoji=False, color_system=None)
    console.print(table)
    if frame.height > rows.height:
        console.print(f"{frame.height - rows.height:,} more rows")
    return text.getvalue()
