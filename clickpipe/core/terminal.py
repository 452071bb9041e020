"""What is shown to people: no control characters, which could move their cursor or type for them."""

from __future__ import annotations

import os
import re
import sys

from clickpipe.wire.pump import Outbox

# C0 (but for newline and tab), DEL, C1, and the marks that turn text round.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f\x80-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """The text with control characters as JSON escapes."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def standard_output() -> Outbox:
    """Standard output, written behind; made harmless where it is a terminal."""
    kind = _Terminal if sys.stdout.isatty() else Outbox
    return kind(sys.stdout.fileno(), "standard output")


def close_standard_output() -> None:
    """Its reader sees the end now, not when this process ends."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


class _Terminal(Outbox):
    def put(self, data: bytes) -> None:
        super().put(shown(data.decode("utf-8", "replace")).encode())
