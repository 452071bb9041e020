"""Clients of raw ingestion, inside one process: who makes room, and what has come when it ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from links import until

from clickpipe.lines import Cutter
from clickpipe.wire import clients
from clickpipe.wire.client import Cutting
from clickpipe.wire.clients import Clients, Rules
from clickpipe.wire.listen import listen


@contextmanager
def listening(**rules: int) -> Iterator[tuple[Clients, int, list[str]]]:
    said: list[str] = []
    door = listen("tcp://127.0.0.1:0", may_be_reached=False)
    inbox = Clients(door, Rules(**rules), Cutting(), said.append)
    try:
        yield inbox, int(door.name.rsplit(":", 1)[1]), said
    finally:
        inbox.close()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def test_who_has_never_sent_anything_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others do not, however long they are silent between their lines."""
    monkeypatch.setattr(clients, "MUTE", -1.0)
    with listening(most=2) as (inbox, port, said), ExitStack() as stack:
        sender = stack.enter_context(connected(port))
        sender.sendall(b"one\n")
        assert inbox.get(60) == b"one\n"
        mute = stack.enter_context(connected(port))
        another = stack.enter_context(connected(port))
        another.sendall(b"two\n")
        assert inbox.get(60) == b"two\n"
        assert mute.recv(1) == b"", "it was let go"
        refused = stack.enter_context(connected(port))
        assert refused.recv(1) == b""
        sender.sendall(b"three\n")
        assert inbox.get(60) == b"three\n"
        inbox.end()
        assert inbox.get(60) == b""
    assert "1 let go for others: they had never sent anything" in said[-1]


def test_what_was_sent_before_the_end_is_read_though_buffers_were_full() -> None:
    """Nobody took anything meanwhile: most of it stood in the buffers of both sides, and the client had gone."""
    data = (b"x" * 1_023 + b"\n") * (20 << 10)
    with listening() as (inbox, port, _):
        sock = connected(port)

        def send() -> None:
            with sock:
                sock.sendall(data)

        sending = threading.Thread(target=send)
        sending.start()
        until(lambda: inbox._queue.full(), "it never fills")
        inbox.end()
        assert b"".join(iter(lambda: inbox.get(60), b"")) == data  # type: ignore[arg-type]  # nothing was given up
        sending.join()


def test_a_record_that_grows_byte_by_byte_is_not_looked_at_each_time() -> None:
    looked = 0

    def whole(data: bytes) -> int:
        nonlocal looked
        looked += len(data)
        return len(data) if data.endswith(b'"\n') else 0

    cutter = Cutter(whole)
    cutter.feed(b'1,"' + b"x\n" * (100 << 10))
    looked = 0
    for _ in range(50_000):
        assert cutter.feed(b"\n") is None
    assert looked < 10 * (250 << 10)
    assert cutter.feed(b"x" * (20 << 10) + b'"\n') is not None
