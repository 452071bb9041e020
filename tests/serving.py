"""Pipelines that listen, and clients that send to them."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from running import Start, errors, until

PATIENCE = 60  # seconds, after which a test has failed
LOCAL = "tcp://127.0.0.1:0"


class Served:
    """A pipeline that listens, from its first word until it has ended."""

    def __init__(self, start: Start, folder: Path, options: str = "", source: str = LOCAL, middle: str = "", **more: str) -> None:
        middle = f"| {middle}" if middle else ""
        self.folder, before = folder, (folder / "errors").read_text() if (folder / "errors").exists() else ""
        self.process = start("run", "-c", f"ingest {source} {options} {middle} | sink out.ndjson", **more)
        until(lambda: "listening on" in self.said(before) or self.process.poll() is not None, "it neither listens nor ends")
        assert self.process.poll() is None, self.said(before)
        self.address = self.said(before).split("listening on ", 1)[1].split("\n", 1)[0]

    def said(self, before: str = "") -> str:
        return errors(self.folder).removeprefix(before)

    def client(self) -> socket.socket:
        if self.address.startswith("unix:"):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(PATIENCE)
            client.connect(str(self.folder / self.address.removeprefix("unix:")))
            return client
        host, port = self.address.removeprefix("tcp://").rsplit(":", 1)
        return socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE)

    def send(self, data: bytes) -> None:
        """Like nc: connect, send, close."""
        with self.client() as client:
            client.sendall(data)

    @contextmanager
    def secured(self, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
        with self.client() as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
            yield client

    def connections(self) -> list[int]:
        """Of connections to it that it has not closed: how many bytes it has not read."""
        port = f":{int(self.address.rsplit(':', 1)[1]):04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return [int(row[4].split(":")[1], 16) for row in rows if row[1].endswith(port) and row[3] in ("01", "08")]

    def peak(self) -> int:
        """Bytes of memory that it has had at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:", 1)[1].split()[0]) << 10

    def end(self, number: int = signal.SIGTERM) -> list[dict[str, Any]]:
        """Ask it to end; the records that it has written. It must end well."""
        self.process.send_signal(number)
        assert self.process.wait(PATIENCE) == 0, self.said()
        return self.records()

    def records(self) -> list[dict[str, Any]]:
        path = self.folder / "out.ndjson"  # a run that has stopped before its first result has written none
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def dead(self) -> list[dict[str, Any]]:
        paths = sorted((self.folder / ".home" / "pipelines").glob("*/dead.ndjson"))
        return [json.loads(line) for path in paths for line in path.read_text().split("\n") if line]


def was_cut_off(client: socket.socket) -> bool:
    """Waits for it."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


class Authority:
    """Certificates for tests, made by the openssl command."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder, self._name = folder, name
        self.path = self._make(name, "-x509", "-subj", f"/CN={name}", "-days", "2")

    def issue(self, name: str, *, days: int = 1) -> tuple[str, str]:
        """Paths of a certificate for localhost and of its key. `days` < 0: it has expired."""
        request, cert, names = (str(self._folder / f"{name}.{kind}") for kind in ("csr", "crt", "ext"))
        self._make(name, "-subj", f"/CN={name}")
        Path(names).write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        words = f"x509 -req -in {request} -CA {self.path} -CAkey {self._key(self._name)} -CAcreateserial -days {days}"
        _openssl(*shlex.split(words), "-extfile", names, "-out", cert)
        return cert, self._key(name)

    def _make(self, name: str, *words: str) -> str:
        out = str(self._folder / f"{name}.{'crt' if '-x509' in words else 'csr'}")
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", self._key(name))
        _openssl("req", *key, *words, "-out", out)
        return out

    def _key(self, name: str) -> str:
        return str(self._folder / f"{name}.key")


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
