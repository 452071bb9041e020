"""Many clients that send lines to one address: one thread reads them all.

    clients -> kernel -> one thread: accept, shake hands, read, cut -> queue of whole records -> the one that computes

While the queue is full no socket is read, and the kernel holds the clients back. Who is slow is judged by looks that
found nothing to read, so that nobody pays for a time in which we did not look.

Memory: the queue (16 MiB), and what clients have begun and not ended, at most 64 MiB of it for all together.
"""

from __future__ import annotations

import errno
import queue
import selectors
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from clickpipe.errors import Caution
from clickpipe.lines import Block, Overlong
from clickpipe.wire.client import Client, Cutting, Refused
from clickpipe.wire.listen import Listening
from clickpipe.wire.pump import Arriving
from clickpipe.wire.tls import reason_of

HANDSHAKE = 10.0  # seconds
MUTE = 10.0  # seconds without a byte since it came, after which a client makes room for another one
MOST_HELD = 64 << 20  # bytes
_FLUSH = 1 << 20
_ACCEPTED = 64  # of those who wait, before it is the others' turn
_BEAT = 0.1  # seconds between two looks whether anybody wants the rest
_PAUSE = 1.0  # seconds without new clients, where too many files are open
_FLOWS, _PAUSES = 2.0, 0.05  # seconds: at the end, how long is read on at most, and a pause that ends it
_PROBES = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # seconds, and how often
_SILENT = "nothing came for {} in the middle of a line"
_BROKE = "the connection broke in the middle of a line"
_ENDED = "the run ended in the middle of a line"
_TOO_MUCH = f"the longest of the unfinished lines of all clients, which together had more than {MOST_HELD >> 20} MiB"


@dataclass(frozen=True)
class Rules:
    """How clients are treated. Unit: seconds."""

    silence: float = 30.0  # in the middle of a line
    most: int = 1_000
    tls: ssl.SSLContext | None = None


