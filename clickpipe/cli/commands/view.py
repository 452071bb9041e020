"""List views, show their rows, drop one.

    clickpipe view ls             views, with the number of their rows
    clickpipe view show NAME      the rows, in the order of their keys
    clickpipe view drop NAME      delete it with all its rows; nothing may be writing to it

A view is a file of SQLite that any program can read while a pipeline writes; its path is in the list. Which rows stay is said
where it is written: sink view:NAME --keep 7d. SQL over views, archives and logs: clickpipe query.
"""

from __future__ import annotations

import sys

import click
import orjson

from clickpipe.batch import Batch
from clickpipe.cli.completing import values
from clickpipe.cli.text import described
from clickpipe.cli.words import say
from clickpipe.columns import Columns, kind_of
from clickpipe.errors import PlanError
from clickpipe.operators.sink import Sink
from clickpipe.store import viewread, views

_ACTIONS = ("ls", "show", "drop")
_EPILOG = """\
Examples:
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst | aggregate --by country n='count(*)' | sink view:lands" &&
    clickpipe view show lands
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst | aggregate --by event n='count(*)' | sink view:events" &&
    clickpipe view ls && clickpipe view drop events"""


@described("view", __doc__, _EPILOG)
@click.argument("action", type=click.Choice(_ACTIONS), metavar="|".join(_ACTIONS), help="what to do")
@click.argument("name", default="", metavar="[NAME]", help="a view", shell_complete=values.views)
@click.option(
    "--format", "form", type=click.Choice(["table", "ndjson", "csv"]), help="by default a table on a terminal, else ndjson"
)
@click.option("--rows", type=int, default=1_000, metavar="N", help="rows that a table shows  [default 1000]")
@click.option("--json", "as_json", is_flag=True, help="ls: for programs, an object per line")
def command(action: str, name: str, form: str | None, rows: int, as_json: bool) -> None:
    if action == "ls":
        for one in views.names():
            _list(one, as_json)
        return
    if not name:
        raise PlanError(f"view {action} needs a view", notes=[f"there are: {', '.join(views.names()) or 'none'}"])
    if action == "drop":
        views.drop(name)
        say(f"view {name} is gone")
        return
    _show(name, form, rows)


def _list(name: str, as_json: bool) -> None:
    reader = viewread.ViewReader(name)
    if as_json:
        said = {"view": name, "rows": reader.rows(), "columns": reader.about.types, "path": views.path_of(name)}
        sys.stdout.write(orjson.dumps(said).decode() + "\n")
    else:
        sys.stdout.write(f"{name}  {reader.rows():,} rows  {views.path_of(name)}\n")
    reader.close()


def _show(name: str, form: str | None, rows: int) -> None:
    frame = viewread.read(name)
    if not frame.width:
        raise PlanError(
            f'view "{name}" has no rows yet: they come with the first checkpoint, or at the end of the run', word=name
        )
    columns = Columns({column: kind_of(kind) for column, kind in frame.schema.items()})
    writer = Sink("-", form or ("table" if sys.stdout.isatty() else "ndjson"), rows=rows).open(columns)
    writer.write(Batch(frame, columns))
    writer.close([])
