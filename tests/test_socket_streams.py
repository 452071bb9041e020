"""Pipelines whose streams go over sockets: the same results as over pipes, and clear words when something is wrong.

Real processes; nothing here looks inside.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from examples import some
from links import Authority, Hand, Proxy, authority, until

from clickpipe.stopping import clean_up
from clickpipe.testing import environment
from clickpipe.wire.listen import listen

__all__ = ["authority"]  # a fixture
TIMES = [1_700_000_000_000 + 500 * n - (9_000 if n % 7 == 0 else 0) for n in range(3_000)]  # some are late
CLICKS = "".join(f'{{"ts":{ts},"page":"/p/{n % 3}","ms":{n % 17}}}\n' for n, ts in enumerate(TIMES))
INGEST = "ingest clicks.ndjson --time ts"
WORK = "window tumble 1m --allowed-lateness 2s | aggregate --by page n='count(*)' ms='sum(ms)'"
TOKEN = "correct horse battery"


class Shop:
    """Starts steps in a folder that holds clicks.ndjson, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        (folder / "clicks.ndjson").write_text(CLICKS)

    def start(self, words: str, before: Sequence[str] = (), **more: Any) -> subprocess.Popen[bytes]:
        settings = more.pop("env", {})
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "clickpipe", *shlex.split(words)],
            stdin=more.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=environment(self.folder, **settings),
            **more,
        )
        self.started.append(process)
        return process

    def port(self, process: subprocess.Popen[bytes]) -> int:
        """Of a process that was told to listen at port 0."""
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        found = re.search(r"listening at tcp://127.0.0.1:(\d+)", line)
        assert found, line
        return int(found[1])

    def shell(self, line: str) -> subprocess.CompletedProcess[bytes]:
        words = ["bash", "-c", f"set -o pipefail; {line}"]
        return subprocess.run(words, capture_output=True, cwd=self.folder, env=environment(self.folder), timeout=90, check=False)

    def piped(self, *steps: str) -> list[str]:
        done = self.shell(" | ".join(f"clickpipe {step}" for step in steps))
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().splitlines()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    for process in shop.started:
        process.kill()
        process.communicate()


def out(process: subprocess.Popen[bytes]) -> tuple[int, list[str], str]:
    stdout, stderr = process.communicate(timeout=90)
    return process.returncode, stdout.decode().splitlines(), stderr.decode()


def good(process: subprocess.Popen[bytes]) -> list[str]:
    code, lines, errors = out(process)
    assert code == 0, errors
    return lines


def side(folder: Path, name: str) -> list[str]:
    return sorted(line for path in folder.glob(f".home/**/{name}.ndjson") for line in path.read_text().splitlines())


# The same results.


@pytest.mark.parametrize(("kind", "codec"), some([("unix", "arrow"), ("unix", "ndjson"), ("tcp", "arrow"), ("tcp", "ndjson")], 3))
def test_a_stream_over_a_socket_equals_the_piped_one(shop: Shop, kind: str, codec: str) -> None:
    """Late records with their marks, and the accounts, included."""
    steps = [INGEST, *WORK.split(" | "), "sink -"]
    expected = shop.piped(*steps)
    late = side(shop.folder, "late")
    assert late
    assert len(expected) > 50

    first = shop.start(f"{steps[1]} --from {'unix:a' if kind == 'unix' else 'tcp://:0'} --to unix:b --codec {codec}")
    at = "unix:a" if kind == "unix" else f"tcp://:{shop.port(first)}"
    last = shop.start("sink - --from unix:c")
    second = shop.start(f"{steps[2]} --from unix:b --to unix:c --codec {codec}")
    source = shop.start(f"{INGEST} --to {at} --codec {codec}")
    code, lines, errors = out(last)
    assert code == 0, errors
    assert lines == expected
    assert "clickpipe: read 3,000 = " in errors
    assert side(shop.folder, "late") == late
    assert (good(source), good(first), good(second)) == ([], [], [])


