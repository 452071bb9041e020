"""The commands `dead` and `late`: what they list, show and give back."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
import orjson
import polars as pl

from clickpipe.cli.completing import places, values
from clickpipe.cli.text import described
from clickpipe.cli.words import say
from clickpipe.core.terminal import shown, standard_output
from clickpipe.core.time import instant_text
from clickpipe.core.units import format_duration
from clickpipe.errors import PlanError
from clickpipe.state.files import AtomicFile
from clickpipe.store import sides
from clickpipe.store.giveback import given_back
from clickpipe.store.sides import DEAD, LINE, Kind, Side, Some
from clickpipe.store.tally import Tally
from clickpipe.text import Text
from clickpipe.wire.pump import Outbox

_ACTIONS = ("ls", "show", "reprocess")
_TOP = 10  # reasons and windows that are shown
_WIDE = 160  # characters of a record that are shown
_BREAKS = {ord("\n"): "\\n", ord("\t"): "\\t"}


def side_command(kind: Kind, text: str | None, epilog: str) -> click.Command:
    """The command line of one kind."""

    @described(kind.name, text, epilog)
    @click.argument("action", type=click.Choice(_ACTIONS), metavar="|".join(_ACTIONS), help="what to do")
    @click.argument(
        "name", default="", metavar="[NAME]", help="a pipeline, or the path of such a file", shell_complete=values.pipelines
    )
    @click.option("--reason", default="", metavar="TEXT", help="only those whose reason contains this text")
    @click.option("--rows", type=click.IntRange(0), default=10, metavar="N", help="show: records to show  [default 10]")
    @click.option(
        "--to", metavar="FILE", help="reprocess: write them to this file, whole or not at all", shell_complete=places.files
    )
    @click.option("--json", "as_json", is_flag=True, help="ls, show: for programs, an object per line")
    def command(action: str, name: str, reason: str, rows: int, to: str | None, as_json: bool) -> None:
        if to and action != "reprocess":
            raise PlanError("--to is for reprocess", word="--to")
        if action == "ls":
            _list(sides.chosen(kind, name) if name else sides.sides(kind), kind, as_json)
            return
        if not name:
            known = sorted({side.pipeline for side in sides.sides(kind)})
            raise PlanError(f"{kind.name} {action} needs a pipeline", notes=[f"with {kind.many}: {', '.join(known) or 'none'}"])
        found = sides.chosen(kind, name)
        if action == "show":
            _show(found, name, kind, reason, rows, as_json)
        else:
            _reprocess(found, name, kind, reason, to)

    return command


# ls


def _list(found: list[Side], kind: Kind, as_json: bool) -> None:
    for side in found:
        count, last = sides.counted(side)
        if as_json:
            newest = orjson.loads(last) if kind.is_line(last) else None
            told = {"pipeline": side.pipeline, "path": side.path, "records": count, "newest": newest}
            sys.stdout.write(orjson.dumps(told).decode() + "\n")
        else:
            newest = f"  newest: {_newest(kind, last)}" if kind.is_line(last) else ""
            sys.stdout.write(_line("  ".join(filter(None, [side.pipeline, _counted(kind, count), shown(side.path)])) + newest))
    if not found and not as_json:
        sys.stdout.write(f"no {kind.many}\n")


def _newest(kind: Kind, line: bytes) -> str:
    record = orjson.loads(line)
    if kind is DEAD:
        return f"{_place(record['source'], record['offset'])} {record['error']}"
    return _delay(record["_late_by"], record.get("window_start"))


def _counted(kind: Kind, count: int) -> str:
    return f"{count:,} {kind.one if count == 1 else kind.many}"


# show


def _show(found: list[Side], name: str, kind: Kind, reason: str, rows: int, as_json: bool) -> None:
    for side in found:
        tally = Tally(kind, rows)
        for some in sides.read(side):
            tally.add(_chosen(kind, some, reason))
        if as_json:
            sys.stdout.write(orjson.dumps(_as_json(side, tally)).decode() + "\n")
        else:
            sys.stdout.writelines(map(_line, _told(side, tally)))
    if not found and not as_json:
        sys.stdout.write(f"{name} has no {kind.many}\n")


def _chosen(kind: Kind, some: Some, reason: str) -> Some:
    if not reason:
        return some
    return Some(some.frame.filter(pl.col(kind.reason).str.contains(reason, literal=True)), some.damaged)


def _told(side: Side, tally: Tally) -> Iterator[str]:
    """In words, a line each."""
    head = f"{side.pipeline}: " if side.pipeline else ""
    yield f"{head}{_counted(side.kind, tally.records)} in {side.path}"
    if tally.damaged:
        yield f"  {tally.damaged:,} lines are damaged and not counted"
    yield from _ranking(tally.reasons(), str, "reasons")
    if tally.least is not None and tally.most is not None:
        half = _spelled(tally.half() or 0)
        yield f"  late by {_spelled(tally.least)} to {_spelled(tally.most)}, half of them by {half} or less"
    windows = tally.windows()
    if windows:
        yield f"  by window, {len(windows):,} in all:"
        yield from _ranking(windows, instant_text, "windows")
    if tally.newest is not None and tally.newest.height:
        yield "  newest last:"
        yield from _records(side.kind, tally.newest)


def _ranking(counts: list[Any], spelled: Callable[[Any], str], what: str) -> Iterator[str]:
    yield from (f"  {count:>8,}  {spelled(value)}" for value, count in counts[:_TOP])
    if len(counts) > _TOP:
        rest = sum(count for _, count in counts[_TOP:])
        yield f"  {rest:>8,}  in {len(counts) - _TOP:,} more {what}"


def _records(kind: Kind, newest: pl.DataFrame) -> Iterator[str]:
    lines, _ = (newest["raw"], 0) if kind is DEAD else given_back(kind, Some(newest))
    for record, line in zip(newest.iter_rows(named=True), lines, strict=True):
        if kind is DEAD:
            head = f"{_place(record['source'], record['offset'])}  {record['error']}"
        else:
            head = f"{record['_reason']}, {_delay(record['_late_by'], record['window_start'])}"
        yield f"    {head}"
        yield f"        {_short(line)}"


def _as_json(side: Side, tally: Tally) -> dict[str, Any]:
    told: dict[str, Any] = {"pipeline": side.pipeline, "path": side.path, "records": tally.records, "damaged": tally.damaged}
    told["reasons"] = dict(tally.reasons())
    if side.kind is not DEAD:
        told["late_by"] = {"least": tally.least, "half": tally.half(), "most": tally.most}
        told["windows"] = [{"window_start": start, "records": count} for start, count in tally.windows()[:_TOP]]
    told["newest"] = [orjson.loads(line) for line in tally.newest[LINE]] if tally.newest is not None else []
    return told


def _place(source: str | None, offset: int | None) -> str:
    return f"{source or 'somewhere'}:{offset}" if offset is not None else f"{source or 'somewhere'}"


def _delay(late_by: int | None, start: int | None) -> str:
    by = "late" if late_by is None else f"late by {_spelled(late_by)}"
    return by if start is None else f"{by} for the window of {instant_text(start)}"


def _spelled(milliseconds: int) -> str:
    return format_duration(milliseconds) if milliseconds >= 0 else f"-{format_duration(-milliseconds)}"


def _short(line: str) -> str:
    text = line.translate(_BREAKS)
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 1]}…"


def _line(text: str) -> str:
    return shown(re.sub(r"[\n\t]", " ", text)) + "\n"


# reprocess


def _reprocess(found: list[Side], name: str, kind: Kind, reason: str, to: str | None) -> None:
    if to is None:
        outbox = standard_output()
        given, kept, damaged = _give_back(found, kind, reason, outbox)
    else:
        _check_other(found, to)
        given, kept, damaged = _written(found, kind, reason, AtomicFile(to))
    say(f"{name}: {_counted(kind, given)} given back" + (f", in {to}" if to else ""))
    if kept:
        say(
            f"{name}: {_counted(kind, kept)} left out: of a line that is very long, or no UTF-8, the whole is not kept", "warning"
        )
    if damaged:
        say(f"{name}: {damaged:,} damaged lines left out", "warning")


def _written(found: list[Side], kind: Kind, reason: str, file: AtomicFile) -> tuple[int, int, int]:
    try:
        told = _give_back(found, kind, reason, Outbox(file.descriptor, file.path))
    except BaseException:
        file.discard()
        raise
    file.commit()
    return told


def _give_back(found: list[Side], kind: Kind, reason: str, outbox: Outbox) -> tuple[int, int, int]:
    """How many were given back, left out, and damaged."""
    given = kept = damaged = 0
    for some in (_chosen(kind, some, reason) for side in found for some in sides.read(side)):
        lines, left = given_back(kind, some)
        outbox.put(Text(lines=lines).block())
        given, kept, damaged = given + len(lines), kept + left, damaged + some.damaged
    outbox.close()
    return given, kept, damaged


def _check_other(found: list[Side], to: str) -> None:
    if os.path.realpath(to) in {os.path.realpath(side.path) for side in found}:
        raise PlanError(f"{to} is the file that is read", word=to)
