"""Run steps on a stream that comes over a socket.

Listens at an address, takes the stream of the first writer that connects, runs the steps on it in this process, and gives
its own stream to whoever connects to the same address to read (--from ADDRESS --connect), or, with --to, connects there.
Steps that end in a sink give no stream. It serves one stream and ends with it, like a step in a shell pipeline; a
connection that is lost may come back.

From other machines only with certificates on both sides (--tls-cert, --tls-key, --tls-ca) or a secret that both know
(--token-file, or CLICKPIPE_TOKEN); a token tells who may connect, and hides nothing from who sees the wire. Addresses: unix:PATH,
tcp://HOST:PORT, tcp://:PORT (this machine only). Paths and checkpoints of a stream are followed only where a process of the
same user sends them over a Unix socket.
"""

from __future__ import annotations

from typing import Any

import click

from clickpipe.cli.accounts import report
from clickpipe.cli.sockets import check_tls, closing, security_options, terms
from clickpipe.cli.step import CODECS, codec_of
from clickpipe.cli.text import described
from clickpipe.cli.words import say, speak_of
from clickpipe.errors import PlanError
from clickpipe.plan.parse import parse
from clickpipe.plan.plan import Plan
from clickpipe.wire import link
from clickpipe.wire.address import parse_address
from clickpipe.wire.links import Links

_EPILOG = """\
Examples:
  clickpipe serve --listen unix:/tmp/clickpipe-serve.sock "window tumble 1h | aggregate n='count(*)'" &
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts --to unix:/tmp/clickpipe-serve.sock &
  clickpipe sink - --from unix:/tmp/clickpipe-serve.sock --connect

On several machines: clickpipe serve --listen tcp://10.0.0.2:7001 --token-file token "…" there, and here
clickpipe ingest … --to tcp://10.0.0.2:7001 --token-file token, with the same token (head -c 24 /dev/urandom | base64)."""


@described("serve", __doc__, _EPILOG)
@click.argument("steps", metavar="STEPS", help="what is done to the stream, as in a recipe: 'filter … | window …'")
@click.option("--listen", required=True, metavar="ADDRESS", help="where the stream comes: tcp://HOST:PORT or unix:PATH")
@click.option("--to", metavar="ADDRESS", help="write the stream there, instead of to who connects to read it")
@click.option("--codec", type=click.Choice(CODECS), help="how records travel  [default $CLICKPIPE_CODEC or arrow]")
@click.option("--quiet", "-q", is_flag=True, help="do not print the accounts at the end")
def command(steps: str, listen: str, to: str | None, codec: str | None, quiet: bool, **security: Any) -> None:
    from clickpipe.engine.local import run

    plan = _plan(steps)
    address, there = parse_address(listen), parse_address(to) if to else None
    check_tls(security, address, there)
    if plan.sink and there:
        raise PlanError("--to is for steps that give a stream, and these end in a sink", word="--to").at("serve")
    codec = codec_of(codec, "arrow")

    reading = terms(security, [address], listens=True)
    door = link.meeting_at(address, reading, say)
    inbox = link.reader_at(door, reading, say)
    outbox = None
    if not plan.sink:
        outbox = link.writer(there, terms(security, [there], listens=False), say) if there else link.writer_at(door, reading, say)
    door.open()
    if not address.is_unix and not address.port:
        say(f"listening at {door.address}")
    links = Links([inbox], [outbox] if outbox else [])
    with closing(links):
        outcome = run(plan, say, arrow=codec == "arrow", links=links, begun=speak_of)
    if not quiet:
        report(outcome)


def _plan(steps: str) -> Plan:
    plan = parse(steps)
    if plan.source:
        name = plan.source.written.name
        raise PlanError(f"serve reads a stream, and {name} begins one", hint="clickpipe ingest … --to ADDRESS sends it here")
    return plan


command.params += security_options()
