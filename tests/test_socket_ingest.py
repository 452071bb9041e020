"""`ingest tcp://…` and `ingest unix:…`: many clients, each bounded, none mixed with another."""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from running import Start, until
from serving import LOCAL, Served, was_cut_off

from clickpipe import stopping
from clickpipe.core.shared import SharedSplit
from clickpipe.csvtext import whole
from clickpipe.operators.ingest import Ingest
from clickpipe.testing import environment
from clickpipe.wire.client import Client, Cutting

N = "--columns n:int,who:str"


def _record(number: int, who: str = "a") -> bytes:
    return b'{"n": %d, "who": "%s"}\n' % (number, who.encode())


# Lines of one client are cut before they meet those of another.


@settings(max_examples=examples(150), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=200).map(lambda data: data.replace(b"\xef", b"x"))), max_size=40),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_lines_of_clients_are_never_mixed(pieces: list[tuple[int, bytes]], endings: list[bool]) -> None:
    """Whatever pieces their bytes come in: what goes out is the lines of each, and nothing else."""
    one, other = socket.socketpair()
    clients = [Client(one, str(number), Cutting(), 0) for number in range(3)]
    sent, out, lost = [b"", b"", b""], [], []
    for number, piece in pieces:
        sent[number] += piece
        if block := clients[number].take(piece):
            out.append((number, block.data))
    for number, is_broken in enumerate(endings):
        if block := clients[number].end("broken" if is_broken else None):
            out.append((number, block.data))
            lost += [line.beginning for line in block.overlong]
    for number, is_broken in enumerate(endings):
        *lines, last = sent[number].split(b"\n")
        goes_out = lines if is_broken or not last else [*lines, last]
        assert b"".join(data for whose, data in out if whose == number) == b"".join(line + b"\n" for line in goes_out)
        assert not is_broken or not last or last in lost
    one.close()
    other.close()


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(st.sampled_from([b'"', b"a", b"b,", b"\n", b'"x\ny"\n', b"1,2\n"]), max_size=30))
def test_csv_of_one_client_never_reaches_into_that_of_another(parts: list[bytes]) -> None:
    """What goes out ends outside quotes, however the client has left them."""
    one, other = socket.socketpair()
    client = Client(one, "a", Cutting(whole), 0)
    blocks = [block for part in parts if (block := client.take(part))]
    if last := client.end(None):
        blocks.append(last)
    for block in blocks:
        assert whole(block.data) == len(block.data)
    one.close()
    other.close()


def test_interleaved_bytes(start: Start, folder: Path) -> None:
    served = Served(start, folder, N)
    chance = random.Random(5)
    left = [b"".join(_record(n, who) for n in range(500)) for who in "abc"]
    clients = [served.client() for _ in left]
    while any(left):
        number, size = chance.randrange(3), chance.choice((1, 7, 60, 3_000))
        clients[number].sendall(left[number][:size])
        left[number] = left[number][size:]
    for client in clients:
        client.close()
    records = served.end()
    assert {who: [r["n"] for r in records if r["who"] == who] for who in "abc"} == {who: [*range(500)] for who in "abc"}
    assert len(records) == 1_500
    assert "read 1,500 = written 1,500\n" in served.said()


def test_a_last_line_without_its_newline_is_a_line(start: Start, folder: Path) -> None:
    served = Served(start, folder, N)
    served.send(_record(1).strip())
    served.send(_record(2) + b'{"n": 3, "wh')
    assert sorted(r["n"] for r in served.end()) == [1, 2]
    assert [(d["raw"], d["source"]) for d in served.dead()] == [('{"n": 3, "wh', LOCAL)]
    assert "read 3 = dead letter 1 + written 2\n" in served.said()


