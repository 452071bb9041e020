"""Stop running pipelines after a last checkpoint, with windows left open.

The same line, or the same recipe, goes on from there. Exit code 75: one still runs when the time is over.
What runs without checkpoints is not known here: end it with Ctrl-C.
"""

from __future__ import annotations

import signal

import click

from clickpipe.cli.ending import end
from clickpipe.cli.text import described
from clickpipe.plan.flags import DURATION

_EPILOG = """\
Examples:
  clickpipe stop --all"""


@described("stop", __doc__, _EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...", help="pipelines")
@click.option("--all", "every", is_flag=True, help="all that run")
@click.option("--timeout", type=DURATION, default=60_000, metavar="DURATION", help="wait no longer than this  [default 1m]")
def command(names: tuple[str, ...], every: bool, timeout: int) -> None:
    end(names, signal.SIGTERM, timeout / 1_000, every=every)
