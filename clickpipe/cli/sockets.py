"""Options by which a stream comes from a socket, or goes to one, instead of standard input and output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from clickpipe.cli.words import say
from clickpipe.errors import PlanError, ReaderGone
from clickpipe.plan.flags import DURATION
from clickpipe.stopping import forget, on_stop
from clickpipe.wire import link
from clickpipe.wire.address import Address, parse_address
from clickpipe.wire.linkreader import LinkInbox
from clickpipe.wire.linkwriter import LinkOutbox
from clickpipe.wire.terms import TOKEN, Terms, Timing, Tls, read_token

_LAST = 0.5  # seconds for a last word when a signal ends the process


class SocketOption(click.Option):
    """Stands in a section of its own in help texts."""


def end_options(*, reads: bool, writes: bool) -> list[click.Option]:
    """Where the stream comes from and goes to."""
    found = []
    if reads:
        text = "read the stream there, not from standard input: tcp://HOST:PORT or unix:PATH; listens"
        found.append(SocketOption(["--from", "from_"], metavar="ADDRESS", help=text))
    if writes:
        text = "write the stream there, not to standard output; connects, and tries again until somebody listens"
        found.append(SocketOption(["--to"], metavar="ADDRESS", help=text))
    found.append(SocketOption(["--listen"], is_flag=True, help="listen, also at --to"))
    if reads:
        found.append(SocketOption(["--connect"], is_flag=True, help="connect, also to --from"))
    return [*found, *security_options()]


def security_options() -> list[click.Option]:
    return [
        SocketOption(["--tls-cert"], metavar="FILE", help="our certificate, in PEM; both sides show one"),
        SocketOption(["--tls-key"], metavar="FILE", help="its key"),
        SocketOption(["--tls-ca"], metavar="FILE", help="who signs the certificates of the other side"),
        SocketOption(["--token-file"], metavar="FILE", help=f"a secret that both sides know  [default ${TOKEN}]"),
        SocketOption(["--insecure"], is_flag=True, help="let anybody connect from other machines"),
        SocketOption(
            ["--reconnect-timeout"],
            type=DURATION,
            metavar="DURATION",
            help="how long the other side may be gone before this one fails  [default 30s]",
        ),
    ]


@dataclass(frozen=True)
class Sockets:
    """What was said of them. `from_` and `to`: None where the stream is a pipe's."""

    from_: Address | None
    to: Address | None
    reading: Terms
    writing: Terms


def taken(values: dict[str, Any]) -> Sockets:
    """The socket options among these values, which are taken out. Raises PlanError."""
    said = {name: values.pop(name, None) for name in ("from_", "to", "listen", "connect", *_SECURITY)}
    from_, to = (said[name] and parse_address(said[name]) for name in ("from_", "to"))
    _check(said, from_, to)
    reading = terms(said, from_, listens=not said["connect"]) if from_ else Terms(False)
    writing = terms(said, to, listens=bool(said["listen"])) if to else Terms(False)
    return Sockets(from_, to, reading, writing)


_SECURITY = ("tls_cert", "tls_key", "tls_ca", "token_file", "insecure", "reconnect_timeout")


def _check(said: Mapping[str, Any], from_: Address | None, to: Address | None) -> None:
    if said["listen"] and said["connect"]:
        raise PlanError("--listen or --connect, not both", word="--connect")
    if from_ is None and to is None:
        given = [name for name, value in said.items() if value]
        if given:
            flag = f"--{given[0].replace('_', '-')}"
            raise PlanError(f"{flag} is for streams over sockets", hint="--from ADDRESS, --to ADDRESS", word=flag)
        return
    if from_ is not None and from_ == to and from_.port != 0:
        raise PlanError(f"--from and --to are both {from_}", hint="clickpipe serve reads and writes at one address")
    check_tls(said, from_, to)


def check_tls(said: Mapping[str, Any], *addresses: Address | None) -> None:
    """Raises PlanError where it is asked for and there is none to be had. Beside a TCP address, a Unix one needs none."""
    if said["tls_cert"] and all(address is None or address.is_unix for address in addresses):
        raise PlanError("TLS is for tcp:// addresses; only you can connect to a Unix socket of yours", word="--tls-cert")


def terms(said: Mapping[str, Any], address: Address, *, listens: bool) -> Terms:
    """Raises PlanError."""
    files = [said[name] for name in ("tls_cert", "tls_key", "tls_ca")]
    if any(files) and not all(files):
        raise PlanError("--tls-cert, --tls-key and --tls-ca go together: both sides show a certificate")
    tls = Tls(*files) if all(files) and not address.is_unix else None
    patience = said["reconnect_timeout"]
    timing = Timing() if patience is None else Timing(patience=patience / 1_000)
    is_for_token = said["token_file"] or not address.is_unix  # one of the environment is for TCP
    token = read_token(said["token_file"]) if is_for_token else None
    return Terms(listens, tls, token, bool(said["insecure"]), timing=timing)


@contextmanager
def opened(sockets: Sockets) -> Iterator[tuple[LinkInbox | None, LinkOutbox | None]]:
    """The stream's ends that are sockets. Raises PlanError, OutsideError."""
    inbox = outbox = None
    if sockets.from_:
        inbox = link.reader(sockets.from_, sockets.reading, say)
        _tell(sockets.from_, inbox)
    if sockets.to:
        outbox = link.writer(sockets.to, sockets.writing, say)
        _tell(sockets.to, outbox)
    with closing(inbox, outbox):
        yield inbox, outbox


@contextmanager
def closing(inbox: LinkInbox | None, outbox: LinkOutbox | None) -> Iterator[None]:
    """The other sides hear how it ended. A writer ends its stream itself."""

    def abandon(seconds: float = 2) -> None:
        for end in (outbox, inbox):
            if end is not None:
                end.abandon(seconds)

    def leave() -> None:
        abandon(_LAST)

    on_stop(leave)
    try:
        yield
        if inbox is not None:
            inbox.close()
    except ReaderGone:
        if inbox is not None:
            inbox.close()
        raise
    except BaseException:
        abandon()
        raise
    finally:
        forget(leave)


def _tell(asked: Address, end: LinkInbox | LinkOutbox) -> None:
    """Which port was chosen, where it was left open."""
    if not asked.is_unix and asked.port == 0:
        say(f"listening at {end.address}")
