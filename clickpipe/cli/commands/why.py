"""Tell what became of an event, or of a window: which step, which window, when it closed, its rows.

    clickpipe why NAME --event ID                            looks for the event in the input, and among what left
    clickpipe why NAME --window START --key page=/a          whether it is open, when it fired, its rows, late records

Works for pipelines with checkpoints, and tells what is so at the newest one. Nothing is changed, and a running
pipeline is not disturbed. An event is looked for in the files of the input, from the beginning: paths are as the
pipeline was given them, so ask in the directory where it was started. Of files that grow, and of limits, it is told
what can be told of a record by itself.
"""

from __future__ import annotations

import sys

import click
import orjson

from clickpipe.cli import pipelines
from clickpipe.cli.completing import values
from clickpipe.cli.text import described
from clickpipe.core.terminal import shown
from clickpipe.core.time import parse_instant
from clickpipe.errors import PlanError

_EPILOG = """\
Examples:
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst --time ts --name c --checkpoint 1s
    | window tumble 1h | aggregate --by page n='count(*)' | sink view:hours" &&
    clickpipe why c --event e000000000001000 && clickpipe why c --window 2026-03-01T09:00:00Z --key /p/1"""


@described("why", __doc__, _EPILOG)
@click.argument("name", metavar="NAME", help="a pipeline", shell_complete=values.pipelines)
@click.option("--event", metavar="ID", help="the event with this id")
@click.option("--by", metavar="COL", help="the column that holds it  [default event_id]", shell_complete=values.column)
@click.option("--window", metavar="START", help="the window that begins then; RFC 3339 or epoch")
@click.option(
    "--key", "keys", multiple=True, metavar="NAME=VALUE", help="of that window, the rows with this value; or VALUE alone"
)
@click.option("--json", "as_json", is_flag=True, help="for programs: an object per line")
def command(name: str, event: str | None, by: str | None, window: str | None, keys: tuple[str, ...], as_json: bool) -> None:
    from clickpipe.engine import of_event, of_window
    from clickpipe.engine.rebuilt import rebuilt

    _check(event, by, window, keys)
    pipeline = rebuilt(pipelines.opened(name))
    if event is not None:
        told = of_event.of_event(pipeline, by or of_event.default_column(pipeline), event)
    else:
        told = of_window.of_window(pipeline, _instant(window or ""), of_window.named_key(pipeline, keys))
    for one in told:
        if as_json:
            sys.stdout.write(orjson.dumps({"what": one.what, "text": one.text, **one.data}).decode() + "\n")
        else:
            sys.stdout.write(shown(one.text.replace("\n", " ")) + "\n")


def _check(event: str | None, by: str | None, window: str | None, keys: tuple[str, ...]) -> None:
    if (event is None) == (window is None):
        raise PlanError("why needs --event ID or --window START")
    if event == "":
        raise PlanError("--event is empty", word="--event")
    if by and event is None:
        raise PlanError("--by is for --event", word="--by")
    if keys and window is None:
        raise PlanError("--key is for --window", word="--key")


def _instant(text: str) -> int:
    try:
        return parse_instant(text)
    except ValueError as error:
        raise PlanError(str(error), word=text) from None
