"""Metrics over HTTP: /metrics for a scraper, /healthz for whoever restarts what hangs."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from clickpipe.top.exposition import text
from clickpipe.top.model import Pipeline, troubles
from clickpipe.wire.listen import Listening

_PATIENCE = 5.0  # seconds for a request


def server(listening: Listening, look: Callable[[], Sequence[Pipeline]], patience: float) -> ThreadingHTTPServer:
    """That answers what comes there. `patience`: seconds for which a watermark may stand."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE
        server_version, sys_version = "clickpipe", ""

        def do_GET(self) -> None:
            self._answer(*self._answered())

        def do_HEAD(self) -> None:
            self.do_GET()

        def _answered(self) -> tuple[int, bytes, str]:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                body, kind = text(look, self.headers.get("Accept", ""))
                return 200, body, kind
            if path == "/healthz":
                code, said = health(look(), time.time(), patience)
                return code, json.dumps(said).encode() + b"\n", "application/json"
            return 404, b"there are /metrics and /healthz\n", "text/plain; charset=utf-8"

        def _answer(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # it is called so
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def __init__(self) -> None:
            super().__init__(("", 0), Handler, bind_and_activate=False)
            self.socket.close()
            self.socket = listening.socket

        def get_request(self) -> tuple[socket.socket, object]:
            connection, address = self.socket.accept()
            return connection, address or ("unix", 0)

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that went away

    return Server()


def health(found: Sequence[Pipeline], now: float, patience: float) -> tuple[int, dict[str, object]]:
    """The status code, and what is wrong with which pipeline."""
    wrong = {one.name: why for one in found if (why := troubles(one, now, patience))}
    return (503 if wrong else 200), {"healthy": not wrong, "pipelines": len(found), "troubles": wrong}