class Clients(Arriving):
    """`say`: what a person should know meanwhile; it is called by another thread."""

    def __init__(self, listening: Listening, rules: Rules, cutting: Cutting, say: Callable[[str], None]) -> None:
        super().__init__(listening.name)
        self._listening, self._rules, self._cutting, self._say = listening, rules, cutting, say
        self._clients: set[Client] = set()
        self._ready: set[Client] = set()  # with more to read that no selector sees
        self._out: list[bytes] = []
        self._out_size, self._lost = 0, list[Overlong]()
        self._unfinished = 0  # bytes of unfinished lines
        self._counts = Counter[str]()
        self._first_failure = ""
        self._is_ending = self._is_closed = False
        self._accepts_from = self._next_look = 0.0
        self._wakes, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wakes, selectors.EVENT_READ)
        self._selector.register(listening.socket, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True, name="clients")
        self._thread.start()

    def end(self) -> None:
        """No more clients, and of these what has arrived. May be called in a signal handler."""
        self._is_ending = True
        self._wake()

    def close(self) -> None:
        """Nobody wants the rest. Nothing is left of it."""
        self._is_closed = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        with suppress(OSError):  # it is awake
            self._waker.send(b"!")

    def _run(self) -> None:
        try:
            while not self._is_ending and not self._is_closed:
                self._round()
            if not self._is_closed:
                self._take_the_rest()
            self._put(b"")
        except BaseException as error:  # else whoever waits would wait for ever
            self._put(OSError(errno.EIO, f"reading clients failed: {error!r}"))
        finally:
            self._clear_away()

    def _clear_away(self) -> None:
        self._listening.socket.close()
        self._listening.remove()
        for client in [*self._clients]:
            client.close()
        self._selector.close()
        self._wakes.close()
        self._waker.close()

    def _round(self) -> None:
        """One look at all of them."""
        events = self._selector.select(0 if self._ready else self._beat())
        now, ready, self._ready = time.monotonic(), self._ready, set()
        for key, _ in events:
            if isinstance(key.data, Client):
                ready.discard(key.data)
                self._serve(key.data, now)
            elif key.fileobj is self._listening.socket:
                self._accept(now)
        for client in ready:
            self._serve(client, now)
        if now >= self._next_look:
            self._next_look = now + self._beat()
            self._cut_off_the_silent(now)
            self._accept_again(now)
        self._flush()

    def _beat(self) -> float:
        return min(1.0, self._rules.silence / 4)

    # Who comes.

    def _accept(self, now: float, most: int = _ACCEPTED) -> None:
        for _ in range(most):
            try:
                connection, address = self._listening.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause(error, now)
                    return
                continue  # it has gone again
            if len(self._clients) >= self._rules.most and not self._make_room(now):
                self._refuse(connection)
            else:
                self._welcome(connection, address, now)

    def _pause(self, error: OSError, now: float) -> None:
        if not self._counts["pauses"]:
            self._say(Caution(f"{self._name}: new clients wait: {error.strerror}; ulimit -n raises the limit of this shell"))
        self._counts["pauses"] += 1
        self._accepts_from = now + _PAUSE
        self._selector.unregister(self._listening.socket)

    def _accept_again(self, now: float) -> None:
        if 0 < self._accepts_from <= now:
            self._accepts_from = 0
            self._selector.register(self._listening.socket, selectors.EVENT_READ)

    def _make_room(self, now: float) -> bool:
        """Of those who have never sent anything the first goes, if it has had the time to."""
        mute = [client for client in self._clients if not client.has_sent and client.heard < now - MUTE]
        if mute:
            self._counts["mute"] += 1
            self._forget(min(mute, key=lambda client: client.heard))
        return bool(mute)

    def _refuse(self, connection: socket.socket) -> None:
        if not self._counts["refused"]:
            self._say(Caution(f"{self._name}: {self._rules.most:,} clients are connected; more are refused (--max-clients)"))
        self._counts["refused"] += 1
        connection.close()

    def _welcome(self, connection: socket.socket, address: object, now: float) -> None:
        self._counts["clients"] += 1
        connection.setblocking(False)
        _keep_alive(connection)
        try:
            secured = self._secured(connection)
        except OSError as error:  # it has gone again
            self._note_failure(error)
            connection.close()
            return
        client = Client(secured, _spelled(address, self._counts["clients"]), self._cutting, now)
        self._clients.add(client)
        self._selector.register(secured, selectors.EVENT_READ, client)

    def _secured(self, connection: socket.socket) -> socket.socket:
        if self._rules.tls is None:
            return connection
        return self._rules.tls.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )

    # What they send.

    def _serve(self, client: Client, now: float) -> None:
        if client not in self._clients:  # it was cut off, for what another one has sent
            return
        try:
            if client.is_shaking_hands and not self._has_shaken_hands(client):
                return
            client.heard = now
            data = client.read()
        except OSError as error:
            self._fail(client, error)
            return
        if data == b"":
            self._let_go(client, None)
        elif data:
            self._take(client, data)

    def _has_shaken_hands(self, client: Client) -> bool:
        awaited = client.shake_hands()
        self._selector.modify(client.socket, awaited or selectors.EVENT_READ, client)
        return awaited is None

    def _take(self, client: Client, data: bytes) -> None:
        held = client.held
        try:
            block = client.take(data)
        except Refused as refused:
            self._unfinished -= held - client.held
            self._refuse_beginning(client, refused)
            return
        self._unfinished += client.held - held
        if client.has_more:
            self._ready.add(client)
        if block:
            self._put_out(block)
        if self._unfinished > MOST_HELD:
            self._keep_within_bounds()

    def _put_out(self, block: Block) -> None:
        self._lost += block.overlong
        if block.data:
            self._out.append(block.data)
            self._out_size += len(block.data)
        if self._out_size >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        if self._out:
            self._put(b"".join(self._out))
            self._out, self._out_size = [], 0
        if self._lost:
            self._put(tuple(self._lost))
            self._lost = []

    def _put(self, item: bytes | OSError | tuple[Overlong, ...]) -> None:
        """Waits for room, as long as anybody is there to make some."""
        while not self._is_closed:
            if self._is_ending:
                self._stop_listening()
            with suppress(queue.Full):
                self._queue.put(item, timeout=_BEAT)
                return

    # Who goes.

    def _let_go(self, client: Client, reason: str | None) -> None:
        """`reason`: why the line that it has begun is none."""
        self._forget(client)
        try:
            block = client.end(reason)
        except Refused as refused:
            block = refused.block
        if block:
            self._put_out(block)

    def _forget(self, client: Client) -> None:
        self._unfinished -= client.held
        self._clients.discard(client)
        self._ready.discard(client)
        with suppress(KeyError, ValueError):
            self._selector.unregister(client.socket)
        client.close()

    def _fail(self, client: Client, error: OSError) -> None:
        if client.is_shaking_hands:
            self._note_failure(error)
        self._let_go(client, _BROKE)

    def _note_failure(self, error: OSError | None) -> None:
        """Of a handshake. None: it took too long."""
        self._first_failure = self._first_failure or (reason_of(error) if error else f"longer than {HANDSHAKE:.0f} s")
        self._counts["failed"] += 1

    def _refuse_beginning(self, client: Client, refused: Refused) -> None:
        self._counts["cut off"] += 1
        self._forget(client)
        self._put_out(refused.block)

    def _cut_off_the_silent(self, now: float) -> None:
        """Between lines a client may be silent for as long as it likes."""
        late = now - HANDSHAKE
        for client in [client for client in self._clients if client.is_shaking_hands and client.heard < late]:
            self._note_failure(None)
            self._forget(client)
        silent = now - self._rules.silence
        for client in [client for client in self._clients if client.heard < silent and client.is_inside]:
            self._cut_off(client, _SILENT.format(f"{self._rules.silence:g} s"))

    def _cut_off(self, client: Client, reason: str) -> None:
        self._counts["cut off"] += 1
        self._let_go(client, reason)

    def _keep_within_bounds(self) -> None:
        while self._unfinished > MOST_HELD:
            self._cut_off(max(self._clients, key=lambda client: client.held), _TOO_MUCH)

    # How it ends.

    def _take_the_rest(self) -> None:
        """Of those who have come. Of who goes on sending, two seconds more at most."""
        self._stop_listening()
        self._take_what_is_on_its_way()
        for client in [*self._clients]:
            if client in self._clients:  # else another one's line was too much
                self._take_rest(client)
        self._flush()
        self._say_of_trouble()

    def _take_what_is_on_its_way(self) -> None:
        """Who has sent all and gone may have been ahead of us by what two machines hold: it goes on as long as it flows."""
        self._selector.unregister(self._wakes)
        deadline = time.monotonic() + _FLOWS
        while self._clients and not self._is_closed and time.monotonic() < deadline:
            if not self._ready and not self._selector.select(_PAUSES):
                return
            self._round()

    def _stop_listening(self) -> None:
        """Who waits to be let in has come."""
        if self._listening.socket.fileno() >= 0:
            self._accept(time.monotonic(), 2 * self._rules.most)
            self._listening.socket.close()
            self._listening.remove()
            self._accepts_from = 0

    def _take_rest(self, client: Client) -> None:
        if client.is_shaking_hands:
            self._forget(client)
            return
        data, has_ended = client.read_rest()
        if data:
            self._take(client, data)
        if client in self._clients:
            self._let_go(client, None if has_ended else _ENDED)

    def _say_of_trouble(self) -> None:
        counts = self._counts
        said = [
            (counts["refused"], "refused, since too many were connected"),
            (counts["cut off"], "cut off in the middle of a line"),
            (counts["mute"], "let go for others: they had never sent anything"),
            (counts["failed"], f"failed to agree on TLS; the first: {self._first_failure}"),
        ]
        told = [f"{count:,} {what}" for count, what in said if count]
        if told:
            self._say(Caution(f"{self._name}: of {counts['clients'] + counts['refused']:,} clients {', '.join(told)}"))


def _keep_alive(connection: socket.socket) -> None:
    """A client whose machine has gone without a word is let go after two minutes."""
    if connection.family == socket.AF_UNIX:
        return
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _PROBES.items():
            if hasattr(socket, option):  # not every system has them
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _spelled(address: object, number: int) -> str:
    """What a client is called."""
    if not isinstance(address, tuple):
        return f"client {number}"
    host, port = address[:2]
    return f"client [{host}]:{port}" if ":" in host else f"client {host}:{port}"
