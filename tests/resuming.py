"""Operators driven by hand: stopped at any point and opened again from what they had saved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns
from clickpipe.core.meter import check
from clickpipe.core.operator import FOREVER, Late, Pull
from clickpipe.core.step import OperatorStep, SourceStep
from clickpipe.plan.parse import parse
from clickpipe.testing import Collected, collect, reopened


def written(records: list[dict[str, Any]], folder: Path) -> Path:
    """A file of them; each gets its number, by which a test knows it again."""
    for number, record in enumerate(records):
        record["n"] = number
    path = folder / "input.ndjson"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def collected(records: list[dict[str, Any]], folder: Path, cut: tuple[int, int], options: str, steps: str) -> Collected:
    """What the steps make of the records; the accounts balance. `cut`: bytes of a batch, and begun anew every so many pulls."""
    batch, resumed = cut
    seen = collect(f"ingest {written(records, folder)} --time ts --batch-bytes {batch} {options} | {steps}", resumed)
    seen.accounts[-1].written = seen.accounts[-1].read
    check(seen.accounts)
    return seen


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
            operator = reopened(step, given, operator)
        for batch in pull.batches:
            outs += [told for out in operator.on_batch(batch.need(step.needs(given), set())[0]) for told in _told(out)]
        if pull.watermark is not None:
            outs += [told for batch in operator.on_watermark(pull.watermark) for told in _told(batch)]
    return outs


def _told(out: Batch | Late | Dead) -> Iterator[tuple[Any, ...]]:
    if isinstance(out, Dead):
        yield from (("dead", raw) for raw in out.raw)
        return
    kind, batch = ("late", out.batch) if isinstance(out, Late) else ("record", out)
    yield from ((kind, line) for line in batch.to_ndjson().decode().splitlines())