def test_serve_gives_what_the_steps_give_in_a_pipe(shop: Shop) -> None:
    expected = shop.piped(INGEST, *WORK.split(" | "), "sink -")
    serving = shop.start(f'serve --listen tcp://:0 "{WORK}"')
    port = shop.port(serving)
    last = shop.start(f"sink - --from tcp://:{port} --connect")
    source = shop.start(f"{INGEST} --to tcp://:{port}")
    assert good(last) == expected
    good(source), good(serving)


def test_serve_connects_where_it_is_told_to(shop: Shop) -> None:
    expected = shop.piped(INGEST, *WORK.split(" | "), "sink -")
    serving = shop.start(f'serve --listen unix:in --to unix:out "{WORK}"')
    last = shop.start("sink - --from unix:out")
    source = shop.start(f"{INGEST} --to unix:in")
    assert good(last) == expected
    good(source), good(serving)


def test_serve_ends_in_a_sink(shop: Shop) -> None:
    expected = shop.piped(INGEST, *WORK.split(" | "), "sink -")
    serving = shop.start(f'serve --listen unix:in "{WORK} | sink out.ndjson"')
    good(shop.start(f"{INGEST} --to unix:in"))
    _, _, errors = out(serving)
    assert "clickpipe: read 3,000 = " in errors
    assert (shop.folder / "out.ndjson").read_text().splitlines() == expected


def test_who_writes_may_listen_and_who_reads_connect(shop: Shop) -> None:
    source = shop.start(f"{INGEST} --to tcp://:0 --listen")
    last = shop.start(f"sink - --from tcp://:{shop.port(source)} --connect")
    assert good(last) == shop.piped(INGEST, "sink -")
    good(source)


def test_columns_that_change_in_mid_stream_come_over(shop: Shop) -> None:
    """An integer that turns out to be a float, and a count that only some records have."""
    lines = [json.dumps({"ts": 1_700_000_000_000 + n, "v": n if n < 5_000 else n + 0.5}) for n in range(9_000)]
    (shop.folder / "clicks.ndjson").write_text("\n".join(lines) + "\n")
    source = f"{INGEST} --batch-bytes 16KiB"
    expected = shop.piped(source, "aggregate s='sum(v)' n='count(*)'", "sink -")
    last = shop.start("sink - --from unix:b")
    work = shop.start("aggregate s='sum(v)' n='count(*)' --from unix:a --to unix:b")
    good(shop.start(f"{source} --to unix:a"))
    assert good(last) == expected
    good(work)


def test_a_raw_stream_through_a_framed_step_arrives_whole(shop: Shop) -> None:
    last = shop.start("sink - --from unix:b")
    with open(shop.folder / "clicks.ndjson", "rb") as clicks:
        good(shop.start('filter "ms > 3" --to unix:b', stdin=clicks))
    assert len(good(last)) == sum(n % 17 > 3 for n in range(3_000))


def test_checkpoints_complete_over_a_unix_socket_and_a_killed_run_goes_on(shop: Shop) -> None:
    """Barriers pass, state is found by the path that the stream names: it comes from the same user."""
    work = "window tumble 1m | aggregate --by page n='count(*)'"  # no corrections: how often they come depends on batches
    expected = shop.piped(INGEST, *work.split(" | "), "sink -")
    source = f"{INGEST} --name c --checkpoint 1ms --batch-bytes 4KiB"

    def run(**more: Any) -> list[subprocess.Popen[bytes]]:
        last = shop.start("sink c.ndjson --from unix:b", **more)
        middle = shop.start(f'serve --listen unix:a --to unix:b "{work}"')
        return [shop.start(f"{source} --to unix:a"), middle, last]

    processes = run(env={"CLICKPIPE_KILL_POINT": "after-manifest-rename:3"})
    assert processes[2].wait(90) == -signal.SIGKILL
    for process in processes:
        process.kill()
        process.communicate()
    for process in run():
        good(process)
    assert sorted((shop.folder / "c.ndjson").read_text().splitlines()) == sorted(expected)


