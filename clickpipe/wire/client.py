"""One connection of many: what it sends is cut into whole records before it meets what others send.

    handshake (TLS only)  ->  reading  ->  ended

Memory: the record that has begun, at most 1 MiB, in pieces of at least 64 KiB however small the packets are.
"""

from __future__ import annotations

import array
import fcntl
import selectors
import socket
import ssl
import termios
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from clickpipe.errors import ClickpipeError
from clickpipe.lines import Block, Cutter, Overlong, joined, overlong

_READ = 64 << 10
_PIECE = 64 << 10
_TURN = 4  # reads, after which it is another client's turn
_BROKEN = 100  # lines with open quotes that are given up one by one


@dataclass(frozen=True)
class Cutting:
    """How records are told apart: as Format.cut and Format.begin."""

    whole: Callable[[bytes], int] = len
    begin: Callable[[Block], Block] = lambda block: block


class Refused(Exception):
    """What the client has sent first does not fit. `block`: what is to be told of it."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block


class Client:
    """`heard`: when it has sent something last, in seconds."""

    def __init__(self, connection: socket.socket, name: str, cutting: Cutting, now: float) -> None:
        self.socket, self.name, self.heard = connection, name, now
        self.is_shaking_hands = isinstance(connection, ssl.SSLSocket)
        self._cutting, self._cutter = cutting, Cutter(cutting.whole)
        self._piece = bytearray()
        self._has_begun = self.has_sent = False
        self._failure: OSError | None = None

    @property
    def held(self) -> int:
        """Bytes of the record that has begun."""
        return self._cutter.held + len(self._piece)

    @property
    def is_inside(self) -> bool:
        """Whether it has begun a record, and has not ended it."""
        return bool(self._piece) or self._cutter.is_inside

    def shake_hands(self) -> int | None:
        """What to wait for, as for a selector; None when it is done. Raises OSError."""
        assert isinstance(self.socket, ssl.SSLSocket)
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            return selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            return selectors.EVENT_WRITE
        self.is_shaking_hands = False
        return None

    def read(self) -> bytes | None:
        """What has come; empty at its end; None when nothing is there. Raises OSError."""
        if self._failure:
            raise self._failure
        parts = self._received(_READ * _TURN)
        return None if parts == [] else b"".join(parts)

    def _received(self, most: int) -> list[bytes]:
        """What has come, an empty part at its end, and no more than `most`. A failure behind it is kept: it is told once only."""
        parts: list[bytes] = []
        try:
            while most > 0 and (part := self._receive(min(most, _READ))) is not None:
                parts.append(part)
                most -= len(part)
                if not part or (len(part) < _READ and not self.has_more):
                    break
        except OSError as error:
            self._failure = error
            if not parts:
                raise
        return parts

    @property
    def has_more(self) -> bool:
        """Whether something waits that a selector does not see: TLS reads ahead."""
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0

    def read_rest(self) -> tuple[bytes, bool]:
        """What has arrived by now, and whether its end has too: what it sends meanwhile is not waited for."""
        parts: list[bytes] = []
        with suppress(OSError):
            left = self._waiting()
            while left > 0 and (some := self._received(left)) and some[-1]:
                parts += some
                left -= sum(map(len, some))
            return b"".join(parts), self._failure is None and self._receive(1) == b""
        return b"".join(parts), False

    def _waiting(self) -> int:
        """Bytes that the kernel and TLS hold."""
        count = array.array("i", [0])
        fcntl.ioctl(self.socket.fileno(), termios.FIONREAD, count)
        return count[0] + (self.socket.pending() if isinstance(self.socket, ssl.SSLSocket) else 0)

    def _receive(self, most: int) -> bytes | None:
        try:
            return self.socket.recv(most)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def take(self, data: bytes) -> Block | None:
        """The records that these bytes complete, if any. Raises Refused."""
        self.has_sent = True
        if len(self._piece) + len(data) < _PIECE and b"\n" not in data:
            self._piece += data
            return None
        piece, self._piece = self._piece, bytearray()
        block = self._cutter.feed(bytes(piece + data) if piece else data)
        return self._begun(_on_their_own(block, self._cutting.whole)) if block else None

    def _begun(self, block: Block) -> Block:
        """Its first records are the beginning of an input of their own."""
        if self._has_begun or not block.data:
            return block
        self._has_begun = True
        try:
            return self._cutting.begin(block)
        except ClickpipeError as error:
            line = block.data.split(b"\n", 1)[0]
            lost = overlong(0, line, reason=f"{error.what}: {self.name} was cut off")
            raise Refused(Block(b"", 0, (*block.overlong, lost))) from None

    def end(self, reason: str | None) -> Block | None:
        """What it had begun: a record, although its newline is missing, unless there is a `reason` against it. Raises Refused."""
        last = self._cutter.feed(bytes(self._piece)) if self._piece else None
        self._piece = bytearray()
        rest = self._cutter.finish()
        blocks = [block for block in (last, self._last(rest, reason) if rest else None) if block]
        return self._begun(joined(blocks)) if blocks else None

    def _last(self, rest: Block, reason: str | None) -> Block:
        if reason and rest.data:
            lost = overlong(rest.offset, rest.data, reason=f"{reason}: {self.name}")
            return Block(b"", rest.offset, (*rest.overlong, lost))
        return _on_their_own(replace(rest, data=rest.data + b"\n" if rest.data else b""), self._cutting.whole)

    def close(self) -> None:
        """With a word of goodbye, where TLS has one: a client may wait for it."""
        if isinstance(self.socket, ssl.SSLSocket) and not self.is_shaking_hands:
            with suppress(OSError, ValueError):
                self.socket.unwrap()
        with suppress(OSError):
            self.socket.close()


def _on_their_own(block: Block, whole: Callable[[bytes], int]) -> Block:
    """Records that stay apart from what others send behind them: a quote that is not closed would take them in. A line that is
    taken out may have closed the quote of one before it, so all is looked at again."""
    data, bad = block.data, list[Overlong]()
    while (end := whole(data)) < len(data):
        line, _, rest = data[end:].partition(b"\n")
        if len(bad) >= _BROKEN:
            end, line, rest = 0, data, b""
        bad.append(overlong(block.offset, line, reason="a quote that is not closed"))
        data = data[:end] + rest
    return replace(block, data=data, overlong=(*block.overlong, *bad)) if bad else block
