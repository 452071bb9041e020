"""A stream over a socket: nothing lost, nothing twice, whatever happens to the connection; and who is not let in.

Both ends live in this process. tests/test_socket_streams.py has real pipelines.
"""

from __future__ import annotations

import os
import random
import re
import socket
import ssl
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from links import FAST, SHORT, Authority, Hand, Proxy, Working, authority, made, until

from clickpipe.errors import ClickpipeError, OutsideError, PlanError, ReaderGone
from clickpipe.wire import link
from clickpipe.wire.address import Address, parse_address
from clickpipe.wire.linkreader import LinkInbox
from clickpipe.wire.linkwriter import LinkOutbox
from clickpipe.wire.meeting import Door
from clickpipe.wire.message import LARGEST, LARGEST_UNPACKED, PACKED, Decoder, Kind, Message
from clickpipe.wire.terms import Terms, Timing, Tls, read_token
from clickpipe.wire.unconfirmed import Unconfirmed

__all__ = ["authority"]  # a fixture
LISTENS, CONNECTS = Terms(True, timing=FAST), Terms(False, timing=FAST)
TOKEN = b"correct horse battery"


@contextmanager
def opened(
    at: str = "tcp://:0",
    *,
    reader_listens: bool = True,
    cuts: list[int] | None = None,
    listens: Terms = LISTENS,
    connects: Terms = CONNECTS,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[LinkInbox, LinkOutbox, Proxy | None]]:
    """Both ends, joined; with a proxy between them where there are cuts."""
    proxy = None

    def there(address: Address) -> Address:
        nonlocal proxy
        if cuts is not None:
            proxy = Proxy(("127.0.0.1", address.port), cuts)
            return Address("127.0.0.1", proxy.port)
        return address

    ends: list[Any] = []
    try:
        if reader_listens:
            ends.append(link.reader(at, listens, say))
            ends.append(link.writer(there(ends[0].address), connects, say))
            yield ends[0], ends[1], proxy
        else:
            ends.append(link.writer(at, listens, say))
            ends.append(link.reader(there(ends[0].address), connects, say))
            yield ends[1], ends[0], proxy
    finally:
        for end in ends:
            with suppress(ClickpipeError, ReaderGone):
                end.abandon(0.2)
        if proxy:
            proxy.close()


def sends(outbox: LinkOutbox, blobs: list[bytes]) -> Working:
    def work() -> None:
        for blob in blobs:
            outbox.put(blob)
        outbox.close()

    return Working(work)


def reads(inbox: LinkInbox) -> Working:
    def work() -> bytes:
        data = b"".join(inbox)
        inbox.close()
        return data

    return Working(work)


