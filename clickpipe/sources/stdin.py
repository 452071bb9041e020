"""Standard input, live: what is there is read at once. Guarantee: cannot be replayed."""

from __future__ import annotations

import sys

from clickpipe.core.source import Source, Split
from clickpipe.wire.pump import Inbox


class Stdin(Source):
    def splits(self) -> list[Split]:
        return [StdinSplit()]


class StdinSplit(Split):
    name = "standard input"

    def __init__(self) -> None:
        self._inbox: Inbox | None = None

    def inbox(self) -> Inbox:
        if self._inbox is None:
            self._inbox = Inbox(sys.stdin.fileno(), self.name)
        return self._inbox