def test_a_connection_that_breaks_in_the_middle_of_a_line(start: Start, folder: Path) -> None:
    """Half a record may look like a whole one: it is none."""
    served = Served(start, folder, N)
    client = served.client()
    client.sendall(_record(1) + b'{"n": 2}')
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: _has_read_all(served), "the client is not read")
    client.close()
    served.send(_record(3))
    until(lambda: not served.connections(), "the client is not let go")
    assert sorted(r["n"] for r in served.end()) == [1, 3]
    assert [(d["raw"], d["error"].split(":")[0]) for d in served.dead()] == [
        ('{"n": 2}', "the connection broke in the middle of a line")
    ]


# Who is slow.


def test_a_client_that_falls_silent_in_the_middle_of_a_line_is_cut_off(start: Start, folder: Path) -> None:
    """One that is silent between lines may stay."""
    served = Served(start, folder, f"{N} --client-timeout 300ms")
    with served.client() as quiet, served.client() as slow:
        quiet.sendall(_record(1))
        slow.sendall(_record(2) + b'{"n": 3')
        assert was_cut_off(slow)
        quiet.sendall(_record(4))
        assert sorted(r["n"] for r in served.end()) == [1, 2, 4]
    assert [d["raw"] for d in served.dead()] == ['{"n": 3']
    assert served.dead()[0]["error"].startswith("nothing came for 0.3 s in the middle of a line: client 127.0.0.1:")
    assert "of 2 clients 1 cut off in the middle of a line" in served.said()


def test_500_slow_clients_and_a_fast_one(start: Start, folder: Path) -> None:
    """All together have begun 150 MB of lines; the fast one gets through, and memory stays within its bound."""
    _allow_files(1_000)
    plain = Served(start, folder, N)
    plain.end()
    served = Served(start, folder, N)
    before = served.peak()
    slow = [served.client() for _ in range(500)]
    for client in slow:
        client.setblocking(False)
    half, sent = b'{"n": 1, "who": "' + b"x" * 300_000, [0] * 500
    for _ in range(40):
        for number, client in enumerate(slow):
            _send_some(client, half, sent, number)
    served.send(b"".join(_record(n) for n in range(20_000)))
    for client in slow:
        client.close()
    until(lambda: not served.connections(), "not all clients are let go")
    peak = served.peak() - before
    records = served.end()
    assert [r["n"] for r in records if r["who"] == "a"] == [*range(20_000)]
    assert peak < 250 << 20
    assert len(served.dead()) == 500
    assert "the longest of the unfinished lines of all clients" in "".join(d["error"] for d in served.dead())


def _send_some(client: socket.socket, data: bytes, sent: list[int], number: int) -> None:
    try:
        sent[number] += client.send(data[sent[number] : sent[number] + 10_000])
    except BlockingIOError:
        pass
    except ConnectionError:  # it was cut off
        sent[number] = len(data)


def test_more_clients_than_allowed_are_refused(start: Start, folder: Path) -> None:
    served = Served(start, folder, f"{N} --max-clients 2")
    with served.client() as one, served.client() as other, served.client() as third:
        one.sendall(_record(1))
        other.sendall(_record(2))
        assert was_cut_off(third)
    until(lambda: not served.connections(), "the clients are not let go")
    served.send(_record(3))
    assert sorted(r["n"] for r in served.end()) == [1, 2, 3]
    assert "2 clients are connected; more are refused (--max-clients)\n" in served.said()
    assert "of 4 clients 1 refused, since too many were connected\n" in served.said()


def test_a_pipeline_that_is_slow_holds_its_clients_back(start: Start, folder: Path) -> None:
    """Nobody reads its output: then it reads no socket, and nothing is lost when somebody does."""
    os.mkfifo(folder / "pipe")
    pipe = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    process = start("ingest", LOCAL, "--columns", "n:int", stdout="pipe")
    until(lambda: "listening on" in (folder / "errors").read_text(), "it does not listen")
    port = int((folder / "errors").read_text().split("listening on ")[1].split("\n")[0].rsplit(":", 1)[1])
    data = (b'{"n": 1, "more": "' + b"x" * 1_000 + b'"}\n') * 200_000
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        sent = _send_until_stuck(client, data)
        assert 0 < sent < len(data)
        found: list[int] = []
        os.set_blocking(pipe, True)
        reader = threading.Thread(target=lambda: found.append(_count_records(pipe)))
        reader.start()
        client.settimeout(60)
        client.sendall(data[sent:])
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    reader.join(60)
    assert found == [200_000]


