"""What a pipeline did, found in what it has left on disk: of a window, and of an event. For `why`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import polars as pl

from clickpipe.batch import read as read_columns
from clickpipe.columns import Columns
from clickpipe.core.loop import Stage
from clickpipe.core.terminal import shown
from clickpipe.core.time import instant_text, parse_instant
from clickpipe.core.units import format_duration
from clickpipe.core.windows import FIXED
from clickpipe.engine import results
from clickpipe.engine.rebuilt import Rebuilt
from clickpipe.engine.search import Found, check_there, files, holds_word, search
from clickpipe.engine.trace import Fate, key_columns, said, traced, window_stage, windows_at
from clickpipe.errors import DataError, PlanError, near
from clickpipe.state import snapshot
from clickpipe.state.history import Moment, moments
from clickpipe.store import sides
from clickpipe.store.sides import DEAD, LATE, LINE, Kind

_MOST = 20  # records or rows that are told of


@dataclass(frozen=True)
class Told:
    """One thing that was found: which, in words, and for programs."""

    what: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


# A window.


def of_window(rebuilt: Rebuilt, start: int, key: Mapping[str, str]) -> Iterator[Told]:
    """Whether it is open, when it closed, its rows, its late records. Raises PlanError."""
    stages = rebuilt.stages()
    stage = window_stage(stages)
    if stage is None:
        raise PlanError(f"{rebuilt.epochs.name} has no windows", notes=[f"its steps: {_steps(rebuilt)}"])
    hop = 1 + stages.index(stage)
    grouping = next((one for one in stages[hop:] if one.step.outcome == "aggregated"), None)
    columns = grouping.step.columns(grouping.given) if grouping else stage.step.columns(stage.given)
    _check_key(key, key_columns(columns))
    end = _end_of(stage, start)
    yield Told("window", f"{said(stage)}: {_span(start, end)}{_spelled_key(key)}", {"window_start": start, "window_end": end})
    yield from _course(rebuilt, start, end)
    given = results.given(rebuilt, hop, start, key)
    yield from (told for one in given for told in _rows(one))
    if grouping and not any(one.rows for one in given):
        after = 1 + stages.index(grouping)
        yield from _without_rows(rebuilt, after, start, end, key, is_sure=_gives_all_rows(grouping, stages[after:]))
    yield from _late_for(rebuilt, start, _end_in(given) if end is None else end, key)


def named_key(rebuilt: Rebuilt, words: tuple[str, ...]) -> dict[str, str]:
    """`page=/a`, or `/a` where there is one column to group by. Raises PlanError."""
    grouping = next((one for one in reversed(rebuilt.stages()) if one.step.outcome == "aggregated"), None)
    names = key_columns(grouping.step.columns(grouping.given)) if grouping else []
    key = {}
    for word in words:
        name, equals, value = word.partition("=")
        if len(names) == 1 and name not in names and not (equals and near(name, names)):
            name, value = names[0], word
        elif not equals:
            raise PlanError(
                f'"{word}" is not NAME=VALUE', notes=[f"it is grouped by: {', '.join(names) or 'nothing'}"], word=word
            )
        key[name] = value
    return key


def _check_key(key: Mapping[str, str], names: list[str]) -> None:
    for name in key:
        if name not in names:
            notes = [f"rows of a window differ in: {', '.join(names) or 'nothing'}"]
            raise PlanError(f'no key "{name}"', hint=near(name, names), notes=notes, word=name)


def _end_of(stage: Stage, start: int) -> int | None:
    """Of the window that begins there; None where records decide on it. Raises PlanError where none begins."""
    info = stage.step.columns(stage.given).window
    if info is None or info.kind not in FIXED:
        return None
    windows = windows_at(stage, start)
    ends = [end for begin, end in windows if begin == start]
    if not ends:
        begin, end = windows[-1]
        raise PlanError(
            f"no window of {said(stage)} begins at {instant_text(start)}", hint=f"one that holds it: {_span(begin, end)}"
        )
    return ends[-1]


def _course(rebuilt: Rebuilt, start: int, end: int | None) -> Iterator[Told]:
    """When it opened and closed, as far as checkpoints have noted it."""
    past, delay = moments(rebuilt.epochs.path), int(rebuilt.ingest.max_out_of_orderness)
    opened = next((one for one in past if one.watermark >= start - delay), None)
    reached, has_ended = rebuilt.position["reached"], rebuilt.manifest.ended
    if opened is None and (reached is None or reached + delay < start):
        when = "when the input ended" if has_ended else f"by checkpoint {rebuilt.manifest.epoch}"
        yield Told("not begun", f"no record of its time had come {when}: {_reached(reached)}")
        return
    if opened:
        yield Told("opened", f"opened by {_moment(opened, past)}", {"epoch": opened.epoch, "at": opened.at})
    if end is None:
        yield Told("records decide", "it ends a while after its last record: its rows tell when")
        return
    fired = next((one for one in past if one.has_passed(end)), None)
    if fired:
        why = "the input had ended" if fired.watermark < end else f"the watermark was {instant_text(fired.watermark)}"
        yield Told("fired", f"fired by {_moment(fired, past)}: {why}", {"epoch": fired.epoch, "at": fired.at})
    elif has_ended or (reached is not None and reached >= end):
        yield Told("fired", f"fired by checkpoint {rebuilt.manifest.epoch}")
    else:
        yield Told("open", f"open at checkpoint {rebuilt.manifest.epoch}: {_reached(reached)}", {"watermark": reached})


def _end_in(given: list[results.Given]) -> int | None:
    """What the newest row says of the window's end."""
    ends = [row["window_end"] for one in given for row in one.rows or () if row.get("window_end") is not None]
    return parse_instant(str(ends[-1])) if ends else None


