"""One greeted connection: messages in both directions, nothing waited for."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator

from clickpipe.wire.greeting import Greeted
from clickpipe.wire.message import Bytes, Damaged, Decoder, Kind, Message, encoded

_FAREWELL = 1.0  # seconds for what was said last to arrive
_ROUND = 8 << 20  # bytes that are read before others have their turn
_WOULD_WAIT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Lost(Exception):
    """The connection is of no use any more. Says why."""


class Connection:
    """Memory: the message that is arriving, and what was put and not sent."""

    def __init__(self, greeted: Greeted) -> None:
        self.peer_next, self.is_trusted = greeted.next, greeted.is_trusted
        self._sock, self._early = greeted.sock, memoryview(greeted.early)
        self._decoder = Decoder()
        self._pending: deque[memoryview] = deque()
        self._sock.setblocking(False)
        self._needs_read = False  # TLS cannot send before it has read
        self.received = 0  # bytes
        self.has_more = True  # more may have come that polling does not tell of: TLS keeps some

    def fileno(self) -> int:
        return self._sock.fileno()

    def put(self, *parts: Bytes) -> None:
        self._pending.extend(memoryview(part) for part in parts if part)

    def say(self, kind: Kind, sequence: int = 0) -> None:
        self.put(*encoded(kind, sequence))

    @property
    def is_pending(self) -> bool:
        return bool(self._pending)

    @property
    def pending_bytes(self) -> int:
        return sum(map(len, self._pending))

    @property
    def wants(self) -> int:
        """What to poll for, besides what comes."""
        return select.POLLOUT if self._pending and not self._needs_read else 0

    def send(self) -> None:
        """As much as goes at once. Raises Lost."""
        self._needs_read = False
        try:
            while self._pending:
                part = self._pending[0]
                sent = self._sock.send(part)
                if sent == len(part):
                    self._pending.popleft()
                else:
                    self._pending[0] = part[sent:]
        except ssl.SSLWantReadError:
            self._needs_read = True
        except _WOULD_WAIT:
            pass
        except OSError as error:
            raise Lost(_words(error)) from None

    def receive(self) -> Iterator[Message]:
        """What has come. It may be left off; the rest is there the next time. Raises Lost."""
        left, self.has_more = _ROUND, True
        while left > 0:
            count = self._fill()
            if not count:
                self.has_more = False
                return
            left -= count
            self.received += count
            try:
                message = self._decoder.filled(count)
            except Damaged as error:
                raise Lost(f"it brought {error}") from None
            if message:
                yield message

    def _fill(self) -> int:
        """How many bytes have come; 0 when there are none yet."""
        space = self._decoder.space()
        if self._early:
            count = min(len(self._early), len(space))
            space[:count] = self._early[:count]
            self._early = self._early[count:]
            return count
        try:
            count = self._sock.recv_into(space)
        except _WOULD_WAIT:
            return 0
        except OSError as error:
            raise Lost(_words(error)) from None
        if not count:
            raise Lost("it was closed")
        return count

    def part(self) -> None:
        """Send what was said last and wait for the peer to close: closing with unread bytes would destroy it on its way."""
        deadline = time.monotonic() + _FAREWELL
        with contextlib.suppress(Lost, OSError, ValueError):
            while self._pending and self._is_ready(self.wants or select.POLLIN, deadline):
                self.send()
                if self._needs_read:
                    self._drop_input()
            self._sock.shutdown(socket.SHUT_WR)
            while self._is_ready(select.POLLIN, deadline):
                self._drop_input()
        self.close()

    def _drop_input(self) -> None:
        with contextlib.suppress(*_WOULD_WAIT):
            if not self._sock.recv(1 << 16):
                raise Lost("it was closed")

    def _is_ready(self, events: int, deadline: float) -> bool:
        poll = select.poll()
        poll.register(self._sock, events)
        return bool(poll.poll(max(0, deadline - time.monotonic()) * 1_000)) and time.monotonic() < deadline

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.close()


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "").lower().replace("_", " ")
        return f"TLS: {reason or error}"
    return (error.strerror or str(error)).lower()