def _send_until_stuck(client: socket.socket, data: bytes) -> int:
    """How much was sent until there was no room for more for two seconds."""
    sent, view = 0, memoryview(data)
    client.setblocking(False)
    while sent < len(data) and select.select([], [client], [], 2)[1]:
        sent += client.send(view[sent : sent + 1_000_000])
    return sent


def _count_records(pipe: int) -> int:
    with open(pipe, "rb") as lines:
        return sum(not line.startswith(b"\t") for line in lines)


def _has_read_all(served: Served) -> bool:
    return not any(served.connections())


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard < 0 else min(count, hard), hard))


# What is no record.


def test_a_line_that_is_too_long(start: Start, folder: Path) -> None:
    """It is a dead letter, and the next one of the same client is none."""
    served = Served(start, folder, N)
    before = served.peak()
    with served.client() as client:
        client.sendall(_record(1) + b'{"n": 2, "who": "')
        for _ in range(200):
            client.sendall(b"x" * 1_000_000)
        client.sendall(b'"}\n' + _record(3))
    until(lambda: not served.connections(), "the client is not let go")
    peak = served.peak() - before
    assert sorted(r["n"] for r in served.end()) == [1, 3]
    assert peak < 150 << 20
    (dead,) = served.dead()
    assert dead["error"] == "longer than 1048576 bytes: 200000019; only its beginning is kept"
    assert len(dead["raw"]) == 1_024


def test_garbage_costs_nobody_else_anything(start: Start, folder: Path) -> None:
    """Also as the first that comes: what the columns are is asked of a record."""
    served = Served(start, folder)
    chance = random.Random(3)
    served.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    served.send(b"\x16\x03\x01\x00\n\0\0\n")
    until(lambda: not served.connections(), "the clients are not let go")
    served.send(_record(1))
    for _ in range(20):
        served.send(chance.randbytes(10_000))
        served.send(_record(2))
    records = served.end()
    assert sorted(r["n"] for r in records) == [1, *[2] * 20]
    assert served.dead()[0]["raw"] == "GET / HTTP/1.1"


def test_csv_clients_bring_a_header_each(start: Start, folder: Path) -> None:
    """One with other columns is cut off; a quote that one leaves open takes in nothing of another."""
    served = Served(start, folder, "--format csv")
    with served.client() as one, served.client() as other:
        one.sendall(b'n,who\n1,a\n2,"b\nb"\n3,"c')
        until(lambda: _has_read_all(served), "the first client is not read")
        other.sendall(b'n,who\n4,d\n5,"e"\n')
    until(lambda: not served.connections(), "the clients are not let go")
    served.send(b"x,y\n1,2\n")
    served.send(b"n,who\n6,f\n")
    assert sorted((r["n"], r["who"]) for r in served.end()) == [(1, "a"), (2, "b\nb"), (4, "d"), (5, "e"), (6, "f")]
    assert sorted(d["raw"] for d in served.dead()) == ['3,"c', "x,y"]


# How it ends, and what it promises.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_it_with_what_has_arrived(start: Start, folder: Path, number: int) -> None:
    """As if its clients had: windows close, the accounts balance; half a line is said to be one."""
    served = Served(start, folder, "--columns n:int --time n", middle="window tumble 1s | aggregate c='count(*)'")
    with served.client() as client:
        client.sendall(b"".join(b'{"n": %d}\n' % n for n in range(1_700_000_000_000, 1_700_000_002_000)) + b'{"n"')
        assert [(r["c"], r["closed_by"]) for r in served.end(number)] == [(1_000, "watermark"), (1_000, "end")]
    assert "read 2,001 = aggregated 2,000 + dead letter 1\n" in served.said()
    assert served.dead()[0]["error"].startswith("the run ended in the middle of a line: client 127.0.0.1:")


