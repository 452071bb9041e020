"""Standard output: NDJSON, CSV, or a table at the end. Guarantee: at least once.

On a terminal, control characters that JSON leaves alone are written as escapes.
"""

from __future__ import annotations

import re
import sys

import polars as pl

from clickpipe.batch import Batch
from clickpipe.columns import Columns
from clickpipe.core.meter import Ledger
from clickpipe.core.operator import Writer
from clickpipe.core.render import as_table
from clickpipe.core.sink import Destination, Form, Renderer
from clickpipe.wire.pump import Outbox

# C0 (but for newline and tab), DEL, C1, and the marks that turn text round.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f\x80-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Stdout(Destination):
    def open(self, given: Columns) -> Writer:
        if self.format() == "table":
            return TableWriter(self.form, given)
        return StdoutWriter(Renderer(self.form, self.format(), given))

    def guarantee(self) -> str:
        return "at least once: standard output cannot take back what it was given"


class StdoutWriter(Writer):
    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._outbox = Outbox(sys.stdout.fileno(), "standard output")
        self._is_terminal = sys.stdout.isatty()

    def write(self, batch: Batch) -> None:
        self._put(self._renderer.bytes(batch))

    def _put(self, data: bytes) -> None:
        self._outbox.put(_harmless(data) if self._is_terminal else data)

    def close(self, accounts: list[Ledger]) -> None:
        self._put(self._renderer.rest())
        self._outbox.close()


def _harmless(data: bytes) -> bytes:
    return shown(data.decode("utf-8", "replace")).encode()


def shown(text: str) -> str:
    """The text with control characters as JSON escapes."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class TableWriter(Writer):
    """Keeps the first and the last rows; draws them at the end. Memory: the rows shown."""

    def __init__(self, form: Form, given: Columns) -> None:
        self._form, self._columns = form, given
        self._first: pl.DataFrame | None = None
        self._last: pl.DataFrame | None = None
        self._count = 0

    def write(self, batch: Batch) -> None:
        frame = as_table(batch, self._form.spell_times)
        self._count += frame.height
        rows = self._form.rows
        if self._first is None or self._first.height < rows:
            self._first = _stacked(self._first, frame).head(rows)
        self._last = _stacked(self._last, frame).tail(rows // 2)

    def close(self, accounts: list[Ledger]) -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, kind in self._columns.types.items():
            table.add_column(shown(name), justify="right" if kind in ("int", "float") else "left", no_wrap=True)
        for row in self._shown_rows():
            table.add_row(*row)
        console = Console(file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else 240)
        console.print(table)
        console.print(f"{self._count:,} rows", style="dim")
        sys.stdout.flush()

    def _shown_rows(self) -> list[list[str]]:
        if self._first is None or self._last is None:
            return []
        if self._count <= self._form.rows:
            return [_cells(row) for row in self._first.iter_rows()]
        tail = self._form.rows // 2
        head = self._first.head(self._form.rows - tail)
        gap = ["…"] * self._first.width
        return [*(_cells(row) for row in head.iter_rows()), gap, *(_cells(row) for row in self._last.iter_rows())]


def _stacked(above: pl.DataFrame | None, below: pl.DataFrame) -> pl.DataFrame:
    return below if above is None else pl.concat([above, below], how="vertical_relaxed")


def _cells(row: tuple[object, ...]) -> list[str]:
    return [_cell(value) for value in row]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else shown(str(value))
