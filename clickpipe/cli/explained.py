"""A plan as a tree, for people.

ingest: …                     what a step does, and under it what there is to know of it
|  columns   …
+- partition: …
|  +- aggregate: …            what workers run stands under their partition
+- merge: …
`- sink: …
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap

from clickpipe.cli.words import printable
from clickpipe.columns import RESERVED, WindowInfo
from clickpipe.core.guarantee import Guarantee
from clickpipe.core.units import format_duration
from clickpipe.plan.explain import Told
from clickpipe.plan.lint import Advised

_WIDTH = 80  # where no terminal says otherwise
_LABEL = 11  # characters of `guarantee  `
_MOST = 60  # names in a list
_NO_BREAK = "\0"  # a space at which no line ends: nothing that is shown holds it


@dataclass(frozen=True)
class Look:
    """How it is drawn. `guides`: a line that goes on, a branch, and the last one; `is_bold`: names stand out."""

    width: int
    guides: tuple[str, str, str]
    is_bold: bool

    @staticmethod
    def of_output() -> Look:
        """The same on a pipe as on a terminal of 80 columns, but for what stands out."""
        is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        is_terminal = sys.stdout.isatty()
        width = max(40, min(shutil.get_terminal_size((_WIDTH, 24)).columns, 120)) if is_terminal else _WIDTH
        guides = ("│  ", "├─ ", "└─ ") if is_unicode else ("|  ", "+- ", "`- ")
        is_bold = is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return Look(width, guides, is_bold)


@dataclass
class _Branch:
    """`facts`: labels with a sentence, or with words that a line does not part."""

    name: str
    does: str
    facts: list[tuple[str, str | list[str]]]
    below: list[_Branch] = field(default_factory=list)


def as_text(
    told: Sequence[Told],
    parsed: Sequence[str] | None,
    said: Mapping[str, Guarantee],
    advised: Sequence[tuple[int, Advised]],
    *,
    ends: bool,
    look: Look,
) -> str:
    """`parsed`: columns that are made of the input; `ends`: whether that does."""
    root = _tree(told, parsed, said, ends=ends)
    lines = [*_drawn(root, look), *([""] if advised else []), *(line for _, one in advised for line in _advised(one, look.width))]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """In one line, whatever it holds."""
    return printable(" ".join(text.split()))


# What there is to know.


def _tree(told: Sequence[Told], parsed: Sequence[str] | None, said: Mapping[str, Guarantee], *, ends: bool) -> _Branch:
    branches: dict[int, _Branch] = {}
    window: WindowInfo | None = None
    for one in told:
        facts = _facts(one, window, is_last=one is told[-1], ends=ends)
        branches[one.number] = _Branch(one.step, one.does, [*facts])
        window = one.window or window
    has_source = told[0].is_source
    root = branches[1] if has_source else _Branch("standard input", "a stream", [("guarantee", str(said["source"]))])
    if has_source and parsed is not None:
        root.facts.insert(0, ("parses", _parsed(parsed, told[0].columns or {})))
    for one in told[has_source:]:
        (branches[one.inside] if one.inside else root).below.append(branches[one.number])
    if not told[-1].guarantee or (has_source and len(told) == 1):
        root.below.append(_Branch("standard output", "a stream", [("guarantee", str(said["sink"]))]))
    return root


def _parsed(parsed: Sequence[str], columns: Mapping[str, str]) -> str:
    """Of the columns that are in the input, and not made of one."""
    there = set(columns) - {*RESERVED}
    if there and there <= set(parsed):
        return "all columns"
    return f"{len(parsed)} of {len(there)} columns: {', '.join(_some(parsed))}" if parsed else "none of the columns"


def _facts(told: Told, known: WindowInfo | None, *, is_last: bool, ends: bool) -> Iterator[tuple[str, str | list[str]]]:
    """`known`: the window that the steps before have told of."""
    if told.reads and not (is_last and told.reads == list(told.columns or ())):
        yield "reads", _some(told.reads)
    yield from _columns(told, is_last=is_last)
    if told.keys is not None:
        yield "keys", told.keys or f"none: all records{' of a window' if known else ''} together"
    if told.window and told.window != known:
        yield "window", spoken(told.window)
    if told.keeps:
        yield "state", told.keeps.told(ends=ends)
    yield "memory", told.memory
    if told.guarantee:
        yield "guarantee", str(told.guarantee)


def _columns(told: Told, *, is_last: bool) -> Iterator[tuple[str, str | list[str]]]:
    """All of them where the list is as short as that of changes, or the last one; else what is other than before."""
    if told.columns is None:
        if told.is_source:
            yield "columns", "known when the stream comes"
        return
    added, dropped = told.added, told.dropped or []
    if is_last or added is None or (dropped and len(added) + len(dropped) >= len(told.columns)):
        columns = _typed(told.columns) or ["none"]
        yield "columns", columns if is_last else _some(columns)
        return
    if added:
        yield "columns", ["+ " + one for one in _some(_typed(added))]
    if dropped:
        yield "" if added else "columns", ["- " + name for name in _some(dropped)]


def _some(names: Sequence[str]) -> list[str]:
    """Of very many, the first; the last step has all columns."""
    return [*names[:_MOST], *([f"… {len(names) - _MOST:,} more"] if len(names) > _MOST else [])]


def _typed(columns: Mapping[str, str]) -> list[str]:
    return [f"{name} {kind}" for name, kind in columns.items()]


def spoken(window: WindowInfo) -> str:
    """Which windows these are."""
    said = f"each {window.size:,} records" if window.kind == "count" else format_duration(window.size)
    said = {
        "tumble": f"{said} each, adjoining",
        "hop": f"{said} each, every {format_duration(window.slide)}",
        "cumulate": f"from the start of each {said} to every {format_duration(window.slide)} of it",
        "session": f"sessions, until nothing has come for {said}",
        "count": said,
    }[window.kind]
    said += f", {format_duration(window.longest)} at most" if window.longest else ""
    said += f", per {', '.join(window.by)}" if window.by else ""
    said += f", by the calendar of {window.zone}" if window.zone else ""
    said += f", shifted by {format_duration(window.offset)}" if window.offset else ""
    return said + (f", corrected for {format_duration(window.lateness)}" if window.lateness else "")


# How it is drawn.


def _drawn(branch: _Branch, look: Look, first: str = "", rest: str = "") -> Iterator[str]:
    """`first` and `rest`: what stands before its first line, and before all others."""
    goes_on, fork, last = look.guides
    inner = rest + (goes_on if branch.below else " " * len(goes_on))
    name, *more = _wrapped(f"{branch.name}: {plain(branch.does)}", look.width - len(inner), " " * _LABEL)
    bold = f"\x1b[1m{branch.name}\x1b[0m" if look.is_bold else branch.name
    yield first + bold + name.removeprefix(branch.name)
    yield from (inner + line for line in more)
    for label, text in branch.facts:
        for number, line in enumerate(_unparted(text, look.width - len(inner) - _LABEL)):
            yield f"{inner}{'' if number else label:<{_LABEL}}{line}"
    for number, one in enumerate(branch.below, 1):
        is_last = number == len(branch.below)
        yield from _drawn(one, look, rest + (last if is_last else fork), rest + (" " * len(goes_on) if is_last else goes_on))


def _unparted(text: str | list[str], width: int) -> list[str]:
    """In lines. What stands in a list is not parted."""
    if isinstance(text, str):
        return _wrapped(plain(text), width)
    items = [plain(item).replace(" ", _NO_BREAK) for item in text]
    return [line.replace(_NO_BREAK, " ") for line in _wrapped(", ".join(items), width)]


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return wrap(text, max(width, 30), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]


def _advised(one: Advised, width: int) -> Iterator[str]:
    said = f"advice: {one.advice.name}: {one.node.written.name}: {one.advice.what}"
    yield from _wrapped(plain(said), width, "  ")
    yield from _wrapped(plain(f"remedy: {one.advice.remedy}"), width, "  ")
