"""The terminal, if there is one: what tables, charts and clickpipe top can show."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass

from clickpipe.cli.doctor.verdict import Verdict, note, ok

_NARROW, _LOW = 80, 24


@dataclass(frozen=True)
class Found:
    """`term`, `colorterm`: the variables. `has_no_color`: $NO_COLOR says so."""

    is_terminal: bool
    term: str
    colorterm: str
    columns: int
    lines: int
    encoding: str
    has_no_color: bool


def look(_: str) -> Found:
    size = shutil.get_terminal_size()
    return Found(
        sys.stdout.isatty(),
        os.environ.get("TERM", ""),
        os.environ.get("COLORTERM", ""),
        size.columns,
        size.lines,
        (sys.stdout.encoding or "").lower(),
        bool(os.environ.get("NO_COLOR")),
    )


def verdict(found: Found) -> Verdict:
    if "utf" not in found.encoding:
        return note(f"texts are written as {found.encoding or 'nothing known'}", "export LANG=C.UTF-8")
    if not found.is_terminal:
        return ok("standard output is none: no tables unless they are asked for, and no colours")
    text = f"{found.term or 'no TERM'}, {found.columns} by {found.lines}, {_colours(found)}, {found.encoding}"
    if found.term in ("", "dumb", "unknown"):
        return note(f"{text}: it cannot be drawn on", "export TERM=xterm-256color, or what the terminal is")
    if found.columns < _NARROW or found.lines < _LOW:
        return note(text, f"tables and clickpipe top want {_NARROW} by {_LOW} and more")
    return ok(text)


def _colours(found: Found) -> str:
    if found.has_no_color:
        return "no colours, as NO_COLOR says"
    if found.colorterm in ("truecolor", "24bit"):
        return "all colours"
    return "256 colours" if "256" in found.term else "some colours"
