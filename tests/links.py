"""For tests of links: a proxy that does harm, a peer that speaks the protocol by hand, certificates."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import select
import socket
import ssl
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clickpipe.wire.terms import Timing

FAST = Timing(beat=0.1, silence=5, greeting=5, patience=20, first_pause=0.002, longest_pause=0.05)
SHORT = Timing(beat=0.1, silence=5, greeting=5, patience=0.5, first_pause=0.01, longest_pause=0.05)
DEADLINE = 60.0


def until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


class Working:
    """A thread whose failure is the test's."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.failure: BaseException | None = None
        self.result: Any = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:
            self.failure = error

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def get(self) -> Any:
        self._thread.join(DEADLINE)
        assert self.is_done, "it never ends"
        if self.failure:
            raise self.failure
        return self.result


class Proxy:
    """Stands between two ends, and cuts: each connection after as many bytes (in both directions) as `cuts` has next.

    `freeze` holds back all bytes of the connections that there are, and closes nothing: half-open. New ones flow.
    """

    def __init__(self, target: tuple[str, int], cuts: list[int]) -> None:
        self._target, self._cuts = target, list(cuts)
        self.connections = self.passed = 0  # and bytes
        self._frozen_before = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self._frozen_before = self.connections

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:  # it has ended
                near.close()
                continue
            self.connections += 1
            left = self._cuts.pop(0) if self._cuts else None
            threading.Thread(target=self._pump, args=(near, far, left, self.connections), daemon=True).start()

    def _pump(self, near: socket.socket, far: socket.socket, left: int | None, number: int) -> None:
        other = {near: far, far: near}
        with near, far, contextlib.suppress(OSError):
            while other:
                ready, _, _ = select.select([near, far], [], [], 0.05)
                if number <= self._frozen_before:
                    time.sleep(0.01)
                    continue
                for sock in ready:
                    data = sock.recv(1 << 16)
                    if left is not None:
                        data = data[:left]
                        left -= len(data)
                    if not data:
                        return  # closed, or cut
                    other[sock].sendall(data)
                    self.passed += len(data)
                    if left == 0:
                        return


def made(kind: int, sequence: int = 0, payload: bytes = b"", **changed: int) -> bytes:
    """A message. `changed`: see Hand.send."""
    flags, length = changed.get("flags", 0), changed.get("length", len(payload))
    head = struct.pack(">BBHIQ", kind, flags, 0, length, sequence)
    check = changed.get("check", zlib.crc32(head + payload))
    return head + struct.pack(">I", check) + payload


class Hand:
    """The protocol, spoken by hand from its description in clickpipe-stream(5)."""

    DATA, END, ACK, BEAT, BYE, GONE, FAILED = range(1, 8)

    def __init__(
        self,
        port: int,
        role: str = "writer",
        token: bytes | None = None,
        version: int = 1,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname="127.0.0.1")
        self.file = self.sock.makefile("rb")
        self.role, self.token = role, token
        self.id, self.nonce = secrets.token_hex(16), secrets.token_hex(16)
        self.version = version

    def hello(self) -> dict[str, Any]:
        self.say({"@": "hello", "v": self.version, "role": self.role, "id": self.id, "nonce": self.nonce})
        return self.line()

    def greet(self) -> dict[str, Any]:
        theirs = self.hello()
        ready: dict[str, Any] = {"@": "ready", "next": 0}
        if self.token:
            said = f"clickpipe 1\n{self.role}\n{theirs['nonce']}\n{self.nonce}".encode()
            ready["proof"] = hmac.new(self.token, said, hashlib.sha256).hexdigest()
        self.say(ready)
        return self.line()

    def say(self, line: dict[str, Any]) -> None:
        self.sock.sendall(json.dumps(line).encode() + b"\n")

    def line(self) -> dict[str, Any]:
        line = self.file.readline()
        assert line, "the other side closed the connection"
        return dict(json.loads(line))

    def send(self, kind: int, sequence: int = 0, payload: bytes = b"", **changed: int) -> None:
        """`changed`: flags, length, check: other ones than are right."""
        self.sock.sendall(made(kind, sequence, payload, **changed))

    def message(self) -> tuple[int, int, bytes]:
        head = self.file.read(20)
        assert len(head) == 20, "the other side closed the connection"
        kind, _, _, length, sequence, _ = struct.unpack(">BBHIQI", head)
        return kind, sequence, self.file.read(length)

    def is_closed(self) -> bool:
        """Waits for it."""
        try:
            while self.file.read(1):
                pass
        except OSError:
            pass
        return True

    def close(self) -> None:
        self.file.close()
        self.sock.close()


class Authority:
    """Certificates, made by openssl."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder, self.name = folder, name
        self.ca = str(folder / f"{name}.pem")
        self._key = str(folder / f"{name}.key")
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9",
                      "-keyout", self._key, "-out", self.ca, "-subj", f"/CN={name}")  # fmt: skip

    def signs(self, name: str, *, days: int = 9, host: str = "IP:127.0.0.1") -> tuple[str, str]:
        """A certificate and its key. `days`: negative for one that has expired."""
        cert, key, asked = (str(self._folder / f"{self.name}-{name}.{end}") for end in ("pem", "key", "csr"))
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", asked,
                      "-subj", f"/CN={name}")  # fmt: skip
        more = self._folder / f"{name}.ext"
        more.write_text(f"subjectAltName={host}\n")
        begins = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() - 20 * 86_400))
        ends = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * 86_400))
        self._sign(asked, cert, str(more), begins, ends)
        return cert, key

    def _sign(self, asked: str, cert: str, more: str, begins: str, ends: str) -> None:
        """`openssl x509` of this version takes no dates of the past; `openssl ca` does."""
        index = self._folder / f"{Path(cert).stem}.index"
        index.write_text("")
        settings = self._folder / f"{Path(cert).stem}.cnf"
        settings.write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={index}\nnew_certs_dir={self._folder}\ndefault_md=sha256\npolicy=p\n"
            "rand_serial=yes\nunique_subject=no\n[p]\ncommonName=supplied\n"
        )
        self._openssl("ca", "-batch", "-config", str(settings), "-cert", self.ca, "-keyfile", self._key, "-in", asked,
                      "-out", cert, "-extfile", more, "-startdate", begins, "-enddate", ends, "-notext")  # fmt: skip

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))