# When something is wrong.


def test_a_connection_that_is_cut_often_changes_nothing(shop: Shop) -> None:
    lines = "".join(json.dumps({"ts": 1_700_000_000_000 + n, "page": f"/p/{n * 7919 % 1_000}"}) + "\n" for n in range(60_000))
    (shop.folder / "clicks.ndjson").write_text(lines)
    source = f"{INGEST} --batch-bytes 64KiB"
    expected = shop.piped(source, "aggregate --by page n='count(*)' last='max(ts)' --order 'n DESC' --top 20", "sink -")
    work = shop.start("aggregate --by page n='count(*)' last='max(ts)' --order 'n DESC' --top 20 --from tcp://:0 --to unix:b")
    proxy = Proxy(("127.0.0.1", shop.port(work)), [100, 400, 900, 5_000, 30_000, 100_000, 60_000])
    last = shop.start("sink - --from unix:b")
    sending = shop.start(f"{source} --to tcp://:{proxy.port}")
    assert good(last) == expected
    code, _, errors = out(sending)
    assert code == 0
    assert "the connection was lost" in errors
    assert proxy.connections == 8
    good(work)
    proxy.close()


@pytest.mark.parametrize("victim", ["writer", "reader"])
def test_when_one_side_is_killed_the_other_one_fails(shop: Shop, victim: str) -> None:
    """Nothing that looks finished is left behind."""
    reading = shop.start("sink out.ndjson --from tcp://:0 --reconnect-timeout 500ms")
    writing = shop.start(f"filter 'ms >= 0' --to tcp://:{shop.port(reading)} --reconnect-timeout 500ms", stdin=subprocess.PIPE)
    assert writing.stdin is not None
    writing.stdin.write(CLICKS.encode())
    writing.stdin.flush()
    until(lambda: list(shop.folder.glob("*out.ndjson*")), "nothing is being written")
    killed, other = (writing, reading) if victim == "writer" else (reading, writing)
    killed.kill()
    killed.wait()
    if victim == "reader":
        writing.stdin.close()
        writing.stdin = None
    code, _, errors = out(other)
    assert code == 75
    assert "is gone, and did not come back within 0.5 s" in errors
    assert not (shop.folder / "out.ndjson").exists()


def test_a_writer_that_a_signal_ends_is_not_waited_for(shop: Shop) -> None:
    reading = shop.start("sink out.ndjson --from tcp://:0 --reconnect-timeout 1h")
    writing = shop.start(f"filter 'ms >= 0' --to tcp://:{shop.port(reading)}", stdin=subprocess.PIPE)
    assert writing.stdin is not None
    writing.stdin.write(CLICKS.encode())
    writing.stdin.flush()
    until(lambda: list(shop.folder.glob("*out.ndjson*")), "nothing is being written")
    writing.send_signal(signal.SIGTERM)
    code, _, errors = out(reading)
    assert code == 75
    assert "the step before this one failed" in errors
    assert not (shop.folder / "out.ndjson").exists()


def test_a_step_that_fails_tells_both_neighbours(shop: Shop) -> None:
    last = shop.start("sink out.ndjson --from unix:b --reconnect-timeout 1h")
    work = shop.start("aggregate --by nothing n='count(*)' --from unix:a --to unix:b")
    source = shop.start("filter 'ms >= 0' --to unix:a --reconnect-timeout 1h", stdin=subprocess.PIPE)
    assert source.stdin is not None
    source.stdin.write(CLICKS.encode())
    source.stdin.flush()
    assert out(work)[0] == 2
    code, _, errors = out(last)
    assert code == 75
    assert "the step before this one failed" in errors
    source.stdin.close()
    source.stdin = None
    code, _, errors = out(source)
    assert code == 75
    assert "the step that reads this failed" in errors


