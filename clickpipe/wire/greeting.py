"""A fresh socket -> a connection between two ends that know each other, or the reason why not.

The lines and their order are drawn in hello.py.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from clickpipe.wire import hello
from clickpipe.wire.hello import OTHER, VERSION, Hello, NotUnderstood, Ready, Refused

_CREDENTIALS = struct.Struct("3i")  # process, user, group
_PIECE = 4096


class NotGreeted(Exception):
    """This connection comes to nothing. `is_final`: another try would come to the same."""

    def __init__(self, why: str, *, is_final: bool = False) -> None:
        super().__init__(why)
        self.is_final = is_final


class Party(Protocol):
    """One end of a link, as its peer meets it. Called by threads of their own."""

    role: str
    id: str

    def claim(self, peer: str) -> str | None:
        """Belong to this peer from now on; or why not."""

    def next(self) -> int:
        """The first message that a reader has not."""


P = TypeVar("P", bound=Party)


@dataclass(frozen=True)
class Greeted:
    """`early`: bytes that came behind the last line. `is_trusted`: the peer is this user, on this machine."""

    sock: socket.socket
    peer: str
    next: int
    early: bytes
    is_trusted: bool


class Lines:
    """Lines over a socket, until a deadline."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock, self._deadline = sock, time.monotonic() + seconds
        self._data = b""

    def over(self, sock: socket.socket) -> Lines:
        """The same deadline over a socket that is wrapped round this one."""
        self._sock = sock
        return self

    def prepare(self) -> None:
        """Before each call that waits. Raises NotGreeted when the time is over."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise NotGreeted("it did not say hello in time")
        self._sock.settimeout(left)

    def get(self) -> Hello | Ready | Refused:
        while b"\n" not in self._data:
            if len(self._data) > hello.LONGEST:
                raise NotGreeted(hello.kind_of(self._data))
            self.prepare()
            piece = self._sock.recv(_PIECE)
            if not piece:
                raise NotGreeted("it closed the connection" if not self._data else hello.kind_of(self._data))
            self._data += piece
            if self._data[:1] != b"{":
                raise NotGreeted(hello.kind_of(self._data))
        line, _, self._data = self._data.partition(b"\n")
        try:
            return hello.decode(line)
        except NotUnderstood as error:
            raise NotGreeted(str(error)) from None

    def put(self, line: Hello | Ready | Refused) -> None:
        self.prepare()
        self._sock.sendall(hello.encode(line))

    def rest(self) -> bytes:
        return self._data


def greet(lines: Lines, sock: socket.socket, party: Party, token: bytes | None) -> Greeted:
    """As who has connected. Raises NotGreeted, OSError."""
    if token is None and sock.family == socket.AF_UNIX and _user_of(sock) not in (0, os.geteuid()):
        raise NotGreeted("another user listens there, and no token proves that it is the right one", is_final=True)
    own = Hello(party.role, party.id, hello.new_id())
    lines.put(own)
    theirs = _hello(lines.get())
    refusal = _unfit(theirs, OTHER[party.role])
    if refusal:
        lines.put(Refused(refusal))
        raise NotGreeted(refusal, is_final=True)
    lines.put(_ready(party, own, theirs, token))
    ready = _accepted(lines, theirs, own, token)
    refusal = party.claim(theirs.id) or ""
    if refusal:
        raise NotGreeted(refusal, is_final=True)
    return Greeted(sock, theirs.id, ready.next, lines.rest(), is_trusted(sock))


def answer(lines: Lines, sock: socket.socket, choose: Callable[[str], P | None], token: bytes | None) -> tuple[P, Greeted]:
    """As who listens. `choose`: the party for a peer of this role. Raises NotGreeted, OSError."""
    theirs = _hello(lines.get())
    party = choose(theirs.role)
    refusal = _unfit(theirs, theirs.role)
    if not refusal and party is None:
        refusal = f"a {theirs.role} already listens here; this address is for a {OTHER[theirs.role]}"
    if refusal or party is None:
        lines.put(Refused(refusal))
        raise NotGreeted(refusal)
    own = Hello(party.role, party.id, hello.new_id())
    lines.put(own)
    ready = _accepted(lines, theirs, own, token)
    refusal = party.claim(theirs.id) or ""
    if refusal:
        lines.put(Refused(refusal))
        raise NotGreeted(refusal)
    lines.put(_ready(party, own, theirs, token))
    return party, Greeted(sock, theirs.id, ready.next, lines.rest(), is_trusted(sock))


def _hello(line: Hello | Ready | Refused) -> Hello:
    if isinstance(line, Refused):
        raise NotGreeted(f"the other side refuses: {line.why}", is_final=True)
    if not isinstance(line, Hello):
        raise NotGreeted("it does not begin with a hello")
    return line


def _unfit(theirs: Hello, wanted: str) -> str:
    if theirs.version != VERSION:
        return f"protocol version {theirs.version} meets version {VERSION}: the two clickpipes are of different versions"
    if theirs.role != wanted:
        return f"a {theirs.role} meets a {theirs.role}"
    return ""


def _ready(party: Party, own: Hello, theirs: Hello, token: bytes | None) -> Ready:
    return Ready(hello.proof(token, party.role, theirs.nonce, own.nonce) if token else None, party.next())


def _accepted(lines: Lines, theirs: Hello, own: Hello, token: bytes | None) -> Ready:
    """The other side's last line, if it proves what it has to."""
    ready = lines.get()
    if isinstance(ready, Refused):
        raise NotGreeted(f"the other side refuses: {ready.why}", is_final=True)
    if not isinstance(ready, Ready):
        raise NotGreeted("it says hello twice")
    if token and not hello.is_proof(ready.proof, hello.proof(token, theirs.role, own.nonce, theirs.nonce)):
        why = "the token is another one" if ready.proof else "a token is asked for, and the peer has none"
        lines.put(Refused(why))
        raise NotGreeted(why, is_final=True)
    return ready


def is_trusted(sock: socket.socket) -> bool:
    """Whether the peer is this user on this machine: it could read and write our files anyway."""
    return sock.family == socket.AF_UNIX and _user_of(sock) == os.geteuid()


def _user_of(sock: socket.socket) -> int:
    """Who is at the other end of a Unix socket."""
    _, user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(user)


def why_failed(error: OSError) -> NotGreeted:
    """In words. A certificate that is not accepted will not be accepted the next time."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotGreeted(f"its certificate is refused: {error.verify_message}", is_final=True)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        reason = (error.reason or str(error)).lower().replace("_", " ")
        if "alert" in reason:
            return NotGreeted(f"the other side refuses our certificate: {reason.partition('alert ')[2]}", is_final=True)
        words = "it does not speak TLS" if reason in ("wrong version number", "http request", "record layer failure") else reason
        return NotGreeted(words, is_final=True)
    if isinstance(error, TimeoutError):
        return NotGreeted("it does not answer")
    return NotGreeted(error.strerror or str(error))
