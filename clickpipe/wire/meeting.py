"""How the two ends of a link find each other: one listens at a door, the other one dials.

A connection that is lost is replaced in the same way. Garbage, strangers and slow visitors at a door are turned away, each
by a thread of its own, and never keep the right one from coming in.
"""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

from clickpipe.errors import Caution, OutsideError
from clickpipe.wire import tls
from clickpipe.wire.address import Address, is_loopback, parse_address
from clickpipe.wire.greeting import Greeted, Lines, NotGreeted, Party, answer, greet, why_failed
from clickpipe.wire.hello import OTHER
from clickpipe.wire.listen import listen
from clickpipe.wire.terms import Terms, checked

_VISITORS = 64  # who may be saying hello at once; one more, and one of them has to go
_CLOSED = (errno.EBADF, errno.EINVAL)  # of the socket that listens
_KINDS = 8  # of refusals that are said; the others are counted
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))  # seconds, seconds, tries


class Guest(Party, Protocol):
    """A party that waits for its connection."""

    def adopt(self, greeted: Greeted) -> None:
        """Use this connection from now on."""

    def wait(self, seconds: float | None) -> Greeted | None:
        """For a connection that is adopted; None when the time is over, or nobody wants one any more."""

    @property
    def is_leaving(self) -> bool: ...


class Unmet(Exception):
    """No connection came about in time. Says what stood in the way."""


class Meeting:
    """Where connections come from."""

    address: Address

    @property
    def is_local(self) -> bool:
        """Whether what is sent stays on this machine."""
        try:
            return all(map(is_loopback, self.address.places()))
        except OSError:  # a name that is not known yet
            return False

    def invite(self, guest: Guest) -> None:
        """This one will be waiting."""

    def open(self) -> None:
        """All are waiting: let peers come."""

    def meet(self, guest: Guest, deadline: float | None) -> Greeted | None:
        """The next connection; None when the guest is leaving. Raises Unmet after the deadline, OutsideError if refused."""
        raise NotImplementedError

    def leave(self, guest: Guest) -> None:
        """It needs no more connections."""


class Dialer(Meeting):
    """Connects, and tries again after pauses that grow."""

    def __init__(self, address: Address, terms: Terms) -> None:
        """Raises PlanError."""
        self.address, self._terms = address, checked(address, terms)
        files = terms.tls
        self._context = tls.client_context(files.cert, files.key, files.ca) if files else None

    def meet(self, guest: Guest, deadline: float | None) -> Greeted | None:
        timing = self._terms.timing
        pause = timing.first_pause
        end = time.monotonic() + timing.patience if deadline is None else deadline
        while not guest.is_leaving:
            try:
                return self._dialed(guest, min(timing.greeting, max(0.1, end - time.monotonic())))
            except NotGreeted as error:
                if error.is_final:
                    raise OutsideError(f"{self.address}: {error}") from None
                why = str(error)
            if time.monotonic() + pause > end:
                raise Unmet(why)
            guest.wait(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, timing.longest_pause)
        return None

    def _dialed(self, guest: Guest, seconds: float) -> Greeted:
        """Raises NotGreeted."""
        sock = None
        try:
            sock = self._connected(seconds)
            lines = Lines(sock, seconds)
            return greet(lines, sock, guest, self._terms.token)
        except NotGreeted:
            _close(sock)
            raise
        except OSError as error:
            _close(sock)
            raise why_failed(error) from None

    def _connected(self, seconds: float) -> socket.socket:
        """To the first place of the address that takes us. Raises OSError."""
        failure: OSError = OSError(errno.EADDRNOTAVAIL, "no such host")
        for family, where in self.address.places():
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(seconds)
                sock.connect(where)
                _prepare(sock)
                return self._context.wrap_socket(sock, server_hostname=self.address.host) if self._context else sock
            except OSError as error:
                sock.close()
                failure = error
        raise failure


