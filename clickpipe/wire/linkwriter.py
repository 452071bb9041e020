"""The writing end of a link, as an Outbox: what the reader has not confirmed is kept, and sent again after a loss."""

from __future__ import annotations

from collections.abc import Callable

from clickpipe.errors import ClickpipeError, OutsideError, ReaderGone
from clickpipe.spent import BACKPRESSURED, waiting
from clickpipe.wire.address import Address
from clickpipe.wire.connection import Connection, Lost
from clickpipe.wire.end import End
from clickpipe.wire.hello import WRITER
from clickpipe.wire.meeting import Meeting
from clickpipe.wire.message import Kind, Message
from clickpipe.wire.pump import Outbox
from clickpipe.wire.terms import Timing
from clickpipe.wire.unconfirmed import Unconfirmed, pieces

_AHEAD = 1 << 20  # bytes that are handed to a connection before it has sent those before


class WriterEnd(End):
    """Memory: see Unconfirmed."""

    role = WRITER
    other = "the step that reads this"

    def __init__(self, meeting: Meeting, timing: Timing, say: Callable[[str], None], *, packs: bool) -> None:
        super().__init__(meeting, timing, say)
        self._held, self._packs = Unconfirmed(), packs
        self._is_ended = self._has_failed = self._is_left = False
        self.when_gone: Callable[[], None] = lambda: None

    def give(self, data: bytes) -> None:
        """Waits while there is no room. Raises what has failed."""
        for piece in pieces(data):
            with self.changed:
                self.changed.wait_for(lambda: self._held.has_room or self.failure)
                self.check()
                self._held.add(piece)
            self.ring()

    def check(self) -> None:
        if self.failure:
            raise self.failure

    def drain(self) -> None:
        """Wait until all is confirmed."""
        with self.changed:
            self.changed.wait_for(lambda: self._held.is_empty or self.failure)
            self.check()

    def end(self) -> None:
        """All was given. Wait until it is confirmed, the end too."""
        with self.changed:
            if not self.failure:
                self._held.add_end()
            self._is_ended = True
        self.wait_until_over()
        self.check()

    def break_off(self, seconds: float) -> None:
        """We have failed."""
        with self.changed:
            self._has_failed = True
            self.changed.notify_all()
        self.wait_until_over(seconds)

    def begin(self, connection: Connection) -> None:
        with self.changed:
            try:
                self._held.rewind(connection.peer_next)
            except ValueError as error:
                raise OutsideError(f"{self.meeting.address}: {error}") from None
            self.changed.notify_all()

    def fill(self, connection: Connection) -> None:
        while connection.pending_bytes < _AHEAD:
            with self.changed:
                held = self._held.take()
            if held is None:
                return
            connection.put(*held.bytes(packs=self._packs))

    def took(self, message: Message, connection: Connection) -> None:
        match message.kind:
            case Kind.ACK:
                self._confirm(message.sequence)
            case Kind.GONE:
                self._confirm(message.sequence)
                self._leave(ReaderGone())
            case Kind.FAILED:
                self._leave(OutsideError(f"{self.meeting.address}: {self.other} failed; it has said why where it runs"))
            case Kind.BEAT:
                pass
            case kind:
                raise Lost(f"it brought {kind.name}, which no reader sends")

    def _confirm(self, sequence: int) -> None:
        try:
            self._held.confirm(sequence)
        except ValueError as error:
            raise Lost(str(error)) from None

    def _leave(self, why: ClickpipeError | ReaderGone) -> None:
        """The reader wants no more. One that has it all was merely quick."""
        if not (self._is_ended and self._held.is_empty):
            self.fail(why)
            self.when_gone()
        self._is_left = True

    @property
    def is_done(self) -> bool:
        return self._is_left or self._has_failed or (self._is_ended and self._held.is_empty)

    @property
    def is_leaving(self) -> bool:
        return self.is_done

    def last_words(self, connection: Connection) -> None:
        if not self._is_left:
            connection.say(Kind.FAILED if self._has_failed else Kind.BYE)

    def unmet(self, why: str) -> ClickpipeError | None:
        return self.missing(why)


class LinkOutbox(Outbox):
    """A stream to a link."""

    def __init__(self, end: WriterEnd) -> None:
        self._end = end

    def put(self, data: bytes) -> None:
        if data:
            with waiting(BACKPRESSURED):
                self._end.give(data)

    def flush(self) -> None:
        """Wait until all that was put is confirmed."""
        self._end.drain()

    def close(self) -> None:
        """Wait until everything is confirmed, the end too."""
        self._end.end()

    def when_reader_leaves(self, tell: Callable[[], None]) -> None:
        self._end.when_gone = tell

    def abandon(self, seconds: float) -> None:
        """We have failed: the reader need not wait for more."""
        self._end.break_off(seconds)

    @property
    def address(self) -> Address:
        """With the port that was chosen."""
        return self._end.meeting.address
