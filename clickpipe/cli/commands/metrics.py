"""Give numbers about what runs, for Prometheus.

Every process of a pipeline writes a small sample of itself once a second, and at its end; this reads them. There is no server
to be run for it.

Without options they are printed. --textfile writes them to a file that node_exporter reads, by renaming; --listen answers
/metrics, and /healthz with 200, or with 503 and the reasons where a pipeline has failed, or where records come and its watermark
or its checkpoints stand still. CLICKPIPE_METRICS=off lets a process write no samples.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from clickpipe.cli.completing import values
from clickpipe.cli.text import described
from clickpipe.cli.words import say
from clickpipe.errors import PlanError
from clickpipe.plan.flags import DURATION

if TYPE_CHECKING:
    from clickpipe.top.model import Pipeline

_EPILOG = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst --name seen | clickpipe aggregate n='count(*)' | clickpipe sink - --quiet &&
    clickpipe metrics | grep clickpipe_records_in_total
  clickpipe metrics --textfile /tmp && grep -c seen /tmp/clickpipe.prom"""


@described("metrics", __doc__, _EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...", help="pipelines; by default all", shell_complete=values.pipelines)
@click.option("--textfile", type=click.Path(file_okay=False), metavar="DIR", help="write DIR/clickpipe.prom")
@click.option("--every", type=DURATION, metavar="DURATION", help="with --textfile: write it again and again")
@click.option("--listen", metavar="ADDRESS", help="serve /metrics and /healthz: HOST:PORT or unix:PATH  [e.g. 127.0.0.1:9464]")
@click.option("--stalled", type=DURATION, metavar="DURATION", default="1m", help="for /healthz: how long a watermark may stand")
@click.option("--insecure", is_flag=True, help="with --listen: other machines may ask too")
def command(
    names: tuple[str, ...], textfile: str | None, every: int | None, listen: str | None, stalled: int, insecure: bool
) -> None:
    from clickpipe.top.exposition import text
    from clickpipe.top.feed import check_known, look

    if textfile and listen:
        raise PlanError("one of --textfile and --listen", word="--listen")
    if every and not textfile:
        raise PlanError("--every is for --textfile", word="--every")
    check_known(names)

    def found() -> list[Pipeline]:
        return look(names=names, everything=True)

    if listen:
        _serve(listen, found, stalled / 1_000, is_open=insecure)
        return
    while textfile:
        _write(textfile, text(found)[0])
        if not every:
            return
        time.sleep(every / 1_000)
    sys.stdout.write(text(found)[0].decode())


def _write(folder: str, data: bytes) -> None:
    from clickpipe.state.files import write_fleeting

    if not os.path.isdir(folder):
        raise PlanError(f"--textfile: {folder} is no directory", word=folder)
    write_fleeting(os.path.join(folder, "clickpipe.prom"), data, mode=0o644)


def _serve(address: str, found: Callable[[], Sequence[Pipeline]], patience: float, *, is_open: bool) -> None:
    from clickpipe.top.serving import server
    from clickpipe.wire.listen import listen

    listening = listen(address if "://" in address or address.startswith("unix:") else f"tcp://{address}", may_be_reached=is_open)
    where = listening.name.removeprefix("tcp://")
    say(f"listening on {where if listening.path else f'http://{where}/metrics'}")
    server(listening, found, patience).serve_forever()
