"""List views and show their rows.

    clickpipe view ls             views, with the number of their rows
    clickpipe view show NAME      the rows, in the order of their keys

A view is a file of SQLite that any program can read; its path is in the list.
"""

from __future__ import annotations

import sys

import click

from clickpipe.batch import Batch
from clickpipe.cli.text import described
from clickpipe.columns import Columns, kind_of
from clickpipe.errors import PlanError
from clickpipe.operators.sink import Sink
from clickpipe.store import views

_EPILOG = """\
Examples:
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst | aggregate --by country n='count(*)' | sink view:lands" &&
    clickpipe view show lands
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst | aggregate --by event n='count(*)' | sink view:events" &&
    clickpipe view ls"""


@described("view", __doc__, _EPILOG)
@click.argument("action", type=click.Choice(["ls", "show"]), metavar="ls|show", help="what to do")
@click.argument("name", default="", metavar="[NAME]", help="a view")
@click.option(
    "--format", "form", type=click.Choice(["table", "ndjson", "csv"]), help="by default a table on a terminal, else ndjson"
)
@click.option("--rows", type=int, default=1_000, metavar="N", help="rows that a table shows  [default 1000]")
def command(action: str, name: str, form: str | None, rows: int) -> None:
    if action == "ls":
        for one in views.names():
            sys.stdout.write(f"{one}  {views.read(one).height:,} rows  {views.path_of(one)}\n")
        return
    if not name:
        raise PlanError("view show needs a view", notes=[f"there are: {', '.join(views.names()) or 'none'}"])
    frame = views.read(name)
    if not frame.width:
        raise PlanError(
            f'view "{name}" has no rows yet: they come with the first checkpoint, or at the end of the run', word=name
        )
    columns = Columns({column: kind_of(kind) for column, kind in frame.schema.items()})
    writer = Sink("-", form or ("table" if sys.stdout.isatty() else "ndjson"), rows=rows).open(columns)
    writer.write(Batch(frame, columns))
    writer.close([])
