"""What became of an event, found in what a pipeline has read and left on disk. For `why`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import polars as pl

from clickpipe.core.time import instant_text
from clickpipe.core.units import format_duration
from clickpipe.engine.rebuilt import Rebuilt
from clickpipe.engine.search import Found, check_there, files, holds_word, search
from clickpipe.engine.told import (
    Told,
    shortened,
    spelled_key,
    spelled_moment,
    spelled_span,
    spelled_watermark,
)
from clickpipe.engine.trace import Fate, traced
from clickpipe.errors import DataError, PlanError
from clickpipe.state.history import moments
from clickpipe.store import sides
from clickpipe.store.sides import DEAD, LATE, LINE, Kind

_MOST = 20  # records or rows that are told of


def of_event(rebuilt: Rebuilt, column: str, value: str) -> Iterator[Told]:
    """Where it is in the input, and what became of it. Raises DataError where it is nowhere."""
    check_there(rebuilt)
    found = search(rebuilt, column, value, _MOST)
    stages, floats = rebuilt.stages(), set(rebuilt.floats)
    for one in found:
        yield Told("found", f"{one.path}:{one.offset}: {shortened(one.line)}", {"path": one.path, "offset": one.offset})
        yield from _reading(rebuilt, one)
        if one.dead is not None:
            yield Told("dead letter", f"dead letter: {one.dead.reason[0]}", {"reason": one.dead.reason[0]})
        elif one.batch is not None:
            yield from _timing(one)
            fate = traced(stages, one.batch, floats)
            yield from (
                Told("not told", f"whether {step} let it through depends on the records before it") for step in fate.unsure
            )
            yield from _fate(rebuilt, fate)
    noted = [told for kind in (LATE, DEAD) for told in _noted(rebuilt, kind, column, value)]
    yield from noted
    if not found and not noted:
        looked = [*files(rebuilt), *(side.path for kind in (LATE, DEAD) for side in sides.sides_of(kind, rebuilt.epochs.name))]
        raise DataError(f'no record whose "{column}" is {value}', notes=[f"looked into: {', '.join(looked)}"])


def default_column(rebuilt: Rebuilt) -> str:
    """Raises PlanError where nothing says which column tells events apart."""
    if "event_id" in rebuilt.raw.types:
        return "event_id"
    raise PlanError("which column is the event's id?", hint="--by COL", notes=[f"the input has: {', '.join(rebuilt.raw.types)}"])


def _reading(rebuilt: Rebuilt, found: Found) -> Iterator[Told]:
    epoch = rebuilt.manifest.epoch
    if found.read is None:
        yield Told(
            "unknown", f"{found.path} is not among the files that checkpoint {epoch} was reading: it was left before, or is new"
        )
    elif not found.read:
        yield Told("not read", f"not read yet by checkpoint {epoch}; what is to become of it, if nothing changes:")


def _timing(found: Found) -> Iterator[Told]:
    if found.time is None:
        return
    data = {"time": found.time, "watermark": found.watermark}
    if found.watermark is None:
        yield Told("time", f"event time {instant_text(found.time)}, the first of its input", data)
        return
    late = found.watermark - found.time
    order = f"behind it by {format_duration(late)}" if late > 0 else "not behind it"
    yield Told(
        "time",
        f"event time {instant_text(found.time)}; the watermark before it was {instant_text(found.watermark)}: {order}",
        data,
    )


def _fate(rebuilt: Rebuilt, fate: Fate) -> Iterator[Told]:
    windows = [{"window_start": start, "window_end": end} for start, end in fate.windows]
    data = {"outcome": fate.outcome, "step": fate.step, "reason": fate.reason, "windows": windows, "key": fate.key}
    spans = ", ".join(spelled_span(start, end) for start, end in fate.windows)
    match fate.outcome:
        case "through":
            yield Told("through", "went through all steps to the sink" + (f", in the window {spans}" if spans else ""), data)
        case "aggregated":
            within = f" in the window{'s' if len(fate.windows) > 1 else ''} {spans}" if spans else ""
            yield Told("aggregated", f"aggregated{within}{spelled_key(fate.key)} by {fate.step}", data)
            yield from (_closing(rebuilt, start, end) for start, end in fate.windows)
        case "late":
            yield Told("late", f"late: its window {spans} had closed ({fate.step})", data)
        case "dead letter":
            yield Told("dead letter", f"dead letter in {fate.step}: {fate.reason}", data)
        case _:
            yield Told(fate.outcome, f"{fate.outcome} by {fate.step}", data)


def _closing(rebuilt: Rebuilt, start: int, end: int) -> Told:
    reached = rebuilt.position["reached"]
    if rebuilt.manifest.ended or (reached is not None and reached >= end):
        past = moments(rebuilt.epochs.path)
        fired = next((one for one in past if one.has_passed(end)), None)
        by = spelled_moment(fired, past) if fired else f"checkpoint {rebuilt.manifest.epoch}"
        return Told("fired", f"the window {spelled_span(start, end)} fired by {by}", {"window_start": start})
    return Told("open", f"the window {spelled_span(start, end)} is open: {spelled_watermark(reached)}", {"window_start": start})


def _noted(rebuilt: Rebuilt, kind: Kind, column: str, value: str) -> Iterator[Told]:
    """Late records whose field says so, and dead letters that hold the value."""
    for side in sides.sides_of(kind, rebuilt.epochs.name):
        for some in sides.read(side):
            text = pl.col("raw") if kind is DEAD else pl.col(LINE)
            for row in some.frame.filter(text.str.contains(value, literal=True)).iter_rows(named=True):
                yield from _letter(side.path, row, column, value) if kind is DEAD else _late(side.path, row, column, value)


def _late(path: str, row: Mapping[str, Any], column: str, value: str) -> Iterator[Told]:
    record = orjson.loads(row[LINE])
    if str(record.get(column)) == value:
        by = "" if row["_late_by"] is None else f" by {format_duration(max(0, row['_late_by']))}"
        yield Told("in late", f"{path}: {row['_reason']}{by}: {shortened(row[LINE].encode())}", {"path": path, "record": record})


def _letter(path: str, row: Mapping[str, Any], column: str, value: str) -> Iterator[Told]:
    if _is_of(row["raw"], column, value):
        place = f"{row['source']}:{row['offset']}" if row["offset"] is not None else row["source"]
        text = f"{path}: a dead letter from {place}: {row['error']}: {shortened(row['raw'].encode())}"
        yield Told("in dead", text, {"path": path, "reason": row["error"], "offset": row["offset"]})


def _is_of(raw: str, column: str, value: str) -> bool:
    """Whether a bad line is a record that says so, or is none and holds the value as a word."""
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return holds_word(raw, value)
    return isinstance(record, dict) and str(record.get(column)) == value
