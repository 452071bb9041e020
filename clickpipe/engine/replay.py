"""A pipeline's input through its steps again, at a pace of its own.

--speed 10x     ten seconds of event time go by in one of the wall clock
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from clickpipe.columns import Columns
from clickpipe.core.operator import Feed, Pull, Writer
from clickpipe.core.option import Size
from clickpipe.engine.local import Outcome, run
from clickpipe.engine.recompute import again
from clickpipe.errors import PlanError
from clickpipe.operators.ingest import Ingest
from clickpipe.operators.sink import Sink
from clickpipe.plan.plan import Node, Plan

_FINE = Size(64 << 10)  # bytes of a batch that is to be in time
_LONGEST = 0.2  # seconds that are slept at once


def replay(
    plan: Plan, inputs: tuple[str, ...], start: str | None, into: str | None, speed: float | None, say: Callable[[str], None]
) -> Outcome:
    """`start`: as ingest --from; `into`: where the results go, instead of to those that are there. Raises PlanError."""
    if start not in (None, "earliest") and into is None:
        raise PlanError(
            "--from cuts windows at its beginning, which must not take the place of whole ones",
            hint="--into view:NAME, or another new place for the results",
            word="--from",
        )

    def opened(sink: Sink, given: Columns) -> Writer:
        if into is None:
            return sink.open_replacing(given, None)
        return replace(sink, destination=into, pass_=False).open(given)

    once_more = again(plan, "replay", inputs, opened)
    first = once_more.nodes[0]
    assert isinstance(first.step, Ingest)
    ingest = replace(first.step, from_=start) if start else first.step
    if speed is not None:
        values = {one: getattr(ingest, one) for one in ingest.__dataclass_fields__}
        ingest = Paced(**{**values, "batch_bytes": _FINE, "speed": speed})
    return run(replace(once_more, nodes=(Node(ingest, first.written), *once_more.nodes[1:])), say)


@dataclass(frozen=True)
class Paced(Ingest):
    """Ingest whose watermark goes on `speed` times as fast as the wall clock."""

    speed: float = 1.0

    def open(self, saved: Mapping[str, Any] | None = None, *, say: Callable[[str], None] = lambda _: None) -> Feed:
        feed = super().open(saved, say=say)
        pulls = feed.pulls
        feed.pulls = lambda: _paced(pulls(), self.speed)  # type: ignore[method-assign]  # this one feed waits before each pull
        return feed


def _paced(pulls: Iterator[Pull], speed: float) -> Iterator[Pull]:
    begun: tuple[float, int] | None = None
    for pull in pulls:
        if pull.watermark is not None:
            begun = begun or (time.monotonic(), pull.watermark)
            due = begun[0] + (pull.watermark - begun[1]) / 1_000 / speed
            while (left := due - time.monotonic()) > 0:
                time.sleep(min(left, _LONGEST))
        yield pull
