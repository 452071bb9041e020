"""What the dashboard shows of a pipeline, a step, a split: columns, each with its text and what it is sorted by.

Screens and `--once` have the same ones. Text that comes from outside is never given to a terminal as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from clickpipe.core.terminal import shown
from clickpipe.state.samples import SplitSample
from clickpipe.top.model import Pipeline, Step

_BLOCKS = " ▁▂▃▄▅▆▇█"
_STYLES = {
    "running": "green",
    "ended": "dim",
    "failed": "bold red",
    "killed": "bold red",
    "silent": "yellow",
    "waiting": "yellow",
}
BAR = 12  # characters


@dataclass(frozen=True)
class Column:
    """`text` and `order`: of what stands in the row; the greatest first where `descends`."""

    title: str
    text: Callable[[Any], Text]
    order: Callable[[Any], Any]
    is_number: bool = False
    descends: bool = False


# Text.


def plain(value: object, width: int = 0, style: str = "") -> Text:
    """Whatever it is, on one line. `width`: the most characters."""
    text = shown(str(value)).replace("\n", "\\n").replace("\t", "\\t")
    return Text(f"{text[: width - 1]}…" if 0 < width < len(text) else text, style=style, no_wrap=True)


def path(value: str, width: int) -> Text:
    """The same of something whose end tells more than its beginning."""
    text = plain(value)
    return text if len(text) <= width else Text("…") + text[1 - width :]


def count(value: float) -> str:
    """`1,234` `12.3k` `4.5M`"""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def size(value: float) -> str:
    """`512 B` `1.2 MiB`"""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return ""


def span(seconds: float | None) -> str:
    """`0.4s` `12s` `3m` `2h` `5d`; of what is ahead of the clock with its sign."""
    if seconds is None:
        return "-"
    sign, seconds = ("-" if seconds <= -0.05 else ""), abs(seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{sign}{seconds / length:.0f}{unit}"
    return f"{sign}{seconds:.0f}s" if seconds >= 10 else f"{sign}{seconds:.1f}s"


def instant(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "-"
    try:
        return datetime.fromtimestamp(milliseconds / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)


def sparkline(values: Sequence[float], width: int) -> str:
    """The newest on the right. What is not nothing has at least the lowest block."""
    last = list(values)[-width:]
    most = max(last, default=0)
    blocks = "".join(_BLOCKS[0 if not value else max(1, round(8 * value / most))] for value in last)
    return blocks.rjust(width)


def bar(step: Step, width: int = BAR) -> Text:
    """Of its process's time: what the step computes, what others in the process compute, held up, idle."""
    own = round(width * min(step.busy, step.spending.busy) / 1_000)
    busy = max(own, round(width * step.spending.busy / 1_000))
    held = min(width - busy, round(width * step.spending.backpressured / 1_000))
    text = Text(no_wrap=True)
    text.append("█" * own, "green")
    text.append("▒" * (busy - own), "green")
    text.append("░" * held, "red")
    return text.append("·" * (width - busy - held), "dim")


def percent(milliseconds: float) -> str:
    return f"{milliseconds / 10:.0f}%"


def _bad(value: float) -> Text:
    return Text(count(value), style="yellow" if value else "dim")


def _lag(one: Pipeline) -> float | None:
    return None if one.lag is None or not one.is_running else one.lag / 1_000


def _age(one: Pipeline) -> Text:
    age = one.checkpoint_age if one.is_running else None
    is_old = age is not None and one.interval is not None and bool(one.rate) and age > 10 * one.interval + 5
    return Text(span(age), style="yellow" if is_old else "")


def _named(one: Pipeline) -> Text:
    return plain(one.name, 24, "bold" if one.is_running else "dim")


