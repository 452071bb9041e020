"""TCP clients that send raw lines to tcp://HOST:PORT. Guarantee: cannot be replayed."""

from __future__ import annotations

from clickpipe.core.shared import SharedSplit
from clickpipe.core.source import Source, Split
from clickpipe.wire.address import parse_address


class Tcp(Source):
    is_shared = True

    def splits(self) -> list[Split]:
        address = f"tcp:{self.address}"
        parse_address(address)
        return [SharedSplit(address)]
