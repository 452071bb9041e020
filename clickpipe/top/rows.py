"""A table that is told its rows again and again: the cursor stays on the row it is on, only lines that have changed are drawn.

A table of textual draws all cells anew when one has changed, which takes more of a core than a dashboard may.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from clickpipe.top.cells import Column

_GAP = 2  # blanks between columns
_CURSOR, _HEAD = Style(reverse=True), Style(bold=True)


class Rows(ScrollView, can_focus=True):
    """`key`: what tells a row from others."""

    class Chosen(Message):
        """Enter, or a click on the row of the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "go(-1)", show=False),
        Binding("down,j", "go(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "go(-1_000_000)", show=False),
        Binding("end", "go(1_000_000)", show=False),
        Binding("enter", "choose", show=False),
        Binding("greater_than_sign,f6", "order(1)", "Sort", key_display="< >"),
        Binding("less_than_sign", "order(-1)", show=False),
        Binding("r", "reverse", show=False),
    ]

    def __init__(self, columns: Sequence[Column], key: Callable[[Any], str], **more: Any) -> None:
        super().__init__(**more)
        self._columns, self._key = columns, key
        self._by: int | None = None  # the column that it is sorted by; None: in the order in which they came
        self._is_reversed = False
        self._told: list[Any] = []
        self._rows: list[Any] = []
        self._lines: list[list[Text]] = []
        self._widths = [cell.cell_len for cell in self._head()]
        self.cursor = 0

    @property
    def keys(self) -> list[str]:
        """Of the rows, as they stand."""
        return [self._key(row) for row in self._rows]

    @property
    def chosen(self) -> Any:
        """What stands in the row of the cursor; None where there is none."""
        return self._rows[self.cursor] if self.cursor < len(self._rows) else None

    def show(self, rows: Sequence[Any], columns: Sequence[Column] | None = None) -> None:
        at = self._key(self.chosen) if self._rows else None
        before, widths = [self._head(), *self._lines], self._widths
        if columns and len(columns) != len(self._columns):
            self._by = None
        self._columns = columns or self._columns
        self._told, self._rows = list(rows), self._ordered(rows)
        self._lines = [[column.text(row) for column in self._columns] for row in self._rows]
        self._widths = [max(cells[n].cell_len for cells in (self._head(), *self._lines)) for n in range(len(self._columns))]
        keys = self.keys
        self._put_cursor(keys.index(at) if at in keys else min(self.cursor, max(0, len(keys) - 1)))
        if len(self._lines) + 1 != len(before) or widths != self._widths:
            self.virtual_size = Size(sum(self._widths) + _GAP * len(self._widths), len(self._lines) + 1)
            self.refresh(layout=True)
            return
        for number, (now, was) in enumerate(zip([self._head(), *self._lines], before, strict=True)):
            if now != was:
                self._draw(number - 1)

    def _ordered(self, rows: Sequence[Any]) -> list[Any]:
        if self._by is None:
            return list(rows)[::-1] if self._is_reversed else list(rows)
        column = self._columns[self._by]
        return sorted(rows, key=column.order, reverse=column.descends != self._is_reversed)

    def _head(self) -> list[Text]:
        marks = [
            "" if number != self._by else " ▲" if column.descends == self._is_reversed else " ▼"
            for number, column in enumerate(self._columns)
        ]
        return [Text(column.title + mark, style=_HEAD) for column, mark in zip(self._columns, marks, strict=True)]

    # How it is drawn.

    def render_line(self, y: int) -> Strip:
        number = y - 1 + round(self.scroll_offset.y)
        style = self.rich_style
        if y and number >= len(self._lines):
            return Strip.blank(self.size.width, style)
        cells = self._lines[number] if y else self._head()
        strip = Strip(self._segments(cells)).crop(self.scroll_offset.x, self.scroll_offset.x + self.size.width)
        strip = strip.extend_cell_length(self.size.width).apply_style(style)
        return strip.apply_style(_CURSOR) if y and number == self.cursor and self.has_focus else strip

    def _segments(self, cells: Sequence[Text]) -> list[Segment]:
        segments = []
        for column, cell, width in zip(self._columns, cells, self._widths, strict=True):
            blanks = Segment(" " * (width - cell.cell_len))
            drawn = self._drawn(cell)
            segments += [blanks, *drawn] if column.is_number else [*drawn, blanks]
            segments.append(Segment(" " * _GAP))
        return segments

    def _drawn(self, cell: Text) -> list[Segment]:
        if not cell.spans:
            return [Segment(cell.plain, Style.parse(cell.style) if isinstance(cell.style, str) else cell.style)]
        return [segment for segment in cell.render(self.app.console) if segment.text]

    def _draw(self, number: int) -> None:
        """The line of a row; -1: the head."""
        y = 0 if number < 0 else number + 1 - round(self.scroll_offset.y)
        if 0 <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._lines) + 1

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return sum(self._widths) + _GAP * len(self._widths)

    # The cursor.

    def _put_cursor(self, to: int) -> None:
        before, self.cursor = self.cursor, to
        top, rows = round(self.scroll_offset.y), max(1, self.size.height - 1)
        if not top <= to < top + rows and self.size.height:
            self.scroll_to(y=to if to < top else to - rows + 1, animate=False)
        for number in {before, to}:
            self._draw(number)

    def action_go(self, by: int) -> None:
        self._put_cursor(max(0, min(self.cursor + by, len(self._rows) - 1)))

    def action_page(self, by: int) -> None:
        self.action_go(by * max(1, self.size.height - 2))

    def action_choose(self) -> None:
        if self._rows:
            self.post_message(self.Chosen())

    def on_click(self, event: events.Click) -> None:
        number = event.y - 1 + round(self.scroll_offset.y)
        if event.y and number < len(self._rows):
            if number == self.cursor:
                self.action_choose()
            self._put_cursor(number)

    def on_focus(self) -> None:
        self._draw(self.cursor)

    def on_blur(self) -> None:
        self._draw(self.cursor)

    # The order.

    def action_order(self, step: int) -> None:
        """By the next column, or the one before; behind the last one, as they came."""
        places = [None, *range(len(self._columns))]
        self._by = places[(places.index(self._by) + step) % len(places)]
        self._again()

    def action_reverse(self) -> None:
        self._is_reversed = not self._is_reversed
        self._again()

    def _again(self) -> None:
        self.show(self._told)
        self.refresh()
