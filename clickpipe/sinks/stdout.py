"""Standard output: NDJSON, CSV, or a table at the end. Guarantee: at least once.

On a terminal, control characters that JSON leaves alone are written as escapes.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import IO, Any

import polars as pl

from clickpipe.batch import Batch
from clickpipe.columns import Columns
from clickpipe.core.guarantee import AT_LEAST_ONCE, Guarantee
from clickpipe.core.meter import Ledger
from clickpipe.core.operator import Staged, Writer
from clickpipe.core.render import as_table
from clickpipe.core.sink import Destination, Form, Renderer
from clickpipe.core.terminal import shown, standard_output
from clickpipe.errors import PlanError, ReaderGone
from clickpipe.state.directory import StateDirectory
from clickpipe.state.files import sync_output

_WIDTH = 240  # characters, where no terminal has one


class Stdout(Destination):
    def open(self, given: Columns) -> Writer:
        if self.format() == "table":
            return TableWriter(self.form, given)
        return StdoutWriter(Renderer(self.form, self.format(), given))

    def open_staged(self, given: Columns, restored: int, saved: Mapping[str, Any] | None, directory: StateDirectory) -> Writer:
        if self.format() == "table":
            raise PlanError("a table shows one run from its beginning: not with --checkpoint")
        return StagedStdoutWriter(Renderer(self.form, self.format(), given, goes_on=bool(saved and saved["begun"])))

    def check_middle(self) -> None:
        raise PlanError(
            "standard output carries the stream to the next step", hint="sink FILE --pass, or without --pass at the end", word="-"
        )

    def guarantee(self, *, has_checkpoints: bool) -> Guarantee:
        return Guarantee(AT_LEAST_ONCE, "standard output cannot take back what it was given")


class StdoutWriter(Writer):
    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._outbox = standard_output()

    @property
    def bytes_out(self) -> int:  # type: ignore[override]  # it is counted elsewhere
        return self._outbox.sent

    def write(self, batch: Batch) -> None:
        self._outbox.put(self._renderer.bytes(batch))

    def close(self, accounts: list[Ledger]) -> None:
        self._outbox.put(self._renderer.rest())
        self._outbox.close()


class StagedStdoutWriter(StdoutWriter):
    """What was written goes out before the checkpoint is complete: a crash in between repeats it, and loses nothing."""

    def prepare(self, epoch: int, *, ended: bool) -> Staged:
        if ended:
            self._outbox.put(self._renderer.rest())
        return Staged({"begun": not self._renderer.is_first}, self._durable)

    def _durable(self) -> None:
        self._outbox.flush()
        sync_output(sys.stdout.fileno(), "standard output")

    def close(self, accounts: list[Ledger]) -> None:
        self._outbox.close()  # a run that was stopped goes on another time


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
        self.draw(sys.stdout, None if sys.stdout.isatty() else _WIDTH)
        sys.stdout.flush()

    def draw(self, file: IO[str], width: int | None) -> None:
        """`width`: in characters; None: the terminal's."""
        from rich.console import Console
        from rich.table import Table

        class Printer(Console):
            def on_broken_pipe(self) -> None:
                raise ReaderGone

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, kind in self._columns.types.items():
            table.add_column(shown(name), justify="right" if kind in ("int", "float") else "left", no_wrap=True)
        for row in self._shown_rows():
            table.add_row(*row)
        console = Printer(file=file, highlight=False, markup=False, emoji=False, width=width)
        console.print(table)
        console.print(f"{self._count:,} {'row' if self._count == 1 else 'rows'}", style="dim")

    def _shown_rows(self) -> list[list[str]]:
        if self._first is None or self._last is None:
            return []
        if self._count <= self._form.rows:
            return [_cells(row) for row in self._first.iter_rows()]
        tail = self._form.rows // 2
        head = self._first.head(self._form.rows - tail)
        gap = ["…"] * self._first.width
        return [*(_cells(row) for row in head.iter_rows()), gap, *(_cells(row) for row in self._last.iter_rows())]


def table_text(batch: Batch, form: Form, width: int) -> str:
    """A batch as a table, as it looks on a terminal of this width."""
    writer, text = TableWriter(form, batch.columns), io.StringIO()
    writer.write(batch)
    writer.draw(text, width)
    return text.getvalue()


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
