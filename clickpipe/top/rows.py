"""A table that is told its rows again and again: the cursor stays on the row it is on, and only what has changed is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from clickpipe.top.cells import Column


class Rows(DataTable[Text]):
    """`key`: what tells a row from others."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("greater_than_sign,f6", "order(1)", "Sort", key_display="< >"),
        Binding("less_than_sign", "order(-1)", show=False),
        Binding("r", "reverse", "Reverse", show=False),
        Binding("home", "scroll_top", show=False),
        Binding("end", "scroll_bottom", show=False),
    ]

    def __init__(self, columns: Sequence[Column], key: Callable[[Any], str], **more: Any) -> None:
        super().__init__(cursor_type="row", zebra_stripes=False, **more)
        self._columns, self._key = columns, key
        self._by: int | None = None  # the column that it is sorted by; None: in the order in which they came
        self._is_reversed = False
        self._rows: dict[str, Any] = {}
        self._shown: dict[str, list[Text]] = {}

    def on_mount(self) -> None:
        if not self.columns:  # it may have been told its rows before
            self._head()

    @property
    def chosen(self) -> Any:
        """What stands in the row of the cursor; None where there is none."""
        keys = list(self._shown)
        return self._rows.get(keys[self.cursor_row]) if self.cursor_row < len(keys) else None

    def show(self, rows: Sequence[Any], columns: Sequence[Column] | None = None) -> None:
        self._columns = columns or self._columns
        self._rows = {self._key(row): row for row in self._ordered(rows)}
        made = {key: [_cell(column, row) for column in self._columns] for key, row in self._rows.items()}
        if list(made) == list(self._shown) and self.columns:
            self._change(made)
        else:
            self._fill(made)
        self._shown = made

    def _ordered(self, rows: Sequence[Any]) -> list[Any]:
        if self._by is None:
            return list(rows)[::-1] if self._is_reversed else list(rows)
        column = self._columns[self._by]
        return sorted(rows, key=column.order, reverse=column.descends != self._is_reversed)

    def _change(self, made: dict[str, list[Text]]) -> None:
        for key, cells in made.items():
            for number, (now, before) in enumerate(zip(cells, self._shown[key], strict=True)):
                if now != before:
                    self.update_cell(key, str(number), now, update_width=len(now) > len(before))

    def _fill(self, made: dict[str, list[Text]]) -> None:
        keys = list(self._shown)
        at = keys[self.cursor_row] if self.cursor_row < len(keys) else None
        if not self.columns:
            self._head()
        self.clear()
        for key, cells in made.items():
            self.add_row(*cells, key=key)
        if at in made:
            self.move_cursor(row=list(made).index(at), animate=False)

    def _head(self) -> None:
        self.clear(columns=True)
        for number, column in enumerate(self._columns):
            mark = "" if number != self._by else " ▲" if column.descends == self._is_reversed else " ▼"
            self.add_column(
                Text(column.title + mark, style="bold", justify="right" if column.is_number else "left"), key=str(number)
            )

    def action_order(self, step: int) -> None:
        """By the next column, or the one before; behind the last one, as they came."""
        places = [None, *range(len(self._columns))]
        self._by = places[(places.index(self._by) + step) % len(places)]
        self._again()

    def action_reverse(self) -> None:
        self._is_reversed = not self._is_reversed
        self._again()

    def _again(self) -> None:
        rows, self._shown = list(self._rows.values()), {}
        self._head()
        self.show(rows)


def _cell(column: Column, row: Any) -> Text:
    text = column.text(row)
    text.justify = "right" if column.is_number else "left"
    return text
