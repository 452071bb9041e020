"""One end of a link: a thread that keeps a connection, and gets another one when it is lost.

    compute thread <-- lock --> this thread <-- poll --> connection
                                     ^---- adopt ------- a visitor at the door, or our own dialing

    meet --> serve --lost--> meet again, within `patience` --> serve … --> over
                                        '--> failed: whoever computes hears of it

A side that cannot take in more stops reading its socket, and TCP stops the other one; beats go on meanwhile, so that slow is
not taken for dead. Silence counts only while this side reads.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable

from clickpipe.errors import Caution, ClickpipeError, OursError, OutsideError, ReaderGone
from clickpipe.wire.connection import Connection, Lost
from clickpipe.wire.greeting import Greeted
from clickpipe.wire.hello import new_id
from clickpipe.wire.meeting import Meeting, Unmet
from clickpipe.wire.message import Kind, Message
from clickpipe.wire.terms import Timing


class End:
    """What both ends have in common. Subclasses say what is sent, what is made of what comes, and when it is over."""

    role: str
    other: str  # the other side, in a message

    def __init__(self, meeting: Meeting, timing: Timing, say: Callable[[str], None]) -> None:
        self.id = new_id()
        self.meeting, self._timing, self._say = meeting, timing, say
        self.changed = threading.Condition()  # guards all that both threads use
        self.failure: ClickpipeError | ReaderGone | None = None
        self.is_over = False
        self._peer: str | None = None
        self._arrived: Greeted | None = None
        self._alarm, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lost_at: float | None = None
        self._heard_anything = False  # on this connection
        self._thread = threading.Thread(target=self._run, daemon=True, name=self.role)
        meeting.invite(self)

    def start(self) -> None:
        self._thread.start()

    # For subclasses to say.

    def begin(self, connection: Connection) -> None:
        """A new connection. Raises Lost."""

    def fill(self, connection: Connection) -> None:
        """Put what is to be sent now."""
        raise NotImplementedError

    def took(self, message: Message, connection: Connection) -> None:
        """A message came. Raises Lost for one that cannot be."""
        raise NotImplementedError

    @property
    def can_take(self) -> bool:
        """Whether there is room for what comes."""
        return True

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be said or heard. With a connection, what was put is sent before it ends."""
        raise NotImplementedError

    def last_words(self, connection: Connection) -> None:
        """Put what the other side must know before this one is over."""

    @property
    def is_leaving(self) -> bool:
        """Whether no connection is needed any more."""
        raise NotImplementedError

    def unmet(self, why: str) -> ClickpipeError | None:
        """What it means that no connection came about in time. None: nothing is missing."""
        raise NotImplementedError

    @property
    def patience(self) -> float:
        return self._timing.patience

    def missing(self, why: str) -> OutsideError:
        """The other side did not come, or did not come back."""
        address, seconds = self.meeting.address, f"{self.patience:g} s"
        if self._peer is not None:
            return OutsideError(f"{address}: {self.other} is gone, and did not come back within {seconds}: {why}")
        return OutsideError(f"{address}: {self.other} cannot be reached: {why}", notes=[f"tried for {seconds}"])

    # What visitors at a door and our own dialing call (meeting.Guest).

    def claim(self, peer: str) -> str | None:
        with self.changed:
            if self._peer not in (None, peer):
                return f"the {self.role} has another peer already"
            self._peer = peer
            return None

    def next(self) -> int:
        return 0

    def adopt(self, greeted: Greeted) -> None:
        with self.changed:
            if self.is_over:
                greeted.sock.close()
                return
            if self._arrived:
                self._arrived.sock.close()
            self._arrived = greeted
            self.changed.notify_all()
        self.ring()

    def wait(self, seconds: float | None) -> Greeted | None:
        with self.changed:
            self.changed.wait_for(lambda: self._arrived or self.is_leaving, seconds)
            arrived, self._arrived = self._arrived, None
            return arrived

    def wait_until_over(self, seconds: float | None = None) -> None:
        """Something was said that ends it: until the thread has ended."""
        self.ring()
        with self.changed:
            self.changed.wait_for(lambda: self.is_over, seconds)

    def ring(self) -> None:
        """Wake the thread: something has changed."""
        with self.changed, contextlib.suppress(BlockingIOError):
            if not self.is_over:
                os.write(self._bell, b"!")

    # The thread.

    def _run(self) -> None:
        try:
            while (connection := self._met()) is not None:
                if self._serve(connection):
                    break
        except (ClickpipeError, ReaderGone) as error:
            self.fail(error)
        except Exception as error:  # else whoever computes would wait for ever
            self.fail(OursError(f"a fault of clickpipe: {type(error).__name__}: {error}"))
        with self.changed:
            self.is_over = True
            if self._arrived:
                self._arrived.sock.close()
            os.close(self._alarm)
            os.close(self._bell)
            self.changed.notify_all()
        self.meeting.leave(self)

    def fail(self, error: ClickpipeError | ReaderGone) -> None:
        with self.changed:
            self.failure = self.failure or error
            self.changed.notify_all()

    def _met(self) -> Connection | None:
        """The next connection; None when none is needed. Raises what it means that there is none."""
        deadline = None if self._lost_at is None else self._lost_at + self._timing.patience
        try:
            greeted = self.meeting.meet(self, deadline)
        except Unmet as error:
            failure = self.unmet(str(error))
            if failure is not None:
                raise failure from None
            return None
        return Connection(greeted) if greeted else None

    def _serve(self, connection: Connection) -> bool:
        """Whether it is all over."""
        self._heard_anything = False
        try:
            self._exchange(connection)
        except Lost as lost:
            connection.close()
            if self._heard_anything or self._lost_at is None:
                self._lost_at = time.monotonic()
            if not self.is_leaving and self._arrived is None:
                address = self.meeting.address
                self._say(
                    Caution(f"{address}: the connection was lost: {lost}; {self.other} has {self.patience:g} s to come back")
                )
            return False
        except BaseException:
            connection.close()
            raise
        connection.part()
        return True

    def _exchange(self, connection: Connection) -> None:
        """Until all is over. Raises Lost."""
        self.begin(connection)
        poll = select.poll()
        poll.register(self._alarm, select.POLLIN)
        spoken = heard = time.monotonic()
        while True:
            self.fill(connection)
            if self.is_done:
                self.last_words(connection)
                return
            if connection.is_pending:
                spoken = time.monotonic()
            connection.send()
            reads = self.can_take
            poll.register(connection, connection.wants | (select.POLLIN if reads else 0))
            is_waiting = not (reads and connection.has_more)
            self._wait(poll, min(spoken + self._timing.beat, heard + self._timing.silence) if is_waiting else 0)
            now = time.monotonic()
            if not reads or self._take(connection):
                heard = now
            if now - heard > self._timing.silence:
                raise Lost(f"silence for {self._timing.silence:g} s")
            if self._arrived is not None:
                raise Lost("the peer has made a new one")
            if now - spoken > self._timing.beat and not connection.is_pending:
                connection.say(Kind.BEAT)

    def _wait(self, poll: select.poll, until: float) -> None:
        poll.poll(max(0.0, until - time.monotonic()) * 1_000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._alarm, 1 << 10)

    def _take(self, connection: Connection) -> bool:
        """Whether anything came, if only a part of a message."""
        before = connection.received
        for message in connection.receive():
            self._heard_anything = True
            with self.changed:
                self.took(message, connection)
                self.changed.notify_all()
            if not self.can_take:
                break
        return connection.received > before
