"""Options by which a stream comes from a socket, or goes to one, instead of standard input and output."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from clickpipe.cli.words import say
from clickpipe.errors import PlanError, ReaderGone
from clickpipe.plan.flags import DURATION
from clickpipe.stopping import forget, on_stop
from clickpipe.wire.links import NO_LINKS, TOKEN, Links

if TYPE_CHECKING:
    from clickpipe.wire.address import Address
    from clickpipe.wire.linkreader import LinkInbox
    from clickpipe.wire.linkwriter import LinkOutbox
    from clickpipe.wire.terms import Terms

_MOST = 1_000  # addresses that braces may stand for
_LAST = 0.5  # seconds for a last word when a signal ends the process


class SocketOption(click.Option):
    """Stands in a section of its own in help texts."""


def several_sources() -> click.Argument:
    """Where the streams come from that are merged."""
    text = "in a shell: merge the streams that come from there, tcp://HOST:PORT or unix:PATH; connects"
    return click.Argument(["from_"], nargs=-1, metavar="[ADDRESS]…", help=text)


def end_options(*, reads: bool, writes: bool, divides: bool = False) -> list[click.Option]:
    """Where the stream comes from and goes to. `divides`: to several places."""
    found = []
    if reads:
        text = "read the stream there, not from standard input: tcp://HOST:PORT or unix:PATH; listens"
        found.append(SocketOption(["--from", "from_"], metavar="ADDRESS", help=text))
    if writes:
        text = "write the stream there, not to standard output; connects, and tries again until somebody listens"
        divided = "divide the stream among these, instead of workers of this machine: tcp://10.0.0.{1..4}:7001; connects"
        found.append(SocketOption(["--to"], metavar="ADDRESS", multiple=divides, help=divided if divides else text))
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
    """What was said of them: where the stream comes from and goes to, each on its terms. None: it is a pipe's."""

    from_: Sequence[tuple[Address, Terms]] = ()
    to: Sequence[tuple[Address, Terms]] = ()


def said_of_sockets(values: Mapping[str, Any]) -> Sockets:
    """By these values of options, of which others are for something else. Raises PlanError."""
    said = {name: values.get(name) for name in ("from_", "to", "listen", "connect", *SECURITY)}
    from_, to = _addresses(said["from_"]), _addresses(said["to"])
    _check(said, from_, to)
    is_merged = isinstance(said["from_"], tuple)  # those that divide and merge go to the workers, who wait
    listens = bool(said["listen"])
    return Sockets(_on_terms(said, from_, listens if is_merged else not said["connect"]), _on_terms(said, to, listens))


def _on_terms(said: Mapping[str, Any], addresses: Sequence[Address], listens: bool) -> list[tuple[Address, Terms]]:
    if not addresses:
        return []
    on = terms(said, addresses, listens=listens)
    return [(address, on) for address in addresses]


def _addresses(said: str | tuple[str, ...] | None) -> list[Address]:
    """`{1..4}` and `{a,b}` stand for several, as in a shell. Raises PlanError."""
    from clickpipe.wire.address import parse_address

    words = said if isinstance(said, tuple) else (said,) if said else ()
    found = [parse_address(one) for word in words for one in _expanded(word)]
    twice = next((str(one) for one in found if found.count(one) > 1 and (one.port or one.path)), None)
    if twice:
        raise PlanError(f"{twice} is there twice", word=twice)
    return found


def _expanded(word: str) -> Iterator[str]:
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", word)
    if not match:
        yield word
        return
    first, last, listed = match.groups()
    if not listed and not 0 <= int(last) - int(first) < _MOST:
        raise PlanError(f"{match[0]} stands for no address, or for more than {_MOST:,}", word=word)
    for one in listed.split(",") if listed else range(int(first), int(last) + 1):
        yield from _expanded(f"{word[: match.start()]}{one}{word[match.end() :]}")


SECURITY = ("tls_cert", "tls_key", "tls_ca", "token_file", "insecure", "reconnect_timeout")


def _check(said: Mapping[str, Any], from_: Sequence[Address], to: Sequence[Address]) -> None:
    if said["listen"] and said["connect"]:
        raise PlanError("--listen or --connect, not both", word="--connect")
    if not from_ and not to:
        given = [name for name, value in said.items() if value]
        if given:
            flag = f"--{given[0].replace('_', '-')}"
            raise PlanError(f"{flag} is for streams over sockets", hint="--from ADDRESS, --to ADDRESS", word=flag)
        return
    if both := [address for address in from_ if address in to and (address.port or address.path)]:
        raise PlanError(f"--from and --to are both {both[0]}", hint="clickpipe serve reads and writes at one address")
    check_tls(said, *from_, *to)


def check_tls(said: Mapping[str, Any], *addresses: Address | None) -> None:
    """Raises PlanError where it is asked for and there is none to be had. Beside a TCP address, a Unix one needs none."""
    if said["tls_cert"] and all(address is None or address.is_unix for address in addresses):
        raise PlanError("TLS is for tcp:// addresses; only you can connect to a Unix socket of yours", word="--tls-cert")


def terms(said: Mapping[str, Any], addresses: Sequence[Address], *, listens: bool) -> Terms:
    """Raises PlanError."""
    from clickpipe.wire.terms import Terms, Timing, Tls, read_token

    is_unix = all(address.is_unix for address in addresses)
    files = [said[name] for name in ("tls_cert", "tls_key", "tls_ca")]
    if any(files) and not all(files):
        raise PlanError("--tls-cert, --tls-key and --tls-ca go together: both sides show a certificate")
    tls = Tls(*files) if all(files) and not is_unix else None
    patience = said["reconnect_timeout"]
    timing = Timing() if patience is None else Timing(patience=patience / 1_000)
    is_for_token = said["token_file"] or not is_unix  # one of the environment is for TCP
    token = read_token(said["token_file"]) if is_for_token else None
    return Terms(listens, tls, token, bool(said["insecure"]), timing=timing)


@contextmanager
def opened(sockets: Sockets) -> Iterator[Links]:
    """The stream's ends that are sockets. Raises PlanError, OutsideError."""
    if not (sockets.from_ or sockets.to):
        yield NO_LINKS
        return
    from clickpipe.wire import link

    inboxes: list[LinkInbox] = []
    outboxes: list[LinkOutbox] = []
    links = Links(inboxes, outboxes)
    with closing(links):
        for address, reading in sockets.from_:
            inboxes.append(link.reader(address, reading, say))
            _tell(address, inboxes[-1])
        for address, writing in sockets.to:
            outboxes.append(link.writer(address, writing, say))
            _tell(address, outboxes[-1])
        yield links


@contextmanager
def closing(links: Links) -> Iterator[None]:
    """The other sides hear how it ended. A writer ends its stream itself."""

    def abandon(seconds: float = 2) -> None:
        for outbox in links.written:
            outbox.abandon(seconds)
        for inbox in links.read:
            inbox.abandon(seconds)

    def leave() -> None:
        abandon(_LAST)

    on_stop(leave)
    try:
        yield
        for inbox in links.read:
            inbox.close()
    except ReaderGone:
        for inbox in links.read:
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
