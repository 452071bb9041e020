"""What became of a window, found in what a pipeline has left on disk. For `why`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from clickpipe.batch import read as read_columns
from clickpipe.columns import Columns
from clickpipe.core.loop import Stage
from clickpipe.core.time import instant_text, parse_instant
from clickpipe.core.windows import FIXED
from clickpipe.engine import results
from clickpipe.engine.rebuilt import Rebuilt
from clickpipe.engine.told import (
    Told,
    spelled,
    spelled_key,
    spelled_moment,
    spelled_span,
    spelled_steps,
    spelled_watermark,
)
from clickpipe.engine.trace import key_columns, said, window_stage, windows_at
from clickpipe.errors import PlanError, near
from clickpipe.state import snapshot
from clickpipe.state.history import moments
from clickpipe.store import sides
from clickpipe.store.sides import LATE, LINE

_MOST = 20  # records or rows that are told of


def of_window(rebuilt: Rebuilt, start: int, key: Mapping[str, str]) -> Iterator[Told]:
    """Whether it is open, when it closed, its rows, its late records. Raises PlanError."""
    stages = rebuilt.stages()
    stage = window_stage(stages)
    if stage is None:
        raise PlanError(f"{rebuilt.epochs.name} has no windows", notes=[f"its steps: {spelled_steps(rebuilt)}"])
    hop = 1 + stages.index(stage)
    grouping = next((one for one in stages[hop:] if one.step.outcome == "aggregated"), None)
    columns = grouping.step.columns(grouping.given) if grouping else stage.step.columns(stage.given)
    _check_key(key, key_columns(columns))
    end = _end_of(stage, start)
    yield Told(
        "window", f"{said(stage)}: {spelled_span(start, end)}{spelled_key(key)}", {"window_start": start, "window_end": end}
    )
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
            f"no window of {said(stage)} begins at {instant_text(start)}", hint=f"one that holds it: {spelled_span(begin, end)}"
        )
    return ends[-1]


def _course(rebuilt: Rebuilt, start: int, end: int | None) -> Iterator[Told]:
    """When it opened and closed, as far as checkpoints have noted it."""
    past, delay = moments(rebuilt.epochs.path), int(rebuilt.ingest.max_out_of_orderness)
    opened = next((one for one in past if one.watermark >= start - delay), None)
    reached, has_ended = rebuilt.position["reached"], rebuilt.manifest.ended
    if opened is None and (reached is None or reached + delay < start):
        when = "when the input ended" if has_ended else f"by checkpoint {rebuilt.manifest.epoch}"
        yield Told("not begun", f"no record of its time had come {when}: {spelled_watermark(reached)}")
        return
    if opened:
        yield Told("opened", f"opened by {spelled_moment(opened, past)}", {"epoch": opened.epoch, "at": opened.at})
    if end is None:
        yield Told("records decide", "it ends a while after its last record: its rows tell when")
        return
    fired = next((one for one in past if one.has_passed(end)), None)
    if fired:
        why = "the input had ended" if fired.watermark < end else f"the watermark was {instant_text(fired.watermark)}"
        yield Told("fired", f"fired by {spelled_moment(fired, past)}: {why}", {"epoch": fired.epoch, "at": fired.at})
    elif has_ended or (reached is not None and reached >= end):
        yield Told("fired", f"fired by checkpoint {rebuilt.manifest.epoch}")
    else:
        yield Told("open", f"open at checkpoint {rebuilt.manifest.epoch}: {spelled_watermark(reached)}", {"watermark": reached})


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
        yield Told("row", f"{given.sink}: {spelled(row)}", {"sink": given.sink, "row": row})
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
