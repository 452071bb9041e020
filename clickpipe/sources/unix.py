"""Processes of this user that send raw lines to the socket unix:PATH. Guarantee: cannot be replayed."""

from __future__ import annotations

from clickpipe.core.shared import SharedSplit
from clickpipe.core.source import Source, Split


class Unix(Source):
    is_shared = True

    def splits(self) -> list[Split]:
        return [SharedSplit(f"unix:{self.address}")]
