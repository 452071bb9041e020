"""List archives, show their rows, check, compact and retain them.

    clickpipe archive ls                       archives, their rows, files and time
    clickpipe archive show NAME                columns, and the newest rows
    clickpipe archive check NAME               every file against its hash; exit code 78 where one is damaged
    clickpipe archive compact NAME             many small files as one of about 128 MiB
    clickpipe archive retain NAME --keep 400d  let files go whose newest row is older

An archive is plain Parquet in folders by day, which DuckDB, Spark and pandas read as it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import click
import orjson

from clickpipe.cli.completing import values
from clickpipe.cli.progress import bar
from clickpipe.cli.text import described
from clickpipe.cli.words import say
from clickpipe.core.operator import FOREVER
from clickpipe.core.time import instant_text
from clickpipe.errors import PlanError, StateError
from clickpipe.plan.flags import DURATION, SIZE
from clickpipe.store import archives
from clickpipe.store.archives import Archive, Snapshot
from clickpipe.store.versions import File

_ACTIONS = ("ls", "show", "check", "compact", "retain")
_TARGET = 128 << 20
_EPILOG = """\
Examples:
  clickpipe run -q -c "ingest sample_data/clicks.ndjson.zst --time ts | sink archive:clicks" && clickpipe archive ls &&
    clickpipe archive show clicks --rows 2 && clickpipe archive compact clicks && clickpipe archive check clicks
  clickpipe run -q -c "ingest sample_data/clicks.ndjson.zst --time ts | sink archive:old" &&
    clickpipe archive retain old --keep 400d && clickpipe archive ls

Who reads an archive while it is compacted or retained goes on reading what was there: removed files stay for ten minutes, under
names that begin with a point."""


@described("archive", __doc__, _EPILOG)
@click.argument("action", type=click.Choice(_ACTIONS), metavar="|".join(_ACTIONS), help="what to do")
@click.argument("name", default="", metavar="[NAME]", help="an archive", shell_complete=values.archives)
@click.option("--rows", type=click.IntRange(0), default=10, metavar="N", help="show: newest rows  [default 10]")
@click.option("--format", "form", type=click.Choice(["table", "ndjson", "csv"]), help="show: how; by default as query does")
@click.option("--target", type=SIZE, default=_TARGET, metavar="SIZE", help="compact: about the size of a file  [default 128MiB]")
@click.option("--keep", type=DURATION, metavar="DURATION", help="retain: rows that are younger stay  [e.g. 400d]")
@click.option("--dry-run", is_flag=True, help="retain: say what would go, and leave it")
@click.option("--json", "as_json", is_flag=True, help="ls: for programs, an object per line")
def command(
    action: str, name: str, rows: int, form: str | None, target: int, keep: int | None, dry_run: bool, as_json: bool
) -> int:
    if action == "ls":
        for one in archives.names():
            said = _described(Archive(one).snapshot())
            sys.stdout.write(orjson.dumps(said).decode() + "\n" if as_json else _line(said) + "\n")
        return 0
    if not name:
        raise PlanError(f"archive {action} needs an archive", notes=[f"there are: {', '.join(archives.names()) or 'none'}"])
    archive = Archive(name)
    if action == "show":
        _show(archive.snapshot(), rows, form)
    elif action == "check":
        return _check(archive)
    elif action == "compact":
        from clickpipe.store.compaction import compact

        done: list[tuple[str, int, int, str]] = []
        with bar(lambda: done[-1:]):
            before, after = compact(archive, target, say, lambda read, whole: done.append((name, read, whole, "")))
        say(f"archive {name}: {before:,} files have become {after:,}")
    else:
        _retain(archive, keep, dry_run)
    return 0


def _described(snapshot: Snapshot) -> dict[str, Any]:
    files = snapshot.files
    times = [time for file in files for time in (file.least, file.greatest) if time is not None]
    return {
        "archive": snapshot.name,
        "rows": sum(file.rows for file in files),
        "files": len(files),
        "bytes": sum(file.bytes for file in files),
        "from": instant_text(min(times)) if times else None,
        "to": instant_text(max(times)) if times else None,
        "pipelines": sorted({file.writer for file in files}),
        "path": snapshot.folder,
    }


def _line(said: dict[str, Any]) -> str:
    time = f"{said['from']} to {said['to']}" if said["from"] else "no times"
    return f"{said['archive']}  {said['rows']:,} rows  {said['files']:,} files  {said['bytes']:,} bytes  {time}  {said['path']}"


def _show(snapshot: Snapshot, rows: int, form: str | None) -> None:
    from clickpipe.query.shown import shown
    from clickpipe.store.archives import scan

    form = form or ("table" if sys.stdout.isatty() else "ndjson")
    if form == "table":
        columns = ", ".join(f"{name} {kind}" for name, kind in snapshot.columns.items())
        sys.stdout.write(_line(_described(snapshot)) + f"\ncolumns: {columns}\n")
    by = snapshot.time
    found = scan(snapshot, _newest(snapshot, rows) if by else None)
    newest = found.sort(by, descending=True, nulls_last=True).head(rows).reverse() if by else found.tail(rows)
    sys.stdout.buffer.write(
        shown(newest.collect(), form, rows=max(1, rows), width=os.get_terminal_size().columns if sys.stdout.isatty() else 240)
    )


def _newest(snapshot: Snapshot, rows: int) -> list[File]:
    """Files that so many of the newest rows can be in."""
    count, least = 0, FOREVER
    for file in sorted(filter(snapshot.has_times, snapshot.files), key=lambda file: file.greatest or 0, reverse=True):
        count, least = count + file.rows, min(least, file.least or 0)
        if count >= rows:
            break
    return [file for file in snapshot.files if not snapshot.has_times(file) or (file.greatest or 0) >= least]


def _check(archive: Archive) -> int:
    snapshot = archive.snapshot()
    trouble = list(_troubles(snapshot))
    for one in trouble:
        say(one, "error")
    if not trouble:
        say(f"archive {archive.name}: {len(snapshot.files):,} files of version {snapshot.version} are as they were written")
    return StateError.code if trouble else 0


def _troubles(snapshot: Snapshot) -> Iterator[str]:
    from clickpipe.store.compaction import hash_of

    for file in snapshot.files:
        try:
            if hash_of(snapshot.path_of(file)) != file.hash:
                yield f"{os.path.join(snapshot.folder, file.path)} is damaged: it is not what was written"
        except StateError as error:
            yield str(error)
    known = {os.path.join(snapshot.folder, file.path) for file in snapshot.files}
    for inner in archives.folders(snapshot.folder):
        for name in sorted(os.listdir(inner)):
            if name.endswith(".parquet") and not name.startswith(".") and os.path.join(inner, name) not in known:
                yield f"{os.path.join(inner, name)} is none of its files"


def _retain(archive: Archive, keep: int | None, is_dry: bool) -> None:
    from clickpipe.store.compaction import retain

    if keep is None:
        raise PlanError("how long are rows kept?", hint="--keep 400d", word="--keep")
    gone = retain(archive, keep, is_dry=is_dry)
    rows, size = sum(file.rows for file in gone), sum(file.bytes for file in gone)
    say(f"archive {archive.name}: {len(gone):,} files with {rows:,} rows, {size:,} bytes, {'would go' if is_dry else 'are gone'}")
