"""Words for people, on standard error."""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> None:
    """One message. Where standard error is closed or full, nobody wants to hear it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"clickpipe: {printable(text)}\n")
        sys.stderr.flush()


def printable(text: str) -> str:
    """Names and values in a message may hold anything."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