def test_a_reader_that_has_enough_ends_the_steps_before_it(shop: Shop) -> None:
    """As over a pipe: quietly, though the input goes on."""
    writing = shop.start("filter 'ms >= 0' --to unix:a", stdin=subprocess.PIPE)
    middle = shop.start("limit 5 --from unix:a --to unix:b")
    last = shop.start("sink - --from unix:b")
    assert writing.stdin is not None
    writing.stdin.write(CLICKS.encode())
    writing.stdin.flush()
    assert len(good(last)) == 5
    good(middle)
    writing.stdin.close()
    writing.stdin = None
    assert good(writing) == []


def test_nobody_at_the_other_end_is_said(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    code, _, errors = out(shop.start(f"{INGEST} --to tcp://:{port} --reconnect-timeout 300ms"))
    assert code == 75
    assert errors == (
        f"clickpipe: ingest: tcp://127.0.0.1:{port}: the step that reads this cannot be reached: Connection refused\n"
        "  tried for 0.3 s\n"
    )


def test_an_address_in_use_is_said(shop: Shop) -> None:
    first = shop.start("sink - --from tcp://:0")
    code, _, errors = out(shop.start(f"sink - --from tcp://:{shop.port(first)}"))
    assert code == 75
    assert "is in use: another process listens there" in errors


# Several at once.


PAGES = "window tumble 1m --allowed-lateness 2s | aggregate --by page n='count(*)' ms='sum(ms)'"


@pytest.mark.parametrize("checkpoint", ["", " --checkpoint 10ms"])
def test_workers_that_stand_elsewhere(shop: Shop, checkpoint: str) -> None:
    """partition divides among them, merge makes one stream of theirs; over Unix sockets with checkpoints too."""
    expected = shop.piped(INGEST, *PAGES.split(" | "), "sink -")
    workers = [shop.start(f'serve --listen unix:w{number} "{PAGES}"') for number in (1, 2, 3)]
    merging = shop.start("merge unix:w{1..2} unix:w3 --to unix:merged")
    last = shop.start("sink results.ndjson --from unix:merged")
    first = shop.start(f"{INGEST} --name c{checkpoint} --to unix:all")
    dividing = shop.start("partition --by page --from unix:all --to unix:w{1,2,3}")
    good(last)
    for process in (*workers, merging, first, dividing):
        good(process)
    assert sorted((shop.folder / "results.ndjson").read_text().splitlines()) == sorted(expected)


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        (["ingest clicks.ndjson --to unix:w1", f"{INGEST} --to unix:w2"], "have different columns"),
        (
            ["partition --by page --from unix:x --to unix:w1 --to unix:other", f"{INGEST} --to unix:w2"],
            "not those of all 2 workers",
        ),
    ],
)
def test_streams_that_cannot_become_one(shop: Shop, streams: list[str], message: str) -> None:
    merging = shop.start("merge unix:w1 unix:w2 --listen")
    others = [shop.start(words) for words in streams]
    if "unix:x" in streams[0]:
        others += [shop.start(f"{INGEST} --to unix:x"), shop.start("sink - --from unix:other")]
    code, _, errors = out(merging)
    assert code == 65
    assert message in errors
    for process in others[:3]:
        assert out(process)[0] in (0, 75)
    for process in others[3:]:  # whoever was to write to it may have ended before he came
        process.send_signal(signal.SIGTERM)
        assert out(process)[0] in (0, 75, 128 + signal.SIGTERM)


