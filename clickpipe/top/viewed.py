"""The latest rows of a view, while the pipeline writes them."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Static

from clickpipe.errors import ClickpipeError
from clickpipe.top.cells import plain

_ROWS = 200
_EVERY = 1.0  # seconds
_WIDE = 40  # characters of a value


class Viewed(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,backspace", "app.pop_screen", "Back", key_display="esc")]

    def __init__(self, name: str) -> None:
        super().__init__()
        self._view = name
        self._version = ""

    def compose(self) -> ComposeResult:
        yield Static(classes="head", id="title", markup=False)
        yield DataTable[Text](cursor_type="row")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        self._look()
        self.set_interval(_EVERY, self._look)

    def _look(self) -> None:
        """Only what has changed is read again."""
        from clickpipe.store.viewread import ViewReader

        try:
            reader = ViewReader(self._view)
        except ClickpipeError as error:
            self.query_one("#title", Static).update(plain(error.what))
            return
        try:
            if (version := reader.version()) != self._version:
                self._version = version
                self._show(*reader.newest(_ROWS), reader.rows())
        finally:
            reader.close()

    def _show(self, names: list[str], rows: list[tuple[object, ...]], count: int) -> None:
        some = f", the last {len(rows)} by key" if len(rows) < count else ""
        self.query_one("#title", Static).update(plain(f"view {self._view}: {count:,} rows{some}", style="bold"))
        table: DataTable[Text] = self.query_one(DataTable)
        at = table.cursor_row
        table.clear(columns=True)
        for name in names:
            table.add_column(plain(name, _WIDE, "bold"))
        for row in rows:
            table.add_row(*(plain("-" if value is None else value, _WIDE) for value in row))
        table.move_cursor(row=min(at, max(0, len(rows) - 1)), animate=False)