def blobs_of(sizes: list[int]) -> list[bytes]:
    """Different from each other, and half of each can be packed."""
    source = random.Random(5)
    return [source.randbytes(size // 2) + b"%d " % n * (size // 4) for n, size in enumerate(sizes)]


SIZES = st.lists(st.sampled_from([0, 1, 7, 500, 5_000, 70_000, 300_000]), max_size=30)


# What arrives.


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SIZES, st.booleans(), st.booleans(), st.booleans())
def test_what_is_put_is_what_comes(sizes: list[int], is_unix: bool, reader_listens: bool, packs: bool) -> None:
    blobs = blobs_of(sizes)
    with tempfile.TemporaryDirectory() as folder:
        at = f"unix:{folder}/s" if is_unix else "tcp://:0"
        listens, connects = replace(LISTENS, packs=packs), replace(CONNECTS, packs=packs)
        with opened(at, reader_listens=reader_listens, listens=listens, connects=connects) as (inbox, outbox, _):
            sending, reading = sends(outbox, blobs), reads(inbox)
            assert reading.get() == b"".join(blobs)
            sending.get()


def test_what_is_larger_than_a_message_is_cut_and_comes_whole() -> None:
    blob = random.Random(1).randbytes(3 * LARGEST + 17)
    with opened() as (inbox, outbox, _):
        sending, reading = sends(outbox, [blob, b"end"]), reads(inbox)
        assert reading.get() == blob + b"end"
        sending.get()


@settings(max_examples=25, deadline=None)
@given(
    SIZES.filter(bool),
    st.lists(st.one_of(st.integers(1, 900), st.integers(1, 400_000)), max_size=12),
    st.booleans(),
)
def test_connections_that_are_cut_anywhere_lose_and_repeat_nothing(
    sizes: list[int], cuts: list[int], reader_listens: bool
) -> None:
    """In the middle of a hello, of a header, of a payload, of a confirmation, of a goodbye."""
    blobs = blobs_of(sizes)
    with opened(cuts=cuts, reader_listens=reader_listens) as (inbox, outbox, _):
        sending, reading = sends(outbox, blobs), reads(inbox)
        assert reading.get() == b"".join(blobs)
        sending.get()


@pytest.mark.parametrize("reader_listens", [True, False])
def test_a_cut_near_the_end_leaves_both_sides_sure_of_it(reader_listens: bool) -> None:
    """In the last message, the end, its confirmation, the goodbye."""
    timing = replace(FAST, beat=30, silence=60, linger=1)
    listens, connects = replace(LISTENS, timing=timing), replace(CONNECTS, timing=timing)

    def run(cuts: list[int]) -> int:
        with opened(cuts=cuts, reader_listens=reader_listens, listens=listens, connects=connects) as (inbox, outbox, proxy):
            assert proxy is not None
            outbox.put(b"x" * 20)
            assert inbox.get(30) == b"x" * 20
            sending, reading = sends(outbox, []), reads(inbox)
            assert reading.get() == b""
            sending.get()
            return proxy.passed

    whole = run([])
    for back in range(0, 100, 3):
        run([whole - back])


def test_a_connection_that_goes_silent_is_replaced() -> None:
    """Half-open: nobody says that it is gone."""
    timing = replace(FAST, silence=0.4)
    blobs = blobs_of([50_000] * 40)
    with opened(cuts=[], listens=replace(LISTENS, timing=timing), connects=replace(CONNECTS, timing=timing)) as (
        inbox,
        outbox,
        proxy,
    ):
        assert proxy is not None
        for blob in blobs[:20]:
            outbox.put(blob)
        assert inbox.get(20)
        proxy.freeze()
        sending, reading = sends(outbox, blobs[20:]), reads(inbox)
        assert len(reading.get()) > 0
        sending.get()
        assert proxy.connections >= 2


def test_silence_without_records_is_no_loss() -> None:
    """Beats say that both live; more of them than would be silence."""
    timing = replace(FAST, beat=0.05, silence=0.3)
    said: list[str] = []
    with opened(listens=replace(LISTENS, timing=timing), connects=replace(CONNECTS, timing=timing), say=said.append) as (
        inbox,
        outbox,
        _,
    ):
        outbox.put(b"first")
        assert inbox.get(20) == b"first"
        assert inbox.get(1.5) is None
        outbox.put(b"last")
        sending, reading = sends(outbox, []), reads(inbox)
        assert reading.get() == b"last"
        sending.get()
    assert said == []


def test_a_reader_that_takes_nothing_stops_the_writer_and_is_not_taken_for_dead() -> None:
    """Memory: what is not confirmed, what the reader holds, and what the kernel does."""
    timing = replace(FAST, beat=0.05, silence=0.4)
    blob, given, said = random.Random(3).randbytes(1 << 20), 0, []
    with opened(listens=replace(LISTENS, timing=timing), connects=replace(CONNECTS, timing=timing), say=said.append) as (
        inbox,
        outbox,
        _,
    ):
        count = 150

        def work() -> None:
            nonlocal given
            for _ in range(count):
                outbox.put(blob)
                given += 1
            outbox.close()

        sending = Working(work)
        until(lambda: given >= 64, "the writer stops too early")
        before = -1
        while given != before:  # longer than silence would be
            before = given
            sending._thread.join(1.0)
        assert given < 64 + 16 + 32
        assert not sending.is_done
        assert len(reads(inbox).get()) == count << 20
        sending.get()
    assert said == []


def test_what_was_not_confirmed_is_bounded_in_messages_too() -> None:
    with opened("tcp://:0") as (inbox, outbox, _):
        unread = outbox._end._held
        for _ in range(20_000):
            outbox.put(b"a line\n")
            assert len(unread._held) <= 256
        sending, reading = sends(outbox, []), reads(inbox)
        assert reading.get() == b"a line\n" * 20_000
        sending.get()


class Held(RuleBasedStateMachine):
    """What a writer keeps, against a plain reader: it takes what comes next, and drops what it has."""

    def __init__(self) -> None:
        super().__init__()
        self.held = Unconfirmed()
        self.given = b""
        self.has: list[bytes] = []
        self.on_its_way: list[tuple[int, bytes]] = []

    @rule(data=st.binary(min_size=1, max_size=6))
    def add(self, data: bytes) -> None:
        self.held.add(data)
        self.given += data

    @rule(count=st.integers(1, 4))
    def send(self, count: int) -> None:
        for _ in range(count):
            if held := self.held.take():
                self.on_its_way.append((held.sequence, bytes(held.bytes(packs=False)[1])))

    @rule(count=st.integers(1, 4))
    def arrive(self, count: int) -> None:
        for sequence, payload in self.on_its_way[:count]:
            assert sequence <= len(self.has), "a message is missing"
            if sequence == len(self.has):
                self.has.append(payload)
            assert self.has[sequence] == payload
        self.on_its_way = self.on_its_way[count:]

    @rule()
    def confirm(self) -> None:
        self.held.confirm(len(self.has))

    @rule(back=st.integers(0, 2))
    def come_again(self, back: int) -> None:
        """What was on its way is lost. More may have been confirmed than the reader had when it said hello."""
        self.on_its_way = []
        self.held.rewind(max(0, len(self.has) - back))

    def teardown(self) -> None:
        self.come_again(0)
        self.send(1_000)
        self.arrive(1_000)
        assert b"".join(self.has) == self.given
        self.confirm()
        assert self.held.is_empty


TestHeld = Held.TestCase
TestHeld.settings = settings(max_examples=30, deadline=None)


# How it ends.


def test_a_reader_that_wants_no_more_ends_the_writer_quietly() -> None:
    with opened() as (inbox, outbox, _):
        outbox.put(b"a")
        assert inbox.get(20) == b"a"
        gone = Working(lambda: until(lambda: outbox._end.failure, "it never hears"))
        inbox.close()
        gone.get()
        with pytest.raises(ReaderGone):
            outbox.put(b"b")


def test_a_reader_that_wants_no_more_is_heard_while_much_is_on_its_way() -> None:
    """Closing a socket with unread bytes would destroy what was said last."""
    with opened() as (inbox, outbox, _):
        sending = sends(outbox, [random.Random(1).randbytes(4 << 20)] * 40)
        until(lambda: inbox._end._size >= 16 << 20, "the reader never fills")
        inbox.close()
        with pytest.raises(ReaderGone):
            sending.get()


def test_whoever_has_failed_says_so() -> None:
    with opened() as (inbox, outbox, _):
        outbox.put(b"a")
        assert inbox.get(20) == b"a"
        outbox.abandon(20)
        with pytest.raises(OutsideError, match="the step before this one failed"):
            inbox.get(20)
    with opened() as (inbox, outbox, _):
        outbox.put(b"a")
        assert inbox.get(20) == b"a"
        inbox.abandon(20)
        with pytest.raises(OutsideError, match="the step that reads this failed"):
            outbox.close()


def test_a_writer_that_is_gone_is_waited_for_and_then_missed() -> None:
    with opened(listens=Terms(True, timing=SHORT)) as (inbox, _outbox, _):
        pass
    inbox = link.reader("tcp://:0", Terms(True, timing=SHORT))
    hand = Hand(inbox.address.port)
    hand.greet()
    hand.send(Hand.DATA, 0, b"some")
    assert inbox.get(20) == b"some"
    hand.close()
    with pytest.raises(OutsideError, match=r"the step before this one is gone, and did not come back within 0\.5 s"):
        inbox.get(20)


def test_a_reader_that_is_gone_is_waited_for_and_then_missed() -> None:
    outbox = link.writer("tcp://:0", Terms(True, timing=SHORT))
    hand = Hand(outbox.address.port, "reader")
    hand.greet()
    outbox.put(b"some")
    assert hand.message() == (Hand.DATA, 0, b"some")
    hand.close()
    with pytest.raises(OutsideError, match=r"the step that reads this is gone, and did not come back within 0\.5 s"):
        outbox.close()


def test_nobody_there_is_said_after_tries() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    outbox = link.writer(f"tcp://:{port}", Terms(False, timing=SHORT))
    with pytest.raises(OutsideError, match=f"tcp://127.0.0.1:{port}: .*cannot be reached: Connection refused") as failed:
        outbox.close()
    assert failed.value.code == 75


def test_who_connects_first_waits_for_who_listens() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outbox = link.writer(f"unix:{folder}/s", CONNECTS)
        sending = sends(outbox, [b"early"])
        assert not sending.is_done
        inbox = link.reader(f"unix:{folder}/s", LISTENS)
        assert reads(inbox).get() == b"early"
        sending.get()


# The protocol, spoken by hand.


@pytest.fixture
def reading() -> Iterator[tuple[LinkInbox, list[str]]]:
    said: list[str] = []
    inbox = link.reader("tcp://:0", LISTENS, said.append)
    yield inbox, said
    inbox.abandon(0.2)


def test_a_writer_by_hand(reading: tuple[LinkInbox, list[str]]) -> None:
    inbox, _ = reading
    hand = Hand(inbox.address.port)
    assert hand.greet() == {"@": "ready", "next": 0}
    hand.send(Hand.DATA, 0, b"one ")
    hand.send(Hand.DATA, 1, zstandard.compress(b"two " * 100), flags=PACKED)
    hand.send(Hand.BEAT)
    hand.send(Hand.END, 2)
    while (message := hand.message()) != (Hand.ACK, 3, b""):
        assert message[0] in (Hand.ACK, Hand.BEAT)
    hand.send(Hand.BYE)
    assert reads(inbox).get() == b"one " + b"two " * 100
    hand.close()


def test_a_reader_by_hand_that_comes_again_gets_what_it_asks_for() -> None:
    outbox = link.writer("tcp://:0", LISTENS)
    first = Hand(outbox.address.port, "reader")
    first.greet()
    for n in range(3):
        outbox.put(b"%d" % n)
        assert first.message() == (Hand.DATA, n, b"%d" % n)
    first.close()
    again = Hand(outbox.address.port, "reader")
    again.id = first.id
    again.hello()
    again.say({"@": "ready", "next": 1})
    again.line()
    assert [again.message(), again.message()] == [(Hand.DATA, 1, b"1"), (Hand.DATA, 2, b"2")]
    again.send(Hand.ACK, 3)
    sending = sends(outbox, [])
    assert again.message()[:2] == (Hand.END, 3)
    again.send(Hand.ACK, 4)
    assert again.message()[0] == Hand.BYE
    again.close()
    sending.get()


BOMB = zstandard.ZstdCompressor(level=19).compress(b"\0" * (LARGEST_UNPACKED + 1))
ENDLESS = zstandard.ZstdCompressor(level=19).compressobj()
UNTOLD = ENDLESS.compress(b"\0" * (64 << 20)) + ENDLESS.flush()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"kind": 99}, "unknown kind"),
        ({"kind": Hand.DATA, "flags": 2}, "unknown kind"),
        ({"kind": Hand.DATA, "length": LARGEST + 1}, "says it has 4194305 bytes"),
        ({"kind": Hand.DATA, "length": 0xFFFFFFFF}, "says it has 4294967295 bytes"),
        ({"kind": Hand.END, "length": 1}, "says it has 1 bytes"),
        ({"kind": Hand.DATA, "payload": b"abc", "check": 1}, "checksum is wrong"),
        ({"kind": Hand.DATA, "payload": BOMB, "flags": PACKED}, "a packed message that says it has 8388609 bytes"),
        ({"kind": Hand.DATA, "payload": UNTOLD, "flags": PACKED}, "a packed message that says it has -1 bytes"),
        ({"kind": Hand.DATA, "payload": b"no zstd", "flags": PACKED}, "packed message that is damaged"),
        ({"kind": Hand.DATA, "sequence": 5, "payload": b"abc"}, "message 5 came in place of 1"),
        ({"kind": Hand.ACK}, "ACK out of place"),
        ({"kind": Hand.BYE}, "BYE out of place"),
    ],
)
def test_what_no_honest_peer_sends_costs_the_connection_and_nothing_else(
    reading: tuple[LinkInbox, list[str]], bad: dict[str, Any], words: str
) -> None:
    """The same writer may come again and go on."""
    inbox, said = reading
    hand = Hand(inbox.address.port)
    hand.greet()
    hand.send(Hand.DATA, 0, b"good ")
    hand.send(**bad)
    assert hand.is_closed()
    until(lambda: said, "nothing is said")
    assert words in said[0]
    again = Hand(inbox.address.port)
    again.id = hand.id
    assert again.greet()["next"] == 1
    again.send(Hand.DATA, 0, b"good ")  # what it has comes again
    again.send(Hand.DATA, 1, b"better")
    again.send(Hand.END, 2)
    again.send(Hand.BYE)
    assert reads(inbox).get() == b"good better"
    again.close()
    hand.close()


