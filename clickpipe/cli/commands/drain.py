"""End running pipelines as if their input ended here: windows close, results are complete.

A pipeline that was drained has come to its end; `ingest --reset` begins it anew. To go on later, stop it instead.
Exit code 75: one still runs when the time is over. What runs without checkpoints is not known here.
"""

from __future__ import annotations

import signal

import click

from clickpipe.cli.ending import end
from clickpipe.cli.text import described
from clickpipe.plan.flags import DURATION

_EPILOG = """\
Examples:
  clickpipe drain --all"""


@described("drain", __doc__, _EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...", help="pipelines")
@click.option("--all", "every", is_flag=True, help="all that run")
@click.option("--timeout", type=DURATION, default=60_000, metavar="DURATION", help="wait no longer than this  [default 1m]")
def command(names: tuple[str, ...], every: bool, timeout: int) -> None:
    end(names, signal.SIGUSR1, timeout / 1_000, every=every)
