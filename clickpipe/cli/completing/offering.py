"""How values are offered for a parameter.

A function that looks for them may look at disks, so it has a moment, and what is not found by then is not offered.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from clickpipe.cli.completing.shells import Item

Look = Callable[[click.Context, str], Iterable[str]]
Completer = Callable[[click.Context, click.Parameter, str], "list[Item]"]
MOMENT = float(os.environ.get("_CLICKPIPE_COMPLETE_MOMENT", 0.4))  # seconds; tests on a busy machine have more
_MOST = 1_000  # names that are offered: nobody reads more


def offered(look: Look) -> Completer:
    """Those of them that begin as what is typed. One that ends in = : / or ( goes on."""

    @wraps(look)
    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[Item]:
        from click.shell_completion import CompletionItem

        from clickpipe.cli.completing.shells import OPEN

        def found() -> list[Item]:
            words = [word for word in look(ctx, incomplete) if word.startswith(incomplete)][:_MOST]
            return [CompletionItem(word, OPEN if word.endswith(("=", ":", "/", "(")) else "plain") for word in words]

        return within(MOMENT, found) or []

    return complete


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """What it gives; None where it takes longer, or fails. A thread that hangs ends with the process."""
    result: list[Any] = []

    def go() -> None:
        try:
            result.append(work())
        except Exception:  # a half typed line may name anything
            return

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    thread.join(seconds)
    return result[0] if result else None
