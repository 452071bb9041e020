"""What a writer has been given and its reader has not confirmed, in order. Pure; whoever shares it locks it.

      confirmed | sent | to be sent
    ------------+------+------------>  sequence
              first   next          last

A new connection moves `next` back to what the reader wants.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from clickpipe.wire.message import LARGEST, Bytes, Kind, encoded

_MOST_BYTES = 64 << 20
_MOST_MESSAGES = 256
_SMALL = 64 << 10  # bytes


@dataclass
class Held:
    """A message. It is encoded when it is first sent, by the thread that sends."""

    kind: Kind
    sequence: int
    payload: list[Bytes]
    size: int
    parts: tuple[bytes, Bytes] | None = None

    def bytes(self, *, packs: bool) -> tuple[bytes, Bytes]:
        if self.parts is None:
            payload = b"".join(self.payload) if len(self.payload) > 1 else self.payload[0]
            self.parts = encoded(self.kind, self.sequence, payload, packs=packs)
            self.payload = []
        return self.parts


class Unconfirmed:
    """Memory: 64 MiB and one message, or 256 messages."""

    def __init__(self) -> None:
        self._held: deque[Held] = deque()
        self._first = self._next = self._last = 0
        self._sent = 0  # the first that was sent on no connection yet
        self._bytes = 0

    def add(self, payload: Bytes) -> None:
        """Small ones that wait to be sent become one message: its cost is per message."""
        last = self._held[-1] if self._next < self._last else None
        if last and last.parts is None and last.size + len(payload) <= _SMALL:
            last.payload.append(payload)
            last.size += len(payload)
            self._bytes += len(payload)
        else:
            self._append(Kind.DATA, payload)

    def add_end(self) -> None:
        self._append(Kind.END, b"")

    def _append(self, kind: Kind, payload: Bytes) -> None:
        self._held.append(Held(kind, self._last, [payload], len(payload)))
        self._last += 1
        self._bytes += len(payload)

    @property
    def has_room(self) -> bool:
        return self._bytes < _MOST_BYTES and len(self._held) < _MOST_MESSAGES

    @property
    def is_empty(self) -> bool:
        """Whether all is confirmed."""
        return not self._held

    @property
    def last(self) -> int:
        """The sequence of the next message that will be added."""
        return self._last

    def take(self) -> Held | None:
        """The next message to send."""
        if self._next == self._last:
            return None
        held = self._held[self._next - self._first]
        self._next += 1
        self._sent = max(self._sent, self._next)
        return held

    def confirm(self, sequence: int) -> None:
        """The reader has all before this one. Raises ValueError for what it was not sent."""
        if sequence > self._sent:
            raise ValueError(f"the reader says that it has {sequence} messages; {self._sent} were sent")
        while self._first < sequence:
            self._bytes -= self._held.popleft().size
            self._first += 1
        self._next = max(self._next, self._first)

    def rewind(self, sequence: int) -> None:
        """Send again from here. What was confirmed meanwhile is not sent again. Raises ValueError."""
        self.confirm(sequence)
        self._next = self._first


def pieces(data: bytes) -> list[Bytes]:
    """Data in pieces that a message can hold, not copied."""
    if len(data) <= LARGEST:
        return [data]
    view = memoryview(data)
    return [view[at : at + LARGEST] for at in range(0, len(data), LARGEST)]
