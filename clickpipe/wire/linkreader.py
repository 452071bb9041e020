"""The reading end of a link, as an Inbox: what has come is confirmed, and what comes twice is dropped.

A message is confirmed when it is here, not when it is used: what is lost with this process, a checkpoint brings back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from clickpipe.errors import ClickpipeError, OutsideError, ReaderGone
from clickpipe.spent import IDLE, waiting
from clickpipe.wire.address import Address
from clickpipe.wire.connection import Connection, Lost
from clickpipe.wire.end import End
from clickpipe.wire.hello import READER
from clickpipe.wire.meeting import Meeting
from clickpipe.wire.message import Kind, Message
from clickpipe.wire.pump import Arriving
from clickpipe.wire.terms import Timing

_ROOM = 16 << 20
_EACH = 64  # bytes that a message takes, however small it is


class ReaderEnd(End):
    """Memory: 16 MiB and a message."""

    role = READER
    other = "the step before this one"

    def __init__(self, meeting: Meeting, timing: Timing, say: Callable[[str], None]) -> None:
        super().__init__(meeting, timing, say)
        self.chunks: deque[bytes] = deque()
        self.has_end = False
        self.is_trusted: bool | None = None  # None: nobody has come yet
        self._size = self._next = 0
        self._confirmed = -1  # what the writer was told last, on this connection
        self._is_known = False  # the writer knows that we have the end
        self._leaves_with: Kind | None = None

    @property
    def patience(self) -> float:
        return self._timing.linger if self.has_end else self._timing.patience

    def next(self) -> int:
        with self.changed:
            return self._next

    def take(self, seconds: float | None) -> bytes | None:
        """The next chunk; empty at the end; None when none has come in time. Raises what has failed."""
        with self.changed:
            self.changed.wait_for(lambda: self.chunks or self.has_end or self.failure, seconds)
            if not self.chunks and self.failure:
                raise self.failure
            if not self.chunks:
                return b"" if self.has_end else None
            was_full = not self.can_take
            chunk = self.chunks.popleft()
            self._size -= len(chunk) + _EACH
        if was_full and self.can_take:
            self.ring()
        return chunk

    def leave(self, *, has_failed: bool, seconds: float) -> None:
        """Nothing more is wanted. The writer is told, or, at the end, hears that all has come."""
        with self.changed:
            if not self.has_end or has_failed:
                self._leaves_with = Kind.FAILED if has_failed else Kind.GONE
            self.changed.notify_all()
        self.wait_until_over(seconds)

    def begin(self, connection: Connection) -> None:
        with self.changed:
            self.is_trusted = connection.is_trusted and self.is_trusted is not False
            self._confirmed = -1
            self.changed.notify_all()

    def fill(self, connection: Connection) -> None:
        if self._confirmed < self._next and not connection.is_pending:
            self._confirmed = self._next
            connection.say(Kind.ACK, self._next)

    def took(self, message: Message, connection: Connection) -> None:
        match message.kind:
            case Kind.DATA | Kind.END:
                self._keep(message)
            case Kind.BYE if self.has_end:
                self._is_known = True
            case Kind.FAILED:
                raise OutsideError(f"{self.meeting.address}: {self.other} failed; it has said why where it runs")
            case Kind.BEAT:
                pass
            case kind:
                raise Lost(f"it brought {kind.name} out of place")

    def _keep(self, message: Message) -> None:
        if message.sequence > self._next or (self.has_end and message.sequence == self._next):
            raise Lost(f"message {message.sequence} came in place of {self._next}")
        if message.sequence < self._next:
            return  # it was sent before the writer knew that it had come
        self._next += 1
        if message.kind is Kind.END:
            self.has_end = True
        elif message.payload:
            self.chunks.append(message.payload)
            self._size += len(message.payload) + _EACH

    @property
    def can_take(self) -> bool:
        return self._size < _ROOM

    @property
    def is_done(self) -> bool:
        return self._is_known or self._leaves_with is not None

    @property
    def is_leaving(self) -> bool:
        return self.is_done

    def last_words(self, connection: Connection) -> None:
        if self._leaves_with is not None:
            connection.say(self._leaves_with, self._next)

    def unmet(self, why: str) -> ClickpipeError | None:
        if self.has_end:
            return None
        return self.missing(why)


class LinkInbox(Arriving):
    """A stream from a link. `is_trusted` waits until the writer has come."""

    def __init__(self, end: ReaderEnd) -> None:
        super().__init__(str(end.meeting.address))
        self._end = end

    def get(self, timeout: float | None = None) -> bytes | None:
        if self._held:
            held, self._held = self._held, b""
            return held
        if self._is_at_end:
            return b""
        with waiting(IDLE):
            chunk = self._end.take(timeout)
        self._is_at_end = chunk == b""
        return chunk

    def give_up(self) -> None:
        self._end.fail(ReaderGone())

    @property
    def is_trusted(self) -> bool:  # type: ignore[override]  # of a pipe it is known from the start
        with self._end.changed:
            self._end.changed.wait_for(lambda: self._end.is_trusted is not None or self._end.failure)
            return bool(self._end.is_trusted)

    def close(self) -> None:
        self._end.leave(has_failed=False, seconds=self._end.patience)

    def abandon(self, seconds: float) -> None:
        """We have failed: the step before need not go on."""
        self._end.leave(has_failed=True, seconds=seconds)

    @property
    def address(self) -> Address:
        """With the port that was chosen."""
        return self._end.meeting.address
