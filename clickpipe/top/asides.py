"""Why records of a pipeline were late or became dead letters: counted by reason, and the newest."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Static

from clickpipe.errors import ClickpipeError
from clickpipe.top.cells import Column, plain
from clickpipe.top.rows import Rows

_NEWEST = 20
_WIDE = 400  # characters of a record
_REASONS = (
    Column("RECORDS", lambda row: Text(f"{row[1]:,}"), lambda row: row[1], True, True),
    Column("REASON", lambda row: plain(row[0], _WIDE), lambda row: row[0]),
)
_LINES = (Column("THE NEWEST", lambda row: plain(row[1], _WIDE), lambda row: row[1]),)


class Letters(Screen[None]):
    """`kind`: late or dead."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace", "app.pop_screen", "Back", key_display="esc"),
        Binding("u", "count", "Update"),
    ]

    def __init__(self, kind: str, pipeline: str) -> None:
        super().__init__()
        self._kind, self._pipeline = kind, pipeline

    def compose(self) -> ComposeResult:
        yield Static("counting …", classes="head", id="title", markup=False)
        yield Rows(_REASONS, key=lambda row: row[0], id="reasons")
        yield Rows(_LINES, key=lambda row: str(row[0]), id="newest")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        self.action_count()

    @work(thread=True, exclusive=True)
    def action_count(self) -> None:
        """Files may be long: beside the screen."""
        from clickpipe.store import sides
        from clickpipe.store.tally import Tally

        kind = sides.DEAD if self._kind == "dead" else sides.LATE
        try:
            tally = Tally(kind, _NEWEST)
            for side in sides.sides_of(kind, self._pipeline):
                for some in sides.read(side):
                    tally.add(some)
            newest = [] if tally.newest is None else tally.newest[sides.LINE].to_list()
            told = f"{self._pipeline}: {tally.records:,} {kind.one if tally.records == 1 else kind.many}"
            self.app.call_from_thread(self._show, told, tally.reasons(), newest)
        except ClickpipeError as error:
            self.app.call_from_thread(self._show, error.what, [], [])

    def _show(self, told: str, reasons: list[tuple[str, int]], newest: list[str]) -> None:
        self.query_one("#title", Static).update(plain(told, style="bold"))
        self.query_one("#reasons", Rows).show(reasons)
        self.query_one("#newest", Rows).show([*enumerate(newest[::-1])])