def test_a_peer_that_never_gets_beyond_its_hello_is_given_up() -> None:
    """Damage that comes each time does not go on for ever."""
    inbox = link.reader("tcp://:0", Terms(True, timing=SHORT))
    hand = Hand(inbox.address.port)
    reading = reads(inbox)
    while not reading.is_done:
        with suppress(OSError, AssertionError), closing(Hand(inbox.address.port)) as again:
            again.id = hand.id
            again.greet()
            again.send(99)
            again.is_closed()
    with pytest.raises(OutsideError, match="is gone"):
        reading.get()
    hand.close()


def test_a_confirmation_of_what_was_not_sent_is_refused() -> None:
    said: list[str] = []
    outbox = link.writer("tcp://:0", LISTENS, said.append)
    hand = Hand(outbox.address.port, "reader")
    hand.greet()
    hand.send(Hand.ACK, 7)
    assert hand.is_closed()
    until(lambda: said, "nothing is said")
    assert "says that it has 7 messages; 0 were sent" in said[0]
    hand.close()
    outbox.abandon(0.2)


# Who is let in.


def garbage(port: int, data: bytes) -> bytes:
    """What comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock, suppress(OSError):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return sock.recv(100)
    return b""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "it speaks HTTP"),
        (b'{"user_id":"u6","page":"/a"}\n', "raw records are for: clickpipe ingest"),
        (b'\t{"@":"stream","v":1}\n', "raw records are for: clickpipe ingest"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "it speaks TLS"),
        (b"{" * 200_000, "it sends records without a hello"),
        (b"\0\xff\xfe", "it does not speak this protocol"),
        (b"", "it closed the connection"),
        (b'{"@":"hello","v":1,"role":"writer","id":"x","nonce":"y"}\n', "raw records"),
        (b'{"@":"ready","next":0}\n', "does not begin with a hello"),
    ],
)
def test_garbage_on_the_port_is_answered_with_nothing_and_said_once(
    reading: tuple[LinkInbox, list[str]], data: bytes, words: str
) -> None:
    inbox, said = reading
    for _ in range(3):
        assert garbage(inbox.address.port, data) == b""
    until(lambda: said, "nothing is said")
    outbox = link.writer(inbox.address, CONNECTS)
    sending = sends(outbox, [b"the right one"])
    assert reads(inbox).get() == b"the right one"
    sending.get()
    until(lambda: len(said) > 1, "what was counted is not said")
    assert len(said) == 2
    assert words in said[0]
    assert "2 more connections were refused" in said[1]


def test_crowds_that_say_nothing_do_not_keep_the_right_one_out(reading: tuple[LinkInbox, list[str]]) -> None:
    inbox, _ = reading
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", inbox.address.port), timeout=30))
        sending = sends(link.writer(inbox.address, CONNECTS), [b"the right one"])
        assert reads(inbox).get() == b"the right one"
        sending.get()


def test_who_does_not_say_hello_in_time_is_sent_away() -> None:
    inbox = link.reader("tcp://:0", Terms(True, timing=replace(FAST, greeting=0.2)))
    with socket.create_connection(("127.0.0.1", inbox.address.port), timeout=30) as sock:
        sock.sendall(b'{"@":')
        assert sock.recv(10) == b""
    inbox.abandon(0.2)


def test_another_version_is_refused_with_words_on_both_sides(reading: tuple[LinkInbox, list[str]]) -> None:
    inbox, said = reading
    hand = Hand(inbox.address.port, version=2)
    answer = hand.hello()
    assert answer["@"] == "refused"
    assert "protocol version 2 meets version 1" in answer["why"]
    assert hand.is_closed()
    until(lambda: said, "nothing is said")
    assert "protocol version 2 meets version 1" in said[0]
    hand.close()


def test_who_connects_to_another_version_fails_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        outbox = link.writer(f"tcp://:{server.getsockname()[1]}", CONNECTS)
        sock, _ = server.accept()
        with sock:
            sock.recv(1000)
            sock.sendall(b'{"@":"hello","v":7,"new":true}\n')
            with pytest.raises(OutsideError, match="protocol version 7 meets version 1"):
                outbox.close()


@pytest.mark.parametrize("role", ["reader", "writer"])
def test_a_second_peer_is_refused_with_words(role: str) -> None:
    with opened() as (inbox, outbox, _):
        outbox.put(b"a")
        assert inbox.get(20) == b"a"
        make = link.writer if role == "writer" else link.reader
        second = make(inbox.address, CONNECTS)
        with pytest.raises(OutsideError, match=r"has another peer already|this address is for a writer"):
            second.put(b"b") or second.close() if role == "writer" else second.get(20)  # type: ignore[union-attr]  # by role
        outbox.put(b"c")
        sending, reading = sends(outbox, []), reads(inbox)
        assert reading.get() == b"c"
        sending.get()


@pytest.mark.parametrize(
    ("mine", "theirs", "words"),
    [
        (TOKEN, b"another secret, as long", "the token is another one"),
        (TOKEN, None, "a token is asked for, and the peer has none"),
        (None, TOKEN, "a token is asked for, and the peer has none"),
    ],
)
def test_another_token_is_refused_and_the_right_one_comes_in(mine: bytes | None, theirs: bytes | None, words: str) -> None:
    inbox = link.reader("tcp://:0", replace(LISTENS, token=mine))
    wrong = link.writer(inbox.address, replace(CONNECTS, token=theirs))
    with pytest.raises(OutsideError, match=words):
        wrong.close()
    if mine:
        right = link.writer(inbox.address, replace(CONNECTS, token=mine))
        sending = sends(right, [b"in"])
        assert reads(inbox).get() == b"in"
        sending.get()
    else:
        inbox.abandon(0.2)


def test_a_token_is_never_sent_and_a_proof_is_worth_nothing_the_next_time() -> None:
    inbox = link.reader("tcp://:0", replace(LISTENS, token=TOKEN))
    hand = Hand(inbox.address.port, token=TOKEN)
    theirs = hand.hello()
    assert TOKEN.decode() not in str(theirs)
    again = Hand(inbox.address.port)
    other = again.hello()
    assert theirs["nonce"] != other["nonce"]
    again.say({"@": "ready", "next": 0, "proof": _proof(TOKEN, theirs["nonce"], hand.nonce)})
    assert again.line() == {"@": "refused", "why": "the token is another one"}
    again.close()
    hand.close()
    inbox.abandon(0.2)


def _proof(token: bytes, asked: str, own: str) -> str:
    import hashlib
    import hmac

    return hmac.new(token, f"clickpipe 1\nwriter\n{asked}\n{own}".encode(), hashlib.sha256).hexdigest()


def test_a_token_is_read_from_a_file_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.write_bytes(TOKEN + b"\n")
    path.chmod(0o644)
    with pytest.raises(PlanError, match="everybody on this machine can read it"):
        read_token(str(path))
    path.chmod(0o600)
    assert read_token(str(path)) == TOKEN
    path.write_bytes(b"short\n")
    with pytest.raises(PlanError, match="at least 16 characters"):
        read_token(str(path))
    monkeypatch.setenv("CLICKPIPE_TOKEN", TOKEN.decode())
    assert read_token(None) == TOKEN
    assert TOKEN.decode() not in repr(Terms(True, token=TOKEN))


# TLS.


def with_tls(terms: Terms, pair: tuple[str, str], ca: str) -> Terms:
    return replace(terms, tls=Tls(*pair, ca))


def test_a_stream_over_tls_survives_cuts_too(authority: Authority) -> None:
    blobs = blobs_of([70_000] * 40)
    listens = with_tls(LISTENS, authority.signs("server"), authority.ca)
    connects = with_tls(CONNECTS, authority.signs("client"), authority.ca)
    with opened(cuts=[900, 3_000, 40_000, 200_000, 7_000], listens=listens, connects=connects) as (inbox, outbox, proxy):
        sending, reading = sends(outbox, blobs), reads(inbox)
        assert reading.get() == b"".join(blobs)
        sending.get()
        assert proxy is not None
        assert proxy.connections >= 6


def test_a_reader_over_tls_that_pauses_misses_nothing(authority: Authority) -> None:
    """TLS keeps bytes that polling the socket does not tell of: here the end, in one record with what fills the reader."""
    timing = replace(FAST, beat=100, silence=200)
    inbox = link.reader("tcp://:0", with_tls(replace(LISTENS, timing=timing), authority.signs("server"), authority.ca))
    context = ssl.create_default_context(cafile=authority.ca)
    context.load_cert_chain(*authority.signs("client"))
    hand = Hand(inbox.address.port, tls=context)
    hand.greet()
    blob = random.Random(2).randbytes(LARGEST)
    hand.sock.sendall(b"".join(made(Hand.DATA, n, blob) for n in range(4)) + made(Hand.END, 4))
    until(lambda: inbox._end._size >= 16 << 20, "the reader never fills")
    for _ in range(4):
        assert inbox.get(30) == blob
    assert inbox.get(30) == b""
    hand.send(Hand.BYE)
    inbox.close()
    hand.close()


@pytest.mark.parametrize("case", ["expired client", "expired server", "stranger", "plain client", "plain server", "other name"])
def test_certificates_that_are_not_right_are_refused(
    case: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has expired is refused by its owner too, unless his clock is wrong, as it is here."""
    monkeypatch.setattr("clickpipe.wire.tls._check_time", lambda *_: None)
    server, client, ca = authority.signs("server"), authority.signs("client"), authority.ca
    if case == "expired client":
        client = authority.signs("old-client", days=-1)
    elif case == "expired server":
        server = authority.signs("old-server", days=-1)
    elif case == "other name":
        server = authority.signs("elsewhere", host="DNS:elsewhere.example")
    elif case == "stranger":
        client = Authority(tmp_path, "stranger").signs("client")
    said: list[str] = []
    listens = LISTENS if case == "plain server" else with_tls(LISTENS, server, ca)
    connects = CONNECTS if case == "plain client" else with_tls(CONNECTS, client, ca)
    inbox = link.reader("tcp://:0", listens, said.append)
    outbox = link.writer(inbox.address, replace(connects, timing=SHORT))
    with pytest.raises(OutsideError) as failed:
        outbox.close()
    until(lambda: said, "the listener says nothing")
    words = {
        "expired client": ("refuses our certificate: certificate expired", "certificate has expired"),
        "expired server": ("its certificate is refused: certificate has expired", "refuses our certificate: certificate expired"),
        "stranger": ("refuses our certificate: unknown ca", "its certificate is refused"),
        "plain client": ("cannot be reached", "it does not speak TLS"),
        "plain server": ("", "it speaks TLS, and this side was given no certificate"),
        "other name": ("its certificate is refused: IP address mismatch", "refuses our certificate"),
    }[case]
    assert words[0] in str(failed.value)
    assert words[1] in said[0]
    if case not in ("plain server", "expired server", "other name"):
        right = link.writer(inbox.address, with_tls(CONNECTS, authority.signs("right"), ca))
        sending = sends(right, [b"in"])
        assert reads(inbox).get() == b"in"
        sending.get()
    else:
        inbox.abandon(0.2)


