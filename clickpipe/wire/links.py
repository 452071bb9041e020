"""What a process has of links. What makes them is imported where there are some: it takes sockets, TLS and hashes along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clickpipe.wire.linkreader import LinkInbox
    from clickpipe.wire.linkwriter import LinkOutbox

TOKEN = "CLICKPIPE_TOKEN"


@dataclass(frozen=True)
class Links:
    """The ends of a process's streams that are links, instead of standard input and output.

    Several are read where they are merged, and written where records are divided among them.
    """

    read: Sequence[LinkInbox] = ()
    written: Sequence[LinkOutbox] = ()


NO_LINKS = Links()
