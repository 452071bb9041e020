"""A stream between two processes over a socket, which survives the loss of its connections.

    StreamWriter -> LinkOutbox -> WriterEnd ==== socket, TLS ====> ReaderEnd -> LinkInbox -> StreamReader
                                   keeps what is                    confirms
                                   not confirmed  <===============  what has come

    hello.py     what both say first: versions, who they are, proof of a token, where to go on
    message.py   what then travels: data, end, confirmations, signs of life
    end.py       the thread at each end: poll, beats, silence, another connection when one is lost

While both processes live nothing is lost and nothing comes twice, whatever becomes of the connections between them. When one
dies the other fails, after `patience`. Either side may be the one that listens.
"""

from __future__ import annotations

from collections.abc import Callable

from clickpipe.wire.address import Address, parse_address
from clickpipe.wire.linkreader import LinkInbox, ReaderEnd
from clickpipe.wire.linkwriter import LinkOutbox, WriterEnd
from clickpipe.wire.meeting import Dialer, Door, Meeting
from clickpipe.wire.terms import Terms


def _mute(text: str) -> None:
    pass


def reader(address: str | Address, terms: Terms, say: Callable[[str], None] = _mute) -> LinkInbox:
    """Read the stream of whoever writes at this address. Raises PlanError, OutsideError."""
    meeting = meeting_at(address, terms, say)
    inbox = reader_at(meeting, terms, say)
    meeting.open()
    return inbox


def writer(address: str | Address, terms: Terms, say: Callable[[str], None] = _mute) -> LinkOutbox:
    """Write a stream to whoever reads at this address. Raises PlanError, OutsideError."""
    meeting = meeting_at(address, terms, say)
    outbox = writer_at(meeting, terms, say)
    meeting.open()
    return outbox


def meeting_at(address: str | Address, terms: Terms, say: Callable[[str], None] = _mute) -> Meeting:
    """To be opened when all that wait there do so: a door may have a reader and a writer."""
    parsed = parse_address(address) if isinstance(address, str) else address
    return Door(parsed, terms, say) if terms.listens else Dialer(parsed, terms)


def reader_at(meeting: Meeting, terms: Terms, say: Callable[[str], None] = _mute) -> LinkInbox:
    end = ReaderEnd(meeting, terms.timing, say)
    end.start()
    return LinkInbox(end)


def writer_at(meeting: Meeting, terms: Terms, say: Callable[[str], None] = _mute) -> LinkOutbox:
    """Messages are packed where they leave this machine."""
    end = WriterEnd(meeting, terms.timing, say, packs=terms.packs if terms.packs is not None else not meeting.is_local)
    end.start()
    return LinkOutbox(end)
