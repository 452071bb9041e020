"""What a running process says of itself: its steps, its splits, its time.

The thread that computes is not waited for: a thread beside it asks, and numbers that only grow may be a batch old. What must
not change meanwhile, the size of state, is measured by the thread that computes, between two batches and rarely.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from clickpipe import spent
from clickpipe.core.loop import Loop, Stage
from clickpipe.core.meter import OUTCOMES
from clickpipe.core.operator import FOREVER, Feed
from clickpipe.engine.checkpoints import Place
from clickpipe.engine.ends import End
from clickpipe.engine.taps import Taps
from clickpipe.state import samples
from clickpipe.state.samples import Sample, SplitSample, StepSample

_OFTEN = 0.25  # seconds between two measurements of state, and this many times as long as one has taken
_RARELY = 500
_SPLITS = 100  # that are told of


@dataclass
class Observed:
    """A run, as it is looked at. `places`: of its steps, the source first where `has_source`, the sink last where `has_sink`;
    `begins`: whether the pipeline does, in this process; `run`: its number where it takes checkpoints, `interval` seconds apart.
    """

    pipeline: str
    feed: Feed
    stages: Sequence[Stage]
    places: Sequence[Place]
    end: End
    begins: bool
    has_source: bool
    has_sink: bool
    run: int | None
    interval: float | None = None
    loop: Loop | None = None
    _sizes: list[tuple[int, int]] = field(default_factory=list)
    _due: float = 0.0
    _born: int = 0

    def told(self, loop: Loop, first: Callable[[], None]) -> AbstractContextManager[None]:
        """While in here, it is told once a second. `first`: is called when it was for the first time."""
        self.loop, self._born = loop, samples.born(os.getpid()) or 0
        spent.begin()
        if self.begins:
            samples.begin(self.pipeline)
        taps = Taps(self.pipeline, loop.edges, self.places, has_source=self.has_source)
        return samples.written(self.pipeline, self.sample, taps.look, self._ended, first)

    def _ended(self) -> str:
        return "stopped" if self.feed.is_stopped else "done"

    def measure(self) -> None:
        """Between two batches, by the thread that computes."""
        now = time.monotonic()
        if now >= self._due:
            self._sizes = [stage.operator.size() for stage in self.stages]
            self._due = now + max(_OFTEN, _RARELY * (time.monotonic() - now))

    def sample(self) -> Sample:
        loop, feed = self.loop, self.feed
        assert loop is not None
        now = spent.spent(len(loop.edges) + 1)
        splits = feed.standings()
        worker = feed.worker
        return Sample(
            process=os.getpid(),
            hop=self.places[0].hop,
            worker=worker.number if worker else None,
            records=loop.accounts[0].read,
            at=time.monotonic(),
            busy=now.busy,
            idle=now.idle,
            backpressured=now.backpressured,
            born=self._born,
            life=feed.life,
            run=self.run,
            when=time.time(),
            bytes_in=feed.bytes_in,
            bytes_out=self.end.bytes_out,
            steps=tuple(self._steps(loop, now.steps)),
            outcomes=_outcomes(loop),
            watermark=_finite(loop.watermark),
            greatest=feed.greatest(),
            splits=tuple(replace(one, watermark=_finite(one.watermark)) for one in sorted(splits, key=_behind)[:_SPLITS]),
            splits_in_all=len(splits),
            checkpoint=self.end.newest,
            interval=self.interval,
            extent=feed.extent(),
        )

    def _steps(self, loop: Loop, busy: Sequence[float]) -> list[StepSample]:
        """Time before the first step and behind the last is theirs: of reading a stream, and of writing one."""
        read = StepSample(0, "", records_in=loop.accounts[0].read, records_out=loop.edges[0].records, busy=busy[0])
        read = replace(read, batches=loop.edges[0].batches)
        sizes = self._sizes or [(0, 0)] * len(self.stages)
        inner = [
            StepSample(0, "", "", before.records, after.records, before.batches, seconds, *size)
            for before, after, seconds, size in zip(loop.edges, loop.edges[1:], busy[1:], sizes, strict=False)
        ]
        last = loop.edges[-1]
        write = StepSample(0, "", "", last.records, last.records, last.batches, busy[len(loop.edges)])
        rows = [*([read] if self.has_source else []), *inner, *([write] if self.has_sink else [])] or [write]
        if not self.has_source:
            rows[0] = replace(rows[0], busy=rows[0].busy + read.busy)
        if not self.has_sink and inner:
            rows[-1] = replace(rows[-1], busy=rows[-1].busy + write.busy)
        return [replace(row, hop=at.hop, name=at.name, says=at.says) for row, at in zip(rows, self.places, strict=True)]


def _outcomes(loop: Loop) -> dict[str, int]:
    """Of the records that ended in this process; pieces of results are none."""
    ledgers = [ledger for ledger in loop.accounts if not ledger.pieces]
    return {name: count for name in OUTCOMES if (count := sum(getattr(ledger, name) for ledger in ledgers))}


def _behind(one: SplitSample) -> tuple[bool, int]:
    """Those that hold the watermark back first."""
    return one.silent is not None, FOREVER if one.watermark is None else one.watermark


def _finite(time: int | None) -> int | None:
    return None if time is None or abs(time) >= FOREVER else time