@pytest.mark.parametrize(
    ("swap", "words"),
    [
        ({"cert": "missing.pem"}, "--tls-cert missing.pem: No such file"),
        ({"key": "other"}, "is not the key of the certificate in"),
        ({"ca": "key"}, "no certificate in PEM"),
        ({"cert": "key"}, "no certificate in PEM"),
    ],
)
def test_files_that_are_no_certificates_are_named(swap: dict[str, str], words: str, authority: Authority) -> None:
    cert, key = authority.signs("server")
    other = authority.signs("client")[1]
    files = {"cert": cert, "key": key, "ca": authority.ca}
    files |= {name: {"other": other, "key": key}.get(value, value) for name, value in swap.items()}
    with pytest.raises(PlanError, match=words):
        link.reader("tcp://:0", replace(LISTENS, tls=Tls(**files)))


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(authority: Authority, tmp_path: Path) -> None:
    import subprocess

    cert, key = authority.signs("server")
    locked = str(tmp_path / "locked.key")
    words = ["openssl", "ec", "-in", key, "-aes128", "-passout", "pass:x", "-out", locked]
    subprocess.run(words, check=True, capture_output=True)
    with pytest.raises(PlanError, match="is encrypted: a pipeline cannot be asked"):
        link.reader("tcp://:0", replace(LISTENS, tls=Tls(cert, locked, authority.ca)))


