"""The latest rows of a view, while the pipeline writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Static

from clickpipe.errors import ClickpipeError
from clickpipe.top.cells import Column, plain
from clickpipe.top.rows import Rows

_ROWS = 200
_EVERY = 1.0  # seconds
_WIDE = 40  # characters of a value


class Viewed(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,backspace", "app.pop_screen", "Back", key_display="esc")]

    def __init__(self, name: str) -> None:
        super().__init__()
        self._view = name
        self._version = ""
        self._keys: list[int] = []  # places of the columns that tell a row from others

    def compose(self) -> ComposeResult:
        yield Static(classes="head", id="title", markup=False)
        yield Rows((), key=lambda row: str([row[at] for at in self._keys]))
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
                self._show(*reader.newest(_ROWS), reader.about.keys, reader.rows())
        finally:
            reader.close()

    def _show(self, names: list[str], rows: list[tuple[object, ...]], keys: Sequence[str], count: int) -> None:
        some = f", the last {len(rows)} by key" if len(rows) < count else ""
        self.query_one("#title", Static).update(plain(f"view {self._view}: {count:,} rows{some}", style="bold"))
        self._keys = [at for at, name in enumerate(names) if name in keys] or [*range(len(names))]
        self.query_one(Rows).show(rows, [_column(name, at, rows) for at, name in enumerate(names)])


def _column(name: str, at: int, rows: Sequence[tuple[object, ...]]) -> Column:
    """Of numbers on the right, the greatest first."""
    is_number = not any(isinstance(row[at], str | bytes) for row in rows)

    def text(row: Any) -> Text:
        return plain("-" if row[at] is None else row[at], _WIDE)

    return Column(plain(name, _WIDE).plain, text, lambda row: _rank(row[at]), is_number, is_number)


def _rank(value: object) -> tuple[bool, bool, Any]:
    """Whatever stands there can be sorted: nothing, numbers, text."""
    is_number = isinstance(value, int | float)
    return value is not None, not is_number, value if is_number else str(value)