def test_a_step_that_brings_together_what_stands_apart(shop: Shop) -> None:
    serving = shop.start("serve --listen unix:w \"aggregate --by ms n='count(*)'\"")
    last = shop.start("sink - --from unix:w --connect")
    dividing = shop.start("partition --by page --from unix:x --to unix:w --to unix:v")
    first, other = shop.start(f"{INGEST} --to unix:x"), shop.start("sink - --from unix:v")
    code, _, errors = out(serving)
    assert code == 2
    assert "it brings together what partition --by page parts" in errors
    assert out(last)[0] == 75
    for process in (dividing, other, first):
        assert out(process)[0] in (0, 75)  # what has arrived there is no business of theirs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("merge", "nothing to merge: partition comes before it"),
        ("merge unix:a unix:a", "unix:a is there twice"),
        ("merge tcp://10.0.0.1", "is no address of a socket"),
        ("partition --by page --to unix:a \"filter 'a = 1'\"", "--to divides among workers that have steps of their own"),
        ("partition --by page --workers 3 --to unix:a", "--workers 3, and --to has 1 addresses"),
        ("partition --by page --from unix:a \"filter 'a = 1'\"", "workers beside sockets"),
        ("filter 'a = 1' --from tcp://0.0.0.0:0", "other machines could connect"),
        ("filter 'a = 1' --from 10.0.0.1:5", '"10.0.0.1:5" is no address of a socket'),
        ("filter 'a = 1' --from tcp://:1 --to tcp://:1", "--from and --to are both tcp://127.0.0.1:1"),
        ("filter 'a = 1' --listen", "--listen is for streams over sockets"),
        ("filter 'a = 1' --token-file x", "--token-file is for streams over sockets"),
        ("filter 'a = 1' --from unix:a --listen --connect", "--listen or --connect, not both"),
        ("filter 'a = 1' --from tcp://:0 --tls-cert x", "--tls-cert, --tls-key and --tls-ca go together"),
        ("filter 'a = 1' --from unix:a --tls-cert x --tls-key x --tls-ca x", "TLS is for tcp:// addresses"),
        ("filter 'a = 1' --from tcp://:0 --tls-cert x --tls-key x --tls-ca x", "--tls-cert x: No such file"),
        ("filter 'a = 1' --from tcp://:0 --token-file x", "--token-file x: No such file"),
        ("sink - --from unix:a --to unix:b", "--to is for a sink that passes records on"),
        ("serve --listen unix:a 'ingest -'", "serve reads a stream, and ingest begins one"),
        ("serve --listen unix:a 'filtr a'", 'did you mean "filter"?'),
        ("serve --listen unix:a --to unix:b 'sink -'", "--to is for steps that give a stream"),
        ("serve --listen unix:a --tls-cert x --tls-key x --tls-ca x 'sink -'", "TLS is for tcp:// addresses"),
        (f"{INGEST} --checkpoint 1s --to tcp://:1", "checkpoints do not go over TCP"),
    ],
)
def test_what_cannot_be_is_said_at_once(shop: Shop, words: str, message: str) -> None:
    code, lines, errors = out(shop.start(words))
    assert code == 2, errors
    assert message in errors
    assert "Traceback" not in errors
    assert lines in ([], ['\t{"@":"failed"}'])  # a word for the next step, where its stream would go to standard output


# Who is let in, and what is believed.


def test_a_token_from_a_file_and_from_the_environment(shop: Shop) -> None:
    path = shop.folder / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    last = shop.start("sink - --from tcp://0.0.0.0:0 --token-file token")
    assert last.stderr is not None
    found = re.search(r"listening at tcp://0.0.0.0:(\d+)", last.stderr.readline().decode())
    assert found
    code, _, errors = out(shop.start(f"{INGEST} --to tcp://:{found[1]}", env={"CLICKPIPE_TOKEN": "another secret, as long"}))
    assert code == 75
    assert "the other side refuses: the token is another one" in errors
    good(shop.start(f"{INGEST} --to tcp://:{found[1]}", env={"CLICKPIPE_TOKEN": TOKEN}))
    assert len(good(last)) == 3_000


def test_certificates_on_both_sides(shop: Shop, authority: Authority) -> None:
    def files(name: str, **more: Any) -> str:
        cert, key = authority.signs(name, **more)
        return f"--tls-cert {cert} --tls-key {key} --tls-ca {authority.ca}"

    last = shop.start(f"sink - --from tcp://:0 {files('server')}")
    port = shop.port(last)
    code, _, errors = out(shop.start(f"{INGEST} --to tcp://:{port} {files('expired', days=-1)}"))
    assert code == 2
    assert "has expired: it was valid until" in errors
    good(shop.start(f"{INGEST} --to tcp://:{port} {files('client')}"))
    assert len(good(last)) == 3_000