def test_tls_of_old_versions_is_refused(authority: Authority) -> None:
    inbox = link.reader("tcp://:0", with_tls(LISTENS, authority.signs("server"), authority.ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.ca)
    context.load_cert_chain(*authority.signs("client"))
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", inbox.address.port)) as sock, pytest.raises(ssl.SSLError):
        context.wrap_socket(sock, server_hostname="127.0.0.1")
    inbox.abandon(0.2)


# Addresses.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tcp://:7001", "tcp://127.0.0.1:7001"),
        ("tcp://10.0.0.2:7001", "tcp://10.0.0.2:7001"),
        ("tcp://[::1]:7001", "tcp://[::1]:7001"),
        ("tcp://host-1.example:7001/", "tcp://host-1.example:7001"),
        ("unix:/run/s", "unix:/run/s"),
        ("unix:s", "unix:s"),
    ],
)
def test_addresses(text: str, shown: str) -> None:
    assert str(parse_address(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "tcp://", "tcp://host", "tcp://host:", "tcp://host:x", "tcp://h:99999", "tcp:7001", "host:7001", "unix:",
             "http://h:1", "tcp://a@b:1", f"unix:/{'x' * 200}"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(PlanError):
        parse_address(text)


def test_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with opened("tcp://[::1]:0") as (inbox, outbox, _):
        sending, reading = sends(outbox, [b"six"]), reads(inbox)
        assert reading.get() == b"six"
        sending.get()


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_listening_to_other_machines_takes_a_certificate_a_token_or_a_word(host: str, authority: Authority) -> None:
    at = f"tcp://{host}:0"
    with pytest.raises(PlanError, match="other machines could connect") as refused:
        link.reader(at, LISTENS)
    assert "--insecure" in str(refused.value)
    for terms in (
        replace(LISTENS, token=TOKEN),
        replace(LISTENS, insecure=True),
        with_tls(LISTENS, authority.signs("server"), authority.ca),
    ):
        link.reader(at, terms).abandon(0.2)


def test_an_address_in_use_is_said(tmp_path: Path) -> None:
    for at in ("tcp://:0", f"unix:{tmp_path}/s"):
        inbox = link.reader(at, LISTENS)
        with pytest.raises(OutsideError, match="is in use: another process listens there"):
            link.reader(inbox.address, LISTENS)
        inbox.abandon(0.2)


def test_a_port_for_the_superuser_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs this may be the superuser, so the kernel's answer is put in its mouth."""

    def bind(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.create_server", bind)
    with pytest.raises(PlanError, match="a port below 1,024 takes a right that this user has not"):
        link.reader("tcp://:80", LISTENS)


def test_a_unix_socket_is_its_owner_s_only_and_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(f"unix:{path}") as (inbox, outbox, _):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        sending, reading = sends(outbox, [b"a"]), reads(inbox)
        reading.get(), sending.get()
        until(lambda: not path.exists(), "the socket stays")


def test_a_unix_socket_that_a_killed_process_left_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    left = tmp_path / "left"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(left))
    sock.close()
    link.reader(f"unix:{left}", LISTENS).abandon(0.2)
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(PlanError, match="there is a file of this name, which is no socket"):
        link.reader(f"unix:{file}", LISTENS)
    assert file.read_text() == "precious"


def test_only_this_user_over_a_unix_socket_is_trusted(tmp_path: Path) -> None:
    for at, is_trusted in ((f"unix:{tmp_path}/s", True), ("tcp://:0", False)):
        with opened(at) as (inbox, outbox, _):
            outbox.put(b"a")
            assert inbox.is_trusted == is_trusted


def test_another_user_over_a_unix_socket_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clickpipe.wire.greeting.os.geteuid", lambda: os.getuid() + 1)
    with opened(f"unix:{tmp_path}/s") as (inbox, outbox, _):
        outbox.put(b"a")
        assert not inbox.is_trusted


def test_a_door_with_a_writer_and_a_reader_behind_it_knows_who_comes_for_whom() -> None:
    door = link.meeting_at("tcp://:0", LISTENS)
    assert isinstance(door, Door)
    inbox, outbox = link.reader_at(door, LISTENS), link.writer_at(door, LISTENS)
    door.open()
    reading = reads(link.reader(door.address, CONNECTS))
    sending = sends(link.writer(door.address, CONNECTS), [b"there "])
    there = reads(inbox).get()
    back = sends(outbox, [there, b"and back"])
    assert reading.get() == b"there and back"
    sending.get(), back.get()


def test_the_message_in_the_manual_page_is_one() -> None:
    page = (Path(__file__).parent.parent / "man" / "clickpipe-stream.5").read_text()
    shown = re.search(r"^01 00 00 00 .*$", page, re.MULTILINE)
    assert shown
    decoder, data = Decoder(), bytes.fromhex(shown[0])
    decoder.space()[:20] = data[:20]
    assert decoder.filled(20) is None
    decoder.space()[:] = data[20:]
    assert decoder.filled(2) == Message(Kind.DATA, 0, b"hi")


def test_timing_is_as_documented() -> None:
    """The manual page says these."""
    assert Timing() == Timing(beat=5, silence=15, greeting=10, patience=30, linger=5, first_pause=0.1, longest_pause=5)
