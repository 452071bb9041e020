"""The dashboard on a terminal.

    all pipelines --enter--> one pipeline: steps, splits --v--> its view's rows
                                                         --l--> its late records by reason
                                                         --d--> its dead letters by reason

Once in an interval what runs is looked at, and the screen on top is told; cells change only where what they say has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.css.query import NoMatches
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, Input, Static

from clickpipe.top.asides import Letters
from clickpipe.top.cells import PIPELINES, STEPS, count, plain, splits, summary
from clickpipe.top.model import Pipeline
from clickpipe.top.rows import Rows
from clickpipe.top.viewed import Viewed

_KEYS = """\
up down pgup pgdn home end   move       enter  open
/ F4    filter by a part of the name    esc    back
< > F6  sort by another column          r      the other way round
p       pause, and go on                q F10  leave

In a pipeline:
v  the rows of its view      l  late records      d  dead letters

█ the step computes          ▒ others in its process do
░ held up by what is behind  · idle

REC/S  records per second    LAG  of the watermark, behind the clock
CKPT   age of the checkpoint RST  restarts
"""


class Top(App[None]):
    """`look`: what there is; `interval`: seconds between two looks."""

    TITLE = "clickpipe top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    Rows { height: 1fr; background: ansi_default; }
    Detail Rows { height: auto; }
    #reasons { height: auto; max-height: 50%; }
    .head { height: auto; padding: 0 1; }
    .filter { dock: bottom; height: 1; border: none; padding: 0 1; display: none; }
    .filter.-open { display: block; }
    Help { align: center middle; }
    Help VerticalScroll { width: auto; max-width: 100%; height: auto; max-height: 100%; border: round ansi_default; }
    Help Static { width: auto; height: auto; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("f10", "quit", show=False),
        Binding("question_mark,f1", "help", "Help", key_display="?"),
        Binding("p", "pause", "Pause"),
    ]

    def __init__(self, look: Callable[[], list[Pipeline]], interval: float) -> None:
        super().__init__(ansi_color=True)
        self._look, self._interval = look, interval
        self.found: list[Pipeline] = []
        self.is_paused = False

    def on_mount(self) -> None:
        self.found = self._look()
        self.push_screen(Overview())
        self.set_interval(self._interval, self._again)

    def _again(self) -> None:
        if not self.is_paused:
            self.found = self._look()
            for screen in self.screen_stack:
                if isinstance(screen, Shown):
                    screen.tell(self.found)

    def action_help(self) -> None:
        if not isinstance(self.screen, Help):
            self.push_screen(Help())

    def action_pause(self) -> None:
        self.is_paused = not self.is_paused


class Shown(Screen[None]):
    """A screen that is told what runs."""

    def tell(self, found: Sequence[Pipeline]) -> None:
        with suppress(NoMatches):  # its widgets are not there yet, or not any more
            self.told(found)

    def told(self, found: Sequence[Pipeline]) -> None:
        raise NotImplementedError

    @property
    def found(self) -> Sequence[Pipeline]:
        assert isinstance(self.app, Top)
        return self.app.found

    def on_mount(self) -> None:
        self.tell(self.found)

    def on_screen_resume(self) -> None:
        self.tell(self.found)


class Overview(Shown):
    """All pipelines."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash,f4", "filter", "Filter", key_display="/"),
        Binding("escape", "unfilter", show=False),
    ]

    def compose(self) -> ComposeResult:
        yield Static(classes="head", id="head", markup=False)
        yield Rows(PIPELINES, key=lambda one: f"{one.name} {one.life}")
        yield Input(placeholder="a part of the name", classes="filter", compact=True)
        yield Footer(compact=True)

    def told(self, found: Sequence[Pipeline]) -> None:
        wanted = self.query_one(Input).value
        self.query_one("#head", Static).update(_head(found, wanted))
        self.query_one(Rows).show([one for one in found if wanted.lower() in one.name.lower()])

    def action_filter(self) -> None:
        self.query_one(Input).add_class("-open").focus()

    def action_unfilter(self) -> None:
        self.query_one(Input).value = ""
        self.query_one(Input).remove_class("-open")
        self.query_one(Rows).focus()

    def on_input_changed(self) -> None:
        self.tell(self.found)

    def on_input_submitted(self) -> None:
        self.query_one(Input).remove_class("-open")
        self.query_one(Rows).focus()

    def on_rows_chosen(self) -> None:
        if (one := self.query_one(Rows).chosen) is not None:
            self.app.push_screen(Detail(one))


class Detail(Shown):
    """One pipeline."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace", "app.pop_screen", "Back", key_display="esc"),
        Binding("v", "view", "View"),
        Binding("l", "late", "Late"),
        Binding("d", "dead", "Dead"),
    ]

    def __init__(self, one: Pipeline) -> None:
        super().__init__()
        self._one = one

    def compose(self) -> ComposeResult:
        with VerticalScroll(can_focus=False):
            yield Static(classes="head", id="summary", markup=False)
            yield Rows(STEPS, key=lambda step: str(step.hop))
            yield Static(" ", id="gap")
            yield Rows(splits(self._one), key=lambda split: split.name, id="splits")
        yield Footer(compact=True)

    def told(self, found: Sequence[Pipeline]) -> None:
        self._one = next((one for one in found if (one.name, one.life) == (self._one.name, self._one.life)), self._one)
        self.query_one("#summary", Static).update(Text("\n").join(summary(self._one)))
        self.query_one(Rows).show(self._one.steps)
        self.query_one("#splits", Rows).show(self._one.splits, splits(self._one))
        self.query_one("#splits", Rows).display = bool(self._one.splits)

    def action_view(self) -> None:
        words = [step.says.split()[0] for step in self._one.steps if step.name == "sink" and step.says]
        views = [word.removeprefix("view:") for word in words if word.startswith("view:")]
        if views:
            self.app.push_screen(Viewed(views[-1]))
        else:
            self.notify("it writes to no view", severity="warning")

    def action_late(self) -> None:
        self.app.push_screen(Letters("late", self._one.name))

    def action_dead(self) -> None:
        self.app.push_screen(Letters("dead", self._one.name))


class Help(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,f1,enter", "dismiss", "Back", key_display="esc")]

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(_KEYS, markup=False)


def clock() -> str:
    return time.strftime("%H:%M:%S")


def _head(found: Sequence[Pipeline], wanted: str) -> Text:
    running = [one for one in found if one.is_running]
    bad = [one.name for one in found if one.state in ("failed", "killed", "silent", "waiting")]
    parts = [f"{len(running)} running", f"{count(sum(one.rate for one in running))} records/s", clock()]
    head = plain(f"clickpipe top   {' · '.join(parts)}", style="bold")
    if wanted:
        head.append_text(plain(f"   only {wanted}", style="cyan"))
    if bad:
        head.append_text(plain(f"   look at: {', '.join(bad)}", 60, style="bold red"))
    return head