def test_it_ends_when_nobody_has_come(start: Start, folder: Path) -> None:
    served = Served(start, folder)
    assert served.end() == []
    assert "read 0 = 0\n" in served.said()


def test_a_second_signal_ends_it_at_once(start: Start, folder: Path) -> None:
    """The first finds its reader not reading."""
    os.mkfifo(folder / "pipe")
    pipe = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    process = start("ingest", "unix:s", "--columns", "n:int", stdout="pipe")
    until(lambda: "listening on" in (folder / "errors").read_text(), "it does not listen")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / "s"))
        _send_until_stuck(client, (b'{"n": 1, "more": "' + b"x" * 1_000 + b'"}\n') * 200_000)
        process.send_signal(signal.SIGTERM)
        until(lambda: _is_refused(folder / "s"), "it listens still")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert not (folder / "s").exists()
    os.close(pipe)


def _is_refused(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return True
    return False


def test_a_signal_that_comes_before_anybody_can_connect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It ends as by a later one: with what has come, and that is nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stopping, "_ASKED", [])
    listen = SharedSplit.listen

    def signalled(split: SharedSplit, *words: Any) -> None:
        assert stopping.ends_by_itself(signal.SIGTERM)
        listen(split, *words)

    monkeypatch.setattr(SharedSplit, "listen", signalled)
    feed = Ingest(("unix:s",), columns="n:int").open()
    assert [pull.read for pull in feed.pulls()] == []
    feed.close()


def test_with_checkpoints_it_stops_and_goes_on_with_its_windows(start: Start, folder: Path) -> None:
    """As standard input does: what clients have sent cannot be read again, what was made of it is kept."""
    middle = "window tumble 10s | aggregate c='count(*)'"
    options = "--columns n:int --time n --checkpoint 10ms --name kept"
    served = Served(start, folder, options, middle=middle, source="unix:s")
    served.send(b'{"n": 1700000001000}\n' * 3)
    assert served.end() == []
    assert "stopped at checkpoint" in served.said()
    again = Served(start, folder, options, middle=middle, source="unix:s")
    again.send(b'{"n": 1700000002000}\n' * 2)
    assert [r["c"] for r in again.end(signal.SIGUSR1)] == [5]
    assert f"{served.address} cannot be read again: what had come since the last checkpoint is lost" in again.said()


def test_a_limit_ends_it(start: Start, folder: Path) -> None:
    served = Served(start, folder, N, middle="limit 3", source="unix:s")
    served.send(b"".join(map(_record, range(5))))
    assert served.process.wait(60) == 0
    assert [r["n"] for r in served.records()] == [0, 1, 2]
    assert not (folder / "s").exists()


def test_it_gives_at_most_once(folder: Path) -> None:
    """Nothing listens for an explanation."""
    words = ["explain", "-c", "ingest tcp://127.0.0.1:1 | sink -", "--require", "exactly-once"]
    done = _run(folder, *words[:3])
    assert "at most once: what clients have sent cannot be replayed" in " ".join(done.stdout.replace("│", "").split())
    assert _run(folder, *words).returncode == 2


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clickpipe", *words]
    return subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


