"""On what terms a link is made: who listens, what both sides must show, how long they wait for each other."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from clickpipe.errors import PlanError
from clickpipe.wire.address import Address, is_loopback
from clickpipe.wire.links import TOKEN

_SHORTEST_TOKEN = 16  # bytes: who is not let in may guess as long as he likes, offline


@dataclass(frozen=True)
class Timing:
    """Unit: seconds."""

    beat: float = 5.0  # each side says that it lives, at least this often
    silence: float = 15.0  # a connection on which nothing has come for this long is broken
    greeting: float = 10.0  # who connects must have said who it is by then
    patience: float = 30.0  # for which a peer that is gone may come back
    linger: float = 5.0  # for which a reader that has all stays, for a writer that may not know it
    first_pause: float = 0.1  # between tries to connect; it doubles
    longest_pause: float = 5.0


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files."""

    cert: str
    key: str
    ca: str


@dataclass(frozen=True)
class Terms:
    """`insecure`: a person has said that anybody may connect. `token`: what both sides know, or None.

    `packs`: whether messages are packed; None: those that leave this machine.
    """

    listens: bool
    tls: Tls | None = None
    token: bytes | None = field(default=None, repr=False)
    insecure: bool = False
    packs: bool | None = None
    timing: Timing = Timing()


def checked(address: Address, terms: Terms) -> Terms:
    """The terms, if they are fit for this address. Raises PlanError."""
    if address.is_unix:
        if terms.tls:
            raise PlanError(f"{address}: TLS is for tcp:// addresses; only you can connect to a Unix socket of yours")
        return terms
    if terms.listens and not (terms.tls or terms.token or terms.insecure):
        _check_loopback(address)
    return terms


def _check_loopback(address: Address) -> None:
    try:
        places = address.places()
    except OSError as error:
        raise PlanError(f"{address}: {error.strerror}", word=str(address)) from None
    if not all(map(is_loopback, places)):
        raise PlanError(
            f"{address}: other machines could connect, and nothing would tell friend from foe",
            notes=[
                "--tls-cert FILE --tls-key FILE --tls-ca FILE: both sides show a certificate",
                f"--token-file FILE, or {TOKEN} in the environment: both sides know a secret",
                "tcp://:PORT: only this machine can connect",
                "--insecure: anybody may connect",
            ],
            word=str(address),
        )


def read_token(path: str | None) -> bytes | None:
    """The shared secret, from a file or else from the environment; None where there is none. Raises PlanError."""
    if path is None:
        told = os.environ.get(TOKEN)
        return _token(told.encode(), TOKEN) if told else None
    try:
        with open(path, "rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & stat.S_IROTH:
                raise PlanError(
                    f"--token-file {path}: everybody on this machine can read it", hint=f"chmod 600 {path}", word=path
                )
            return _token(file.read(1 << 16), f"--token-file {path}")
    except OSError as error:
        raise PlanError(f"--token-file {path}: {error.strerror}", word=path) from None


def _token(data: bytes, where: str) -> bytes:
    token = data.strip()
    if len(token) < _SHORTEST_TOKEN:
        hint = "head -c 24 /dev/urandom | base64"
        raise PlanError(f"{where}: a token has at least {_SHORTEST_TOKEN} characters; this one could be guessed", hint=hint)
    return token
