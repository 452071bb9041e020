"""One record through the steps of a pipeline: in which it ends, and in which windows it stands.

Records are pushed in the order of the input, through the same operators, so that a step that drops repeats knows
the first one. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns, TimeColumn
from clickpipe.core.loop import Stage
from clickpipe.core.operator import FOREVER, Late
from clickpipe.core.windows import END, FIXED, START, WINDOW, Windows
from clickpipe.operators.window import Window

_IN_TIME = "sort"  # keeps a record back, and changes nothing of it
_BY_COUNT = "limit"  # lets a record through for how many came before it


@dataclass
class Fate:
    """`outcome`: as in the accounts, or `through` for a record that went to the sink; `step`: where it ended.

    `windows`: start and end of those it was counted in, or was too late for; `key`: the group that it was counted in;
    `unsure`: steps that may have ended it before.
    """

    outcome: str = "through"
    step: str = ""
    reason: str = ""
    windows: list[tuple[int, int]] = field(default_factory=list)
    key: Mapping[str, Any] = field(default_factory=dict)
    unsure: list[str] = field(default_factory=list)


def traced(stages: list[Stage], batch: Batch, floats: set[str]) -> Fate:
    """What becomes of a record: a batch of one."""
    fate = Fate()
    for stage in stages:
        batches = [batch]
        if stage.step.outcome == "aggregated":
            fate.key = _key(stage, batch)
        if stage.name == _BY_COUNT:
            fate.unsure.append(said(stage))
        elif stage.name != _IN_TIME:
            batch, dead = batch.need(stage.needs, floats)
            outs = [dead] if dead else list(stage.operator.on_batch(batch))
            batches = [out for out in outs if isinstance(out, Batch) and out.height]
            gone = next((out for out in outs if not isinstance(out, Batch)), None)
            fate.windows = _stands_in(batches, gone) or fate.windows
            if not batches:
                outcome, reason = _end(stage, gone)
                return replace(fate, step=said(stage), outcome=outcome, reason=reason)
        batch = batches[0]
    return fate


def windows_at(stage: Stage, instant: int) -> list[tuple[int, int]]:
    """The windows that hold an instant, the newest last."""
    time = stage.step.columns(stage.given).time
    assert time is not None
    given = replace(stage.given, types={**stage.given.types, time.name: "time"}, time=TimeColumn(time.name, "ms"))
    frame = pl.DataFrame({name: [None] for name in given.types}, schema=given.schema())
    batch = Batch(frame.with_columns(pl.lit(instant, pl.Int64).alias(time.name)), given)
    assert isinstance(stage.step, Window)
    return _stands_in([out for out in stage.step.open(given, {}).on_batch(batch) if isinstance(out, Batch)], None)


def window_stage(stages: list[Stage]) -> Stage | None:
    """The last step that assigns windows."""
    return next((stage for stage in reversed(stages) if isinstance(stage.step, Window)), None)


def said(stage: Stage) -> str:
    return f"{stage.name} {stage.step.says()}".rstrip()


def key_columns(columns: Columns) -> list[str]:
    """Those by which rows of one window differ; all where nothing was grouped."""
    return [name for name in columns.key or columns.types if name not in WINDOW]


def _end(stage: Stage, gone: Batch | Late | Dead | None) -> tuple[str, str]:
    """The outcome, and why where that was said."""
    match gone:
        case Late():
            return "late", gone.reason
        case Dead():
            return "dead letter", gone.reason[0]
    return stage.step.outcome, ""


def _stands_in(batches: list[Batch], gone: Batch | Late | Dead | None) -> list[tuple[int, int]]:
    """Fixed windows of records; of one that was too late, the newest. None where others decide: sessions and counts."""
    if isinstance(gone, Late):
        return _pairs(gone.batch.frame, WINDOW)
    found = []
    for batch in batches:
        info = batch.columns.window
        if info and info.kind in FIXED and set(WINDOW) <= set(batch.frame.columns):
            found += _pairs(Windows(info).spread(batch.frame.select(WINDOW), -FOREVER, FOREVER), (START, END))
    return found


def _pairs(frame: pl.DataFrame, names: tuple[str, str]) -> list[tuple[int, int]]:
    return [(start, end) for start, end in frame.select(names).sort(names).rows()]


def _key(stage: Stage, batch: Batch) -> dict[str, Any]:
    names = [name for name in stage.step.columns(stage.given).key if name not in WINDOW]
    whole, _ = batch.need(names, set())
    return dict(zip(names, whole.frame.select(names).row(0), strict=True)) if whole.height and names else {}
