"""TLS of listening sockets: who is let in, what is said of files that do not fit."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from running import Start, until
from serving import LOCAL, PATIENCE, Authority, Served, was_cut_off

from clickpipe.errors import PlanError
from clickpipe.wire.tls import client_context, server_context, validity

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="the openssl command makes the certificates")
N = "--columns n:int"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> tuple[str, str]:
    return authority.issue("server")


def _options(pair: tuple[str, str], ca: str | None = None) -> str:
    return f"{N} --tls-cert {pair[0]} --tls-key {pair[1]}" + (f" --tls-ca {ca}" if ca else "")


def test_a_server_with_tls(start: Start, folder: Path, authority: Authority, server: tuple[str, str]) -> None:
    """Who speaks no TLS, and who trusts another authority, is counted and costs nobody else anything."""
    served = Served(start, folder, _options(server))
    served.send(b'{"n": 1}\n')
    with served.client() as stuck:  # says nothing, and holds up nobody
        with served.secured(client_context(ca=authority.path)) as client:
            client.sendall(b'{"n": 2}\n' * 50_000 + b'{"n": 3}')
            client.unwrap()
        with pytest.raises(ssl.SSLError), served.secured(client_context()):
            pass
        until(lambda: len(served.connections()) == 1, "who trusts another authority is not let go")
        assert [r["n"] for r in served.end()] == [2] * 50_000 + [3]
        assert was_cut_off(stuck)
    assert "of 4 clients 2 failed to agree on TLS; the first: http request" in served.said() or (
        "of 4 clients 2 failed to agree on TLS; the first: wrong version number" in served.said()
    )


def test_a_tls_connection_that_is_cut(start: Start, folder: Path, authority: Authority, server: tuple[str, str]) -> None:
    """Without a word of goodbye its last line may be a part of one: it is none."""
    served = Served(start, folder, _options(server))
    with served.secured(client_context(ca=authority.path)) as client:
        client.sendall(b'{"n": 1}\n{"n": 22}'[:-1])
        client.shutdown(socket.SHUT_WR)
        until(lambda: not served.connections(), "the client is not let go")
    assert [r["n"] for r in served.end()] == [1]
    (dead,) = served.dead()  # asked to end before it has seen the connection break, it takes what has arrived for a line
    assert dead["error"].split(":")[0] in ("the connection broke in the middle of a line", "not JSON")


def test_clients_that_must_show_a_certificate(
    start: Start, folder: Path, authority: Authority, server: tuple[str, str], tmp_path: Path
) -> None:
    served = Served(start, folder, _options(server, authority.path), source="tcp://0.0.0.0:0")
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "others").issue("stranger")
    for pair in (None, stranger, authority.issue("expired", days=-1)):
        assert _is_refused(served, _context(authority, pair))
    with served.secured(_context(authority, authority.issue("client"))) as client:
        client.sendall(b'{"n": 1}\n')
        client.unwrap()
    assert [r["n"] for r in served.end()] == [1]
    assert "of 4 clients 3 failed to agree on TLS; the first: peer did not return a certificate" in served.said()


def _context(authority: Authority, pair: tuple[str, str] | None) -> ssl.SSLContext:
    """Of a client who does not look at its own certificate, as ours would."""
    context = client_context(ca=authority.path)
    if pair:
        context.load_cert_chain(*pair)
    return context


def _is_refused(served: Served, context: ssl.SSLContext) -> bool:
    """TLS 1.3 tells it to a client when it reads."""
    try:
        with served.secured(context) as client:
            client.sendall(b'{"n": 2}\n')
            return client.recv(1) == b""
    except (ssl.SSLError, ConnectionError):
        return True


def test_an_old_tls_is_refused(start: Start, folder: Path, authority: Authority, server: tuple[str, str]) -> None:
    served = Served(start, folder, _options(server))
    context = client_context(ca=authority.path)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    assert _is_refused(served, context)
    assert served.end() == []


def test_when_a_certificate_holds(server: tuple[str, str]) -> None:
    begins, ends = validity(ssl.PEM_cert_to_DER_cert(Path(server[0]).read_text()))
    assert ends - begins == timedelta(days=1)
    with pytest.raises(PlanError, match="damaged"):
        validity(b"\x30\x03abc")


@pytest.mark.parametrize(
    "name", ["missing", "expired", "not a certificate", "not a key", "other's key", "encrypted key", "not a ca"]
)
def test_files_that_do_not_fit(name: str, authority: Authority, server: tuple[str, str], tmp_path: Path) -> None:
    cert, key = server
    text = tmp_path / "text"
    text.write_text("hello\n")
    locked = tmp_path / "locked"
    if name == "encrypted key":
        _lock(key, locked)
    words = {
        "missing": ((str(tmp_path / "no.crt"), key, None), "no.crt: No such file or directory"),
        "expired": ((*authority.issue("old", days=-1), None), "old.crt has expired: it was valid until 20"),
        "not a certificate": ((str(text), key, None), "text: no certificate in PEM"),
        "not a key": ((cert, str(text), None), "text: no private key in PEM that fits"),
        "other's key": ((cert, authority.issue("other")[1], None), "other.key is not the key of the certificate in"),
        "encrypted key": ((cert, str(locked), None), "locked is encrypted: a pipeline cannot be asked for its password"),
        "not a ca": ((cert, key, str(text)), "text: no certificate in PEM"),
    }
    files, said = words[name]
    with pytest.raises(PlanError) as raised:
        server_context(*files)
    assert said in str(raised.value)


def _lock(key: str, to: Path) -> None:
    words = ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", str(to)]
    subprocess.run(words, check=True, capture_output=True)


def test_a_mistake_is_said_before_anything_listens(start: Start, folder: Path, authority: Authority) -> None:
    cert, key = authority.issue("late", days=-1)
    process = start("ingest", LOCAL, "--tls-cert", cert, "--tls-key", key)
    assert process.wait(PATIENCE) == 2
    said = (folder / "errors").read_text()
    assert "late.crt has expired" in said
    assert "listening" not in said
    until(lambda: process.poll() is not None, "it runs still")
