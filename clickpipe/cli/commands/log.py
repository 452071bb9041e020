"""List logs, show their records, check, repair and retain them.

    clickpipe log ls                       logs, with their records and when these arrived
    clickpipe log show NAME                the newest records, as they came
    clickpipe log check NAME               every byte against its hash; exit code 78 where one is damaged
    clickpipe log repair NAME              cut it where it is damaged; the rest is put aside
    clickpipe log retain NAME --keep 30d   let whole segments go that are older, as far as no pipeline needs them

A log is compressed NDJSON: zstdcat FILE reads its segments, also while they are written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import click
import orjson

from clickpipe.cli.completing import values
from clickpipe.cli.text import described
from clickpipe.cli.words import complain, say
from clickpipe.core.terminal import standard_output
from clickpipe.core.time import instant_text
from clickpipe.errors import PlanError, StateError
from clickpipe.plan.flags import DURATION, SIZE
from clickpipe.sources.log import first_of
from clickpipe.store import logcare, logmeta
from clickpipe.store.logrepair import repair
from clickpipe.store.logs import Log, Reader
from clickpipe.store.segments import Head

_ACTIONS = ("ls", "show", "check", "repair", "retain")
_EPILOG = """\
Examples:
  clickpipe run -q -c "ingest sample_data/clicks.ndjson.zst --time ts | sink log:clicks" && clickpipe log ls &&
    clickpipe log show clicks --rows 2 && clickpipe log show clicks --from 1000 --rows 1 --offsets && clickpipe log check clicks
  clickpipe run -q -c "ingest sample_data/clicks.ndjson.zst --time ts | sink log:old" &&
    clickpipe log retain old --keep 30d && clickpipe log ls