# Where it listens.


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("tcp://0.0.0.0:0", 2, "other machines can reach 0.0.0.0"),
        ("tcp://[::]:0", 2, "other machines can reach ::"),
        ("tcp://192.0.2.1:0", 2, "other machines can reach 192.0.2.1"),
        ("tcp://[::ffff:192.0.2.1]:0", 2, "other machines can reach ::ffff:192.0.2.1"),
        ("tcp://192.0.2.1:9999 --insecure", 2, "this machine has no address 192.0.2.1"),
        ("tcp://nowhere.invalid:9000", 75, "nowhere.invalid"),
        ("tcp://9000", 2, '"tcp://9000" is no address of a socket'),
        ("tcp://localhost", 2, '"tcp://localhost" is no address of a socket'),
        ("tcp://:70000", 2, "tcp://:70000: a port is at most 65535"),
        ("tcp://:0 -", 2, "tcp://:0 never ends: it must be the only source"),
        ("tcp://:0 --follow", 2, "--follow is for files that grow"),
        ("tcp://:0 --client-timeout 0s", 2, "--client-timeout must be longer than 0s"),
        ("tcp://:0 --max-clients 0", 2, "--max-clients must be at least 1"),
        ("tcp://:0 --tls-ca ca.crt", 2, "--tls-ca alone is not enough: TLS takes --tls-cert and --tls-key"),
        ("unix:s --insecure", 2, "--insecure is for tcp://HOST:PORT"),
        ("in.ndjson --max-clients 3", 2, "--max-clients is for sockets"),
        ("unix:nowhere/s", 2, "No such file or directory"),
        ("unix:in.ndjson", 2, "there is a file of this name, which is no socket"),
        ("unix:" + "x" * 108, 2, "the path of a socket has at most 107 bytes, and this one 108"),
    ],
)
def test_a_place_where_it_cannot_listen(folder: Path, source: str, code: int, said: str) -> None:
    done = _run(folder, "ingest", *source.split())
    assert done.returncode == code, done.stderr
    assert said in done.stderr


def test_what_lets_others_in_is_said(folder: Path) -> None:
    said = _run(folder, "ingest", "tcp://0.0.0.0:9000").stderr
    assert said == (
        "clickpipe: ingest: tcp://0.0.0.0:9000: other machines can reach 0.0.0.0, and anybody there could send records\n"
        "    for this machine only: tcp://127.0.0.1:9000\n"
        "  --tls-cert FILE --tls-key FILE --tls-ca FILE lets in those who show a certificate signed by the last one\n"
        "  --insecure lets in everybody\n"
    )


@pytest.mark.parametrize("source", ["tcp://:0", "tcp://localhost:0", "tcp://[::1]:0", "tcp://0.0.0.0:0 --insecure"])
def test_where_it_listens(start: Start, folder: Path, source: str) -> None:
    if "::1" in source and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    served = Served(start, folder, N, source=source)
    assert served.address.rsplit(":", 1)[0] == source.split()[0].rsplit(":", 1)[0].replace("localhost", "127.0.0.1").replace(
        "tcp://", "tcp://" + ("127.0.0.1" if source == "tcp://:0" else "")
    )
    served.send(_record(1))
    assert [r["n"] for r in served.end()] == [1]


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("source", [LOCAL, "unix:s"])
def test_an_address_in_use(start: Start, folder: Path, source: str) -> None:
    served = Served(start, folder, N, source=source)
    done = _run(folder, "ingest", served.address)
    assert done.returncode == 75
    assert f"{served.address} is in use: another process listens there\n" in done.stderr
    served.send(_record(1))
    assert [r["n"] for r in served.end()] == [1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may listen on every port")
def test_a_port_that_takes_a_right(folder: Path) -> None:
    done = _run(folder, "ingest", "tcp://127.0.0.1:1")
    assert done.returncode == 2
    assert "a port below 1,024 takes a right that this user has not" in done.stderr


def test_a_unix_socket_is_for_its_user_alone_and_goes_with_the_run(start: Start, folder: Path) -> None:
    served = Served(start, folder, N, source="unix:s")
    mode = (folder / "s").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    served.send(_record(1) + b"oops")
    assert [r["n"] for r in served.end()] == [1]
    assert not (folder / "s").exists()
    assert served.dead()[0]["source"] == "unix:s"


def test_a_socket_that_a_killed_run_has_left_is_replaced(start: Start, folder: Path) -> None:
    killed = Served(start, folder, N, source="unix:s")
    killed.process.kill()
    killed.process.wait()
    assert (folder / "s").exists()
    served = Served(start, folder, N, source="unix:s")
    served.send(_record(1))
    assert [r["n"] for r in served.end()] == [1]


def test_a_socket_goes_with_a_run_whose_plan_is_wrong(folder: Path) -> None:
    done = _run(folder, "run", "-c", "ingest unix:s --columns n:int | filter 'm > 1' | sink -")
    assert done.returncode == 2
    assert not (folder / "s").exists()