PIPELINES = (
    Column("PIPELINE", _named, lambda one: one.name),
    Column("STATE", lambda one: Text(one.state, style=_STYLES.get(one.state, "")), lambda one: one.state),
    Column("REC/S", lambda one: Text(count(one.rate)), lambda one: one.rate, True, True),
    Column("LAG", lambda one: Text(span(_lag(one))), lambda one: _lag(one) or 0.0, True, True),
    Column("LATE", lambda one: _bad(one.outcomes.get("late", 0)), lambda one: one.outcomes.get("late", 0), True, True),
    Column("DEAD", lambda one: _bad(one.outcomes.get("dead", 0)), lambda one: one.outcomes.get("dead", 0), True, True),
    Column("CKPT", _age, lambda one: one.checkpoint_age or 0.0, True, True),
    Column("STATE SIZE", lambda one: Text(size(one.state_bytes)), lambda one: one.state_bytes, True, True),
    Column("RST", lambda one: _bad(one.restarts), lambda one: one.restarts, True, True),
    Column("LAST 5 MIN", lambda one: Text(sparkline(one.rates, 10), style="cyan"), lambda one: one.rate, False, True),
)

STEPS = (
    Column("STEP", lambda one: plain(one.name, 12, "bold"), lambda one: one.hop),
    Column("N", lambda one: Text(str(one.workers)), lambda one: one.workers, True),
    Column("IN/S", lambda one: Text(count(one.rate_in)), lambda one: one.rate_in, True, True),
    Column("OUT/S", lambda one: Text(count(one.rate_out)), lambda one: one.rate_out, True, True),
    Column("TIME", bar, lambda one: one.busy, False, True),
    Column("OWN", lambda one: Text(percent(one.busy)), lambda one: one.busy, True, True),
    Column("HELD", lambda one: Text(percent(one.spending.backpressured)), lambda one: one.spending.backpressured, True, True),
    Column("IDLE", lambda one: Text(percent(one.spending.idle)), lambda one: one.spending.idle, True, True),
    Column("ROWS", lambda one: Text(count(one.state_rows)), lambda one: one.state_rows, True, True),
    Column("STATE", lambda one: Text(size(one.state_bytes)), lambda one: one.state_bytes, True, True),
)


def splits(one: Pipeline) -> tuple[Column, ...]:
    """Of the splits of a pipeline: the one that holds its watermark back is marked."""

    def noted(split: SplitSample) -> Text:
        if split.silent is not None:
            return Text(f"idle for {span(split.silent / 1_000)}", style="dim")
        return Text("holds the watermark back", style="yellow") if split is one.held_by else Text("")

    return (
        Column("SPLIT", lambda split: path(split.name, 34), lambda split: split.name),
        Column("WATERMARK", lambda split: Text(instant(split.watermark)), lambda split: split.watermark or 0),
        Column(
            "READ",
            lambda split: Text("-" if split.position is None else size(split.position)),
            lambda split: split.position or 0,
            True,
        ),
        Column("", noted, lambda split: split.silent or 0),
    )


def summary(one: Pipeline) -> list[Text]:
    """A pipeline in a few lines."""
    ended = " · ".join(f"{'dead letters' if name == 'dead' else name} {many:,}" for name, many in one.outcomes.items())
    run = f" run {one.run}" if one.run else ""
    since = f" · {one.reason}" if one.reason else ""
    lines = [
        plain(f"{one.name}{run}: {one.state}{since}", style="bold"),
        plain(f"read {one.records:,} records, {size(one.bytes_in)}; now {count(one.rate)}/s, {size(one.bytes_rate)}/s"),
        plain(f"of these: {ended}" if ended else "none of them has ended yet"),
    ]
    if one.extent and one.is_running:
        lines.append(plain(f"{100 * one.extent[0] / max(1, one.extent[1]):.0f} % of the input, {span(one.left)} left"))
    if one.watermark is not None:
        lines.append(plain(f"watermark {instant(one.watermark)}, {span(one.lag and one.lag / 1_000)} behind the clock"))
    if one.checkpoint:
        made = f"{size(one.checkpoint.bytes)} in {span(one.checkpoint.seconds)}"
        lines.append(plain(f"checkpoint {one.checkpoint.epoch}, {span(one.checkpoint_age)} ago: {made}"))
    if one.bottleneck:
        lines.append(plain(f"bottleneck: {one.bottleneck.step}: {one.bottleneck.why}", style="yellow"))
    return lines