A line of a log that is no record is a dead letter of who reads it; --bytes finds it by the offset that the dead letter has."""


@described("log", __doc__, _EPILOG)
@click.argument("action", type=click.Choice(_ACTIONS), metavar="|".join(_ACTIONS), help="what to do")
@click.argument("name", default="", metavar="[NAME]", help="a log", shell_complete=values.logs)
@click.option("--rows", type=click.IntRange(0), default=10, metavar="N", help="show: records  [default 10]")
@click.option("--from", "start", metavar="WHERE", help="show: from there on: earliest, a record's number, a time of arrival")
@click.option("--bytes", "text", type=click.IntRange(0), metavar="N", help="show: from this byte of the partition's text on")
@click.option("--partition", type=click.IntRange(0), metavar="N", help="show: of this partition only")
@click.option("--offsets", is_flag=True, help="show: each in an object with its partition, number and arrival")
@click.option("--keep", type=DURATION, metavar="DURATION", help="retain: what arrived later stays  [e.g. 30d]")
@click.option("--keep-bytes", type=SIZE, metavar="SIZE", help="retain: no more than this stays  [e.g. 10GiB]")
@click.option("--dry-run", is_flag=True, help="retain: say what would go, and leave it")
@click.option("--json", "as_json", is_flag=True, help="ls: for programs, an object per line")
def command(
    action: str,
    name: str,
    rows: int,
    start: str | None,
    text: int | None,
    partition: int | None,
    offsets: bool,
    keep: int | None,
    keep_bytes: int | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    if action == "ls":
        return _list(as_json)
    if not name:
        raise PlanError(f"log {action} needs a log", notes=[f"there are: {', '.join(logmeta.names()) or 'none'}"])
    if action == "repair":
        return _repair(name)
    log = Log(name)
    if action == "show":
        _show(log, rows, start, text, partition, offsets)
    elif action == "check":
        return _check(log)
    else:
        _retain(log, keep, keep_bytes, dry_run)
    return 0


def _list(as_json: bool) -> int:
    """All of them; a damaged one does not hide the others."""
    code = 0
    for name in logmeta.names():
        try:
            said = _described(Log(name))
        except StateError as error:
            complain(error)
            code = error.code
            continue
        sys.stdout.write(orjson.dumps(said).decode() + "\n" if as_json else _line(said) + "\n")
    return code


def _described(log: Log) -> dict[str, Any]:
    found = list(logcare.parts(log))
    arrivals = [time for part in found for time in (part.oldest, part.newest) if time is not None]
    return {
        "log": log.name,
        "records": sum(log.ends()) - sum(log.starts),
        "partitions": [{"first": start, "next": end} for start, end in zip(log.starts, log.ends(), strict=True)],
        "bytes": sum(part.bytes for part in found),
        "oldest": instant_text(min(arrivals)) if arrivals else None,
        "newest": instant_text(max(arrivals)) if arrivals else None,
        "path": log.path,
    }


def _line(said: dict[str, Any]) -> str:
    spans = ", ".join(f"{one['first']:,} to {one['next']:,}" for one in said["partitions"])
    arrived = f"arrived {said['oldest']} to {said['newest']}" if said["oldest"] else "nothing has arrived"
    return f"{said['log']}  {said['records']:,} records ({spans})  {said['bytes']:,} bytes  {arrived}  {said['path']}"


def _show(log: Log, rows: int, start: str | None, text: int | None, partition: int | None, has_offsets: bool) -> None:
    if partition is not None and partition >= log.partitions:
        raise PlanError(f"log {log.name} has {log.partitions} partitions, numbered from 0", word="--partition")
    if text is not None and partition is None and log.partitions > 1:
        raise PlanError("--bytes counts in one partition: --partition N says which", word="--bytes")
    outbox = standard_output()
    for number in range(log.partitions) if partition is None else (partition,):
        first = max(log.starts[number], log.place(number).offset - rows) if start is None else first_of(log, number, start)
        for line in _lines(log, number, first, text, rows, has_offsets):
            outbox.put(line)
    outbox.close()


def _lines(log: Log, number: int, first: int, text: int | None, rows: int, has_offsets: bool) -> Iterator[bytes]:
    reader = Reader(log, number, first, text=text)
    try:
        for head, offset, line in islice(_wanted(reader, first, text), rows):
            said = {"partition": number, "offset": offset, "arrival": instant_text(head.arrival)} if has_offsets else None
            yield _with(said, line) if said else line
    finally:
        reader.close()


def _wanted(reader: Reader, first: int, text: int | None) -> Iterator[tuple[Head, int, bytes]]:
    """Lines with their numbers, and the heads of their batches. Only a newline ends one."""
    for head, data in reader.now():
        at = head.text
        for offset, line in enumerate(data.removesuffix(b"\n").split(b"\n"), head.offset):
            if at >= text if text is not None else offset >= first:
                yield head, offset, line + b"\n"
            at += len(line) + 1


def _with(said: dict[str, Any], line: bytes) -> bytes:
    return orjson.dumps(said | {"record": line.decode("utf-8", "replace").removesuffix("\n")}) + b"\n"


def _check(log: Log) -> int:
    trouble = list(logcare.troubles(log))
    for one in trouble:
        say(one.text, "warning" if one.is_harmless else "error")
    is_damaged = not all(one.is_harmless for one in trouble)
    if not is_damaged:
        say(f"log {log.name}: {sum(log.ends()) - sum(log.starts):,} records are as they were written")
    return StateError.code if is_damaged else 0


def _repair(name: str) -> int:
    if not os.path.isdir(logmeta.path_of(name)):
        Log(name)  # says which there are
    done = repair(name)
    for one in done or [f"log {name} is whole"]:
        say(one)
    return 0


def _retain(log: Log, keep: int | None, most: int | None, is_dry: bool) -> None:
    if keep is None and most is None:
        raise PlanError("what is kept?", hint="--keep 30d, or --keep-bytes 10GiB", word="--keep")
    found = logcare.retain(log.name, keep, most, is_dry=is_dry)
    say(f"log {log.name}: {_spoken(found.gone)}, {'would go' if is_dry else 'are gone'}")
    if found.held:
        say(f"log {log.name}: {_spoken(found.held)}, stay: checkpoints of {', '.join(sorted(found.by))} need them")


def _spoken(parts: list[logcare.Part]) -> str:
    records, size = sum(part.records for part in parts), sum(part.bytes for part in parts)
    return f"{len(parts):,} segments with {records:,} records, {size:,} bytes"