class Door(Meeting):
    """Listens. Up to two guests wait behind it, one for a writer and one for a reader; the hello says for whom a visitor is."""

    def __init__(self, address: Address, terms: Terms, say: Callable[[str], None]) -> None:
        """Raises PlanError, OutsideError."""
        self._terms, self._say = checked(address, terms), say
        files = terms.tls
        self._context = tls.server_context(files.cert, files.key, files.ca) if files else None
        self._guests: dict[str, Guest] = {}  # by the role of who comes for them
        self._refused: Counter[str] = Counter()
        self._visitors: deque[socket.socket] = deque()  # those who have not said hello, by when they came
        self._listening = listen(address, may_be_reached=True)  # on these terms
        self._sock = self._listening.socket
        self._sock.setblocking(True)
        self.address = parse_address(self._listening.name) if address.port == 0 and not address.is_unix else address

    def invite(self, guest: Guest) -> None:
        self._guests[OTHER[guest.role]] = guest

    def open(self) -> None:
        threading.Thread(target=self._take_in, daemon=True, name="door").start()

    def meet(self, guest: Guest, deadline: float | None) -> Greeted | None:
        greeted = guest.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if greeted is None and not guest.is_leaving:
            raise Unmet("nobody has come")
        return greeted

    def leave(self, guest: Guest) -> None:
        self._guests = {role: other for role, other in self._guests.items() if other is not guest}
        if not self._guests:
            self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._sock.close()
        self._listening.remove()
        if more := sum(self._refused.values()) - len(self._refused):
            self._say(Caution(f"{self.address}: {more:,} more connections were refused for such reasons"))

    def _take_in(self) -> None:
        while True:
            try:
                sock, whence = self._sock.accept()
            except OSError as error:
                if error.errno in _CLOSED:
                    return
                time.sleep(0.1)  # until others have let go
                continue
            if len(self._visitors) >= _VISITORS:  # one by chance: whoever comes in crowds does not keep the right one out
                _show_out(random.choice(list(self._visitors)[:_VISITORS]))
            self._visitors.append(sock)
            threading.Thread(target=self._receive, args=(sock, _name(whence)), daemon=True, name="visitor").start()

    def _receive(self, visitor: socket.socket, whence: str) -> None:
        sock: socket.socket | None = None
        try:
            sock = visitor.dup()  # the visitor may be shown out meanwhile
            lines = Lines(sock, self._terms.timing.greeting)
            lines.prepare()
            _prepare(sock)
            if self._context:
                sock = self._context.wrap_socket(sock, server_side=True)
                lines = lines.over(sock)
            guest, greeted = answer(lines, sock, self._guests.get, self._terms.token)
            guest.adopt(greeted)
        except NotGreeted as error:
            self._refuse(sock, whence, error)
        except OSError as error:
            self._refuse(sock, whence, why_failed(error))
        except Exception as error:  # a stranger prints no traceback here
            self._refuse(sock, whence, NotGreeted(f"it brought what cannot be understood ({type(error).__name__})"))
        finally:
            self._visitors.remove(visitor)
            visitor.close()

    def _refuse(self, sock: socket.socket | None, whence: str, error: NotGreeted) -> None:
        _close(sock)
        kind = str(error)
        if kind not in self._refused and len(self._refused) >= _KINDS:
            kind = "others"
        self._refused[kind] += 1
        if self._refused[kind] == 1 and kind != "others":
            self._say(Caution(f"{self.address}: refused a connection{whence}: {error}"))


def _prepare(sock: socket.socket) -> None:
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _show_out(visitor: socket.socket) -> None:
    with contextlib.suppress(OSError):
        visitor.shutdown(socket.SHUT_RDWR)


def _name(whence: object) -> str:
    """Of who connects. Those of a Unix socket have none."""
    return f" from {whence[0]}:{whence[1]}" if isinstance(whence, tuple) else ""


def _close(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()