def _rows(given: results.Given) -> Iterator[Told]:
    if given.rows is None:
        yield Told("not looked into", f"{given.sink}: its rows cannot be looked into", {"sink": given.sink})
        return
    if not given.rows:
        yield Told("no row", f"{given.sink}: no row", {"sink": given.sink})
    for row in given.rows[:_MOST]:
        yield Told("row", f"{given.sink}: {_json(row)}", {"sink": given.sink, "row": row})
    if len(given.rows) > _MOST:
        yield Told("more rows", f"{given.sink}: {len(given.rows) - _MOST:,} more rows", {"sink": given.sink})


def _gives_all_rows(grouping: Stage, behind: list[Stage]) -> bool:
    """Whether all groups of a window get to the sinks."""
    return not getattr(grouping.step, "top", None) and all(stage.is_sink for stage in behind)


def _without_rows(
    rebuilt: Rebuilt, hop: int, start: int, end: int | None, key: Mapping[str, str], *, is_sure: bool
) -> Iterator[Told]:
    """Whether records are in it that no row tells of yet."""
    epoch = rebuilt.manifest.epoch
    entry = rebuilt.manifest.entry(hop, "state")
    tables = snapshot.from_bytes(rebuilt.epochs.read(epoch, entry)) if entry else {}
    wanted = {"window_start", *key}
    groups = [table for table in tables.values() if wanted <= set(table.columns)]
    is_in = pl.col("window_start").is_between(start, start if end is None else end - 1)  # hopping: in stretches of it
    is_it = pl.all_horizontal(is_in, *(results.is_value(name, value) for name, value in key.items()))
    if any(table.filter(is_it).height for table in groups):
        yield Told("has records", f"records of it had come by checkpoint {epoch}: its row comes when it closes")
        return
    reached = rebuilt.position["reached"]
    if rebuilt.manifest.ended or (end is not None and reached is not None and reached >= end):
        or_else = "" if is_sure else ", or its row was not among those that a step behind lets through"
        yield Told("not seen", f"no record was aggregated in it{or_else}")


