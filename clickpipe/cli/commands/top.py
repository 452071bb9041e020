"""Watch what runs: how fast, how late, where it hurts.

Shows every pipeline of this user, typed in a shell or supervised, and those that have ended in the last ten minutes. Enter opens
a pipeline: what each step takes of its process's time, which one the others wait for, and which split holds the watermark back;
from there its view's rows, its late records and its dead letters. ? shows all keys.

    REC/S   records per second          LAG    how far the watermark is behind the clock
    CKPT    age of the last checkpoint  RST    how often it was started again

--once prints it as text, and --json as an object per pipeline and line, for scripts. What runs with another CLICKPIPE_HOME is not
seen.
"""

from __future__ import annotations

import os
import sys

import click
import orjson

from clickpipe.cli.completing import values
from clickpipe.cli.text import described
from clickpipe.errors import PlanError

_WIDTH = 160  # characters of a line on a pipe
_EPILOG = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts --name seen | clickpipe window tumble 1h |
    clickpipe aggregate n='count(*)' | clickpipe sink /tmp/seen.ndjson && clickpipe top --once
  clickpipe run -q -c "ingest sample_data/clicks.ndjson.zst | sink /tmp/all.ndjson" && clickpipe top --json | head -1"""


@described("top", __doc__, _EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...", help="pipelines; by default all", shell_complete=values.pipelines)
@click.option("--once", is_flag=True, help="print it as text; of pipelines that are named, their steps and splits")
@click.option("--json", "as_json", is_flag=True, help="for programs: an object per line")
@click.option("--interval", type=click.FloatRange(0.2, 60), default=1.0, metavar="SECONDS", help="between two looks  [default 1]")
def command(names: tuple[str, ...], once: bool, as_json: bool, interval: float) -> None:
    from clickpipe.top.feed import check_known, look

    check_known(names)
    if as_json:
        from clickpipe.top.model import as_json as spelled

        for one in look(names=names, everything=bool(names)):
            sys.stdout.write(orjson.dumps(spelled(one)).decode() + "\n")
    elif once:
        from clickpipe.top.tables import all_of_them, one_of_them, printed

        width = None if sys.stdout.isatty() else _WIDTH
        found = look(names=names, everything=bool(names))
        for what in map(one_of_them, found) if names else [all_of_them(found)]:
            printed(what, width)
    else:
        _need_terminal()
        for name in ("COLUMNS", "LINES"):  # of a shell that exports them: what they say would be taken for the size for ever
            os.environ.pop(name, None)
        from clickpipe.top.screen import Top

        Top(lambda: look(names=names, everything=bool(names)), interval).run()


def _need_terminal() -> None:
    """The dashboard would flood anything else with its escape codes."""
    is_one = all(os.isatty(descriptor) for descriptor in (0, 1, 2)) and os.environ.get("TERM", "dumb") != "dumb"
    if not is_one:
        raise PlanError("top needs a terminal", hint="--once prints it as text, --json for programs")
