"""A split that others connect to: their lines one behind the other as they come, never mixed. Memory: see wire/clients.py."""

from __future__ import annotations

from collections.abc import Callable

from clickpipe.core.source import Admission, Split
from clickpipe.errors import PlanError
from clickpipe.lines import Block
from clickpipe.wire.client import Cutting
from clickpipe.wire.clients import Clients, Rules
from clickpipe.wire.listen import listen
from clickpipe.wire.tls import server_context


class SharedSplit(Split):
    is_shared = True

    def __init__(self, address: str) -> None:
        self.name = address
        self._clients: Clients | None = None

    def listen(
        self,
        admission: Admission,
        whole: Callable[[bytes], int],
        begin: Callable[[Block], Block],
        say: Callable[[str], None],
    ) -> None:
        rules = _rules(admission)
        listening = listen(self.name, may_be_reached=admission.is_open or bool(rules.tls and admission.ca))
        self._clients = Clients(listening, rules, Cutting(whole, begin), say)
        say(f"listening on {listening.name}")

    def inbox(self) -> Clients:
        assert self._clients is not None, "nobody can connect yet"
        return self._clients

    def end(self) -> None:
        if self._clients is not None:
            self._clients.end()

    def close(self) -> None:
        if self._clients is not None:
            self._clients.close()


def _rules(admission: Admission) -> Rules:
    tls = None
    if admission.cert and admission.key:
        tls = server_context(admission.cert, admission.key, admission.ca)
    elif word := next((word for word, path in _named(admission) if path), ""):
        raise PlanError(f"{word} alone is not enough: TLS takes --tls-cert and --tls-key", word=word)
    return Rules(admission.silence, admission.most, tls)


def _named(admission: Admission) -> list[tuple[str, str | None]]:
    return [("--tls-cert", admission.cert), ("--tls-key", admission.key), ("--tls-ca", admission.ca)]