def _late_for(rebuilt: Rebuilt, start: int, end: int | None, key: Mapping[str, str]) -> Iterator[Told]:
    """Late records of its time. What they were grouped by is looked for in the records."""
    instant = pl.col("_mark") - pl.col("_late_by")
    for side in sides.sides_of(LATE, rebuilt.epochs.name):
        count = 0
        for some in sides.read(side):
            is_in = pl.col("window_start") == start if end is None else (instant >= start) & (instant < end)
            lines = some.frame.filter(is_in.fill_null(False))[LINE]
            count += _with_key(lines, key) if key and len(lines) else len(lines)
        if count:
            text = f"late: {count:,} records of its time came after it had closed: clickpipe late show {rebuilt.epochs.name}"
            yield Told("late", text, {"records": count, "path": side.path})


def _with_key(lines: pl.Series, key: Mapping[str, str]) -> int:
    block = "".join(f"{line}\n" for line in lines).encode()
    frame = read_columns(block, Columns(dict.fromkeys(key, "str")), list(key), len(lines)).frame
    return frame.filter(*(results.is_value(name, value) for name, value in key.items())).height


# An event.


def of_event(rebuilt: Rebuilt, column: str, value: str) -> Iterator[Told]:
    """Where it is in the input, and what became of it. Raises DataError where it is nowhere."""
    check_there(rebuilt)
    found = search(rebuilt, column, value, _MOST)
    stages, floats = rebuilt.stages(), set(rebuilt.floats)
    for one in found:
        yield Told("found", f"{one.path}:{one.offset}: {_shortened(one.line)}", {"path": one.path, "offset": one.offset})
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
    spans = ", ".join(_span(start, end) for start, end in fate.windows)
    match fate.outcome:
        case "through":
            yield Told("through", "went through all steps to the sink" + (f", in the window {spans}" if spans else ""), data)
        case "aggregated":
            within = f" in the window{'s' if len(fate.windows) > 1 else ''} {spans}" if spans else ""
            yield Told("aggregated", f"aggregated{within}{_spelled_key(fate.key)} by {fate.step}", data)
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
        by = _moment(fired, past) if fired else f"checkpoint {rebuilt.manifest.epoch}"
        return Told("fired", f"the window {_span(start, end)} fired by {by}", {"window_start": start})
    return Told("open", f"the window {_span(start, end)} is open: {_reached(reached)}", {"window_start": start})


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
        yield Told("in late", f"{path}: {row['_reason']}{by}: {_shortened(row[LINE].encode())}", {"path": path, "record": record})


def _letter(path: str, row: Mapping[str, Any], column: str, value: str) -> Iterator[Told]:
    if _is_of(row["raw"], column, value):
        place = f"{row['source']}:{row['offset']}" if row["offset"] is not None else row["source"]
        text = f"{path}: a dead letter from {place}: {row['error']}: {_shortened(row['raw'].encode())}"
        yield Told("in dead", text, {"path": path, "reason": row["error"], "offset": row["offset"]})


def _is_of(raw: str, column: str, value: str) -> bool:
    """Whether a bad line is a record that says so, or is none and holds the value as a word."""
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return holds_word(raw, value)
    return isinstance(record, dict) and str(record.get(column)) == value


# Words.


def _steps(rebuilt: Rebuilt) -> str:
    return " | ".join(f"{node.written.name} {node.step.says()}" for node in rebuilt.plan.nodes)


def _span(start: int, end: int | None) -> str:
    return instant_text(start) if end is None else f"{instant_text(start)} to {instant_text(end)}"


def _spelled_key(key: Mapping[str, Any]) -> str:
    return "".join(f", {name} = {value}" for name, value in key.items())


def _reached(watermark: int | None) -> str:
    return "the watermark had not begun" if watermark is None else f"the watermark was {instant_text(watermark)}"


def _moment(moment: Moment, past: list[Moment]) -> str:
    earlier = ", or before" if moment is past[0] and moment.epoch > 1 else ""
    return f"checkpoint {moment.epoch} ({moment.at}){earlier}"


def _json(row: Mapping[str, Any]) -> str:
    return orjson.dumps(row).decode()


def _shortened(line: bytes) -> str:
    text = line.decode("utf-8", "backslashreplace").strip()
    return shown(text if len(text) <= 200 else f"{text[:199]}…")
