"""Sources: where raw bytes come from, split by split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clickpipe.wire.pump import Inbox


class Split:
    """An independent, ordered part of a source. `name` stands in messages and dead letters."""

    name: str

    def inbox(self) -> Inbox | None:
        """A live split: more may come at any time, and the inbox can wait for it."""
        return None

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """A split at rest: its bytes from `offset` on, some MiB at a time. Raises OutsideError or DataError."""
        return iter(())

    def identity(self, offset: int) -> Mapping[str, Any]:
        """What tells these bytes, up to `offset`, from others of the same name. Empty: they cannot be read again."""
        return {}

    def close(self) -> None:
        """It was read to its end, and nobody asks for its identity any more."""

    @property
    def is_live(self) -> bool:
        return self.inbox() is not None


@dataclass(frozen=True)
class Source:
    """What an address names. Subclasses say how its splits are found."""

    address: str

    def splits(self) -> list[Split]:
        """At least one. Raises PlanError or OutsideError when there is nothing."""
        raise NotImplementedError