def test_paths_that_a_stranger_names_are_not_followed(shop: Shop) -> None:
    """Neither the state directory, nor checkpoints in it, nor files for late records and dead letters."""
    trap = shop.folder / "pipelines" / "clicks"
    stranger = shop.start('filter "ms > 3" --from tcp://:0 --to unix:b')
    hand = Hand(shop.port(stranger))
    hand.greet()
    line = {
        "@": "stream", "v": 1, "pipeline": "clicks", "hop": 1, "run": 3, "state": str(trap), "restore": 7,
        "dead_letter": str(shop.folder / "dead-trap"), "late": str(shop.folder / "late-trap"),
        "columns": {"ms": "int"},
    }  # fmt: skip
    records = b'{"ms":5}\n{"ms":"five"}\n'
    data = b"\t" + json.dumps(line).encode() + b"\n" + records + b'\t{"@":"frame","seq":0,"rows":2}\n\t{"@":"end","rows":2,'
    data += b'"accounts":[{"read":2}]}\n'
    last = shop.start("sink - --from unix:b")
    hand.send(Hand.DATA, 0, data)
    hand.send(Hand.END, 1)
    while hand.message() != (Hand.ACK, 2, b""):
        pass
    hand.send(Hand.BYE)
    assert good(last) == ['{"ms":5}']
    good(stranger)
    hand.close()
    assert not trap.exists()
    assert not list(shop.folder.glob("*-trap"))
    assert len(side(shop.folder, "dead")) == 1


@pytest.mark.parametrize("name", ["../../trap", "/trap", "..", ""])
def test_a_pipeline_whose_name_leads_elsewhere_is_refused(shop: Shop, name: str) -> None:
    stranger = shop.start('filter "ms > 3" --from tcp://:0 --to unix:b')
    hand = Hand(shop.port(stranger))
    hand.greet()
    line = {"@": "stream", "v": 1, "pipeline": name, "hop": 1, "run": 0, "columns": {"ms": "int"}}
    hand.send(Hand.DATA, 0, b"\t" + json.dumps(line).encode() + b"\n")
    assert out(stranger)[0] in (2, 65)
    hand.close()
    assert not [path for path in shop.folder.rglob("*") if "trap" in path.name]


def test_a_failed_step_writes_nothing_to_its_standard_output(shop: Shop) -> None:
    """The stream goes elsewhere: a word for the next step would be taken for data there."""
    done = shop.shell("clickpipe filter 'nothing = 1' --from unix:a --to unix:b --reconnect-timeout 1s | cat & "
                      f"clickpipe {INGEST} --to unix:a; wait")  # fmt: skip
    assert done.stdout == b""


@pytest.mark.parametrize("when", ["as soon as it is bound", "while it is taken away"])
def test_a_unix_socket_goes_away_whenever_the_signal_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    listening = listen(f"unix:{tmp_path}/s", may_be_reached=False)
    lstat = os.lstat

    def signalled(_: str) -> os.stat_result:
        monkeypatch.setattr(os, "lstat", lstat)
        clean_up()
        raise InterruptedError

    if when == "as soon as it is bound":
        listening.inode = None
        clean_up()
    else:
        monkeypatch.setattr(os, "lstat", signalled)
        listening.remove()
    assert not (tmp_path / "s").exists()
    listening.socket.close()


def test_a_unix_socket_goes_away_with_a_signal(shop: Shop) -> None:
    path = shop.folder / "s"
    process = shop.start("sink - --from unix:s")
    until(path.exists, "it never listens")
    assert os.stat(path).st_mode & 0o777 == 0o600
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert not path.exists()
