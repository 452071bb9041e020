"""Operators driven by hand: stopped at any point and opened again from what they had saved."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns
from clickpipe.core.operator import FOREVER, Late, Pull
from clickpipe.core.step import OperatorStep, SourceStep
from clickpipe.plan.parse import parse


def pulled(text: str) -> tuple[OperatorStep, Columns, list[Pull]]:
    """The second step of a pipeline, what it is given, and all that its source gives."""
    source, step = (node.step for node in parse(text).nodes)
    assert isinstance(source, SourceStep)
    assert isinstance(step, OperatorStep)
    feed = source.open()
    feed.want(None, True)
    return step, feed.columns, list(feed.pulls())


def driven(step: OperatorStep, given: Columns, pulls: Sequence[Pull], stops: Sequence[int]) -> list[tuple[Any, ...]]:
    """All that comes out, as text. Before each pull whose number is in `stops` the operator begins anew from its snapshot."""
    operator, outs = step.open(given, {}), []
    for number, pull in enumerate([*pulls, Pull(watermark=FOREVER)]):
        if number in stops:
            operator = step.open(given, {name: _saved(frame) for name, frame in operator.snapshot().items()})
        for batch in pull.batches:
            outs += [told for out in operator.on_batch(batch.need(step.needs(given), set())[0]) for told in _told(out)]
        if pull.watermark is not None:
            outs += [told for batch in operator.on_watermark(pull.watermark) for told in _told(batch)]
    return outs


def _saved(frame: pl.DataFrame) -> pl.DataFrame:
    file = io.BytesIO()
    frame.write_ipc_stream(file)
    file.seek(0)
    return pl.read_ipc_stream(file)


def _told(out: Batch | Late | Dead) -> Iterator[tuple[Any, ...]]:
    if isinstance(out, Dead):
        yield from (("dead", raw) for raw in out.raw)
        return
    kind, batch = ("late", out.batch) if isinstance(out, Late) else ("record", out)
    yield from ((kind, line) for line in batch.to_ndjson().decode().splitlines())
