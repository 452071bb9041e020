"""List what can be queried, and the columns of one table.

clickpipe tables              names, what stands for them, how much there is
clickpipe tables NAME         its columns with their types, and since when an archive has them
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click
import orjson

from clickpipe.cli.completing import values
from clickpipe.cli.text import described
from clickpipe.core.terminal import shown
from clickpipe.core.time import instant_text
from clickpipe.query import scans, tables
from clickpipe.query.tables import Table
from clickpipe.store import archives, logs

_EPILOG = """\
Examples:
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst | aggregate --by country n='count(*)' | sink view:lands" &&
    clickpipe tables && clickpipe tables lands"""


@described("tables", __doc__, _EPILOG)
@click.argument("name", default="", metavar="[NAME]", help="a table", shell_complete=values.tables)
@click.option("--json", "as_json", is_flag=True, help="for programs, an object per line")
def command(name: str, as_json: bool) -> None:
    said = _columns(tables.find(name)) if name else (_sizes(tables.find(one)) for one in tables.known())
    for one in said:
        sys.stdout.write(orjson.dumps(one).decode() + "\n" if as_json else shown(_line(one)) + "\n")


def _line(said: dict[str, Any]) -> str:
    return "  ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in said.values() if value not in (None, ""))


def _sizes(table: Table) -> dict[str, Any]:
    """One line of the list."""
    found = {kind: _size(kind, table.of) for kind in table.kinds}
    return {"table": table.name, "stands_for": " + ".join(f"{kind}:{table.of} {rows}" for kind, rows in found.items())}


def _size(kind: str, name: str) -> str:
    if kind == "view":
        reader = tables.view_reader(name)
        try:
            return f"({reader.rows():,} rows)"
        finally:
            reader.close()
    if kind == "archive":
        files = archives.Archive(name).snapshot().files
        return f"({sum(file.rows for file in files):,} rows in {len(files):,} files, {sum(file.bytes for file in files):,} bytes)"
    log = logs.Log(name)
    return f"({sum(log.ends()) - sum(log.starts):,} records)"


def _columns(table: Table) -> Iterator[dict[str, Any]]:
    changes = archives.Archive(table.of).snapshot().history if "archive" in table.kinds else ()
    for name, kind in scans.kinds(table).items():
        mine = [change for change in reversed(changes) if change.column == name]
        words = [
            f"{change.kind if number else ''} since {instant_text(change.time)}".strip() for number, change in enumerate(mine)
        ]
        yield {"column": name, "type": kind, "history": ", ".join(words)}
