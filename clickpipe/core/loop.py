"""The run loop: pull from the feed, push through the operators, keep the accounts.

    feed --pull--> stage 1 --> stage 2 --> … --> tail            on each batch
    watermark -----> stage 1 --results--> stage 2 … -----> tail  after the batches of a pull

What an operator neither hands on nor sets aside has met the outcome that its step names; what it holds, it hands on at a
later watermark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns
from clickpipe.core.bywindow import Watch, WindowWatch, needed
from clickpipe.core.meter import Ledger
from clickpipe.core.operator import FOREVER, Feed, Late, Operator
from clickpipe.core.step import FlowStep, SinkStep
from clickpipe.errors import ClickpipeError
from clickpipe.spent import working
from clickpipe.wire.frames import Barrier

T = TypeVar("T")


@dataclass
class Stage:
    """A running step. `given` are the columns before it."""

    name: str
    step: FlowStep
    given: Columns
    operator: Operator
    needs: tuple[str, ...]
    ledger: int = 0  # which ledger its records belong to

    @property
    def is_sink(self) -> bool:
        return isinstance(self.step, SinkStep)


@dataclass
class Edge:
    """What has gone from one step to the next, or to the tail. `taps`: are given each batch too; another thread replaces them."""

    records: int = 0
    batches: int = 0
    taps: tuple[Callable[[Batch], None], ...] = ()


@dataclass
class Tail:
    """Where what leaves the last stage goes."""

    write: Callable[[Batch], None]
    advance: Callable[[int | None, bool], None]  # the watermark, and whether the wall clock has moved it
    needs: tuple[str, ...]
    barrier: Callable[[Barrier], None] = lambda _: None  # all that came before it has been written


@dataclass
class Asides:
    """Where records go that leave the stream."""

    late: Callable[[Late], None]
    dead: Callable[[Dead], None]


class Loop:
    """Runs stages over a feed until it ends.

    `accounts`: one ledger per stretch between aggregates; `edges`: before each stage, and before the tail; `watermark`: how far
    the feed has come.

    A stage that needs no more input ends the run, unless a sink stands before it: that one is given every record.
    """

    def __init__(
        self,
        feed: Feed,
        stages: list[Stage],
        tail: Tail,
        asides: Asides,
        floats: set[str],
        *,
        by_window: bool = False,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """`by_window`: accounts are kept per window too; `between`: what else is done behind each pull."""
        self._by_window, self._between = by_window, between
        self._feed, self._stages, self._tail, self._asides, self._floats = feed, stages, tail, asides, floats
        self._before_sinks = [] if feed.sinks else list(takewhile(lambda stage: not stage.is_sink, stages))
        self.edges = [Edge() for _ in range(len(stages) + 1)]
        self.watermark: int | None = None
        self.accounts = [Ledger(pieces=int(feed.divided is not None))]
        for stage in stages:
            stage.ledger = len(self.accounts) - 1
            if stage.step.outcome == "aggregated":
                self.accounts.append(Ledger(pieces=int(stage.step.gives_pieces)))

    def run(self) -> None:
        """Raises what the feed, an operator or the tail raises. Windows stay open when the run is stopped."""
        if not self._is_done():
            for pull in self._feed.pulls():
                self._take(pull.batches, pull.dead, pull.read, pull.removed)
                if pull.watermark is not None:
                    self.watermark = pull.watermark
                    self._advance(pull.watermark, is_idle=pull.idle)
                if pull.barrier is not None or (pull.watermark is not None and self._feed.restore is None):
                    self._update()
                with working(len(self.edges)):
                    self._tail.advance(pull.watermark, pull.idle)
                    if pull.barrier is not None:
                        self._tail.barrier(pull.barrier)
                self._between()
                if self._is_done():
                    break
        if not self._feed.is_stopped:
            self._advance(FOREVER)
        elif self._feed.restore is not None:  # the end is a checkpoint, and nothing that is to be handed on is saved instead
            self._update()

    def _is_done(self) -> bool:
        return any(stage.operator.done for stage in self._before_sinks)

    def _take(self, batches: list[Batch], dead: list[Dead], read: int, removed: int) -> None:
        ledger = self.accounts[0]
        ledger.read += read
        ledger.filtered += removed
        if self._by_window and self._feed.columns.window is not None:
            ledger.windows.removed += removed
        for letters in dead:
            self._bury(letters, ledger)
        for batch in batches:
            self._push(0, batch)

    def _push(self, at: int, batch: Batch) -> None:
        if not batch.height:
            return
        edge = self.edges[at]
        edge.records, edge.batches = edge.records + batch.height, edge.batches + 1
        for tap in edge.taps:
            tap(batch)
        with working(at + 1):
            if at == len(self._stages):
                self._write(batch)
            else:
                self._through(at, batch)

    def _through(self, at: int, batch: Batch) -> None:
        stage = self._stages[at]
        ledger = self.accounts[stage.ledger]
        batch, watch = self._watched(batch, ledger)
        batch = self._judged(batch, stage.needs, ledger, watch)
        before, gone = batch.height, 0
        outs = (out for part in batch.parts(stage.operator.most_rows) for out in stage.operator.on_batch(part))
        for out in _named(stage, outs):
            match out:
                case Late():
                    gone += out.batch.height
                    watch.late(out.batch)
                    self._set_aside(out, ledger)
                case Dead():
                    gone += len(out)
                    watch.dead(out)
                    self._bury(out, ledger)
                case Batch():
                    gone += out.height
                    watch.out(out)
                    self._push(at + 1, out)
        ledger.partly_late += stage.operator.take_partly_late()
        setattr(ledger, stage.step.outcome, getattr(ledger, stage.step.outcome) + before - gone)
        watch.end(stage.step.outcome)

    def _write(self, batch: Batch) -> None:
        batch, watch = self._watched(batch, self.accounts[-1])
        batch = self._judged(batch, self._tail.needs, self.accounts[-1], watch)
        if batch.height:
            self._tail.write(batch)

    def _watched(self, batch: Batch, ledger: Ledger) -> tuple[Batch, Watch]:
        if not self._by_window:
            return batch, Watch()
        batch = self._judged(batch, needed(batch), ledger, Watch())
        return batch, WindowWatch(ledger.windows, batch)

    def _judged(self, batch: Batch, needs: Iterable[str], ledger: Ledger, watch: Watch) -> Batch:
        batch, dead = batch.need(needs, self._floats)
        if dead:
            watch.dead(dead)
            self._bury(dead, ledger)
        return batch

    def _advance(self, time: int, *, is_idle: bool = False) -> None:
        for number, stage in enumerate(self._stages):
            if is_idle:
                stage.operator.on_idle()
            self._give(number, stage.operator.on_watermark(time))

    def _update(self) -> None:
        for number, stage in enumerate(self._stages):
            self._give(number, stage.operator.on_update())

    def _give(self, number: int, batches: Iterable[Batch]) -> None:
        """What a stage gives without having been given a batch."""
        stage = self._stages[number]
        with working(number + 1):
            for batch in _named(stage, batches):
                if stage.step.outcome == "aggregated":
                    self.accounts[stage.ledger + 1].read += batch.height
                elif stage.step.outcome == "held":
                    self.accounts[stage.ledger].released += batch.height
                self._push(number + 1, batch)

    def _set_aside(self, late: Late, ledger: Ledger) -> None:
        ledger.late += late.batch.height
        self._asides.late(late)

    def bury(self, dead: Dead) -> None:
        """Records that the last of all has refused."""
        self._bury(dead, self.accounts[-1])

    def _bury(self, dead: Dead, ledger: Ledger) -> None:
        ledger.dead += len(dead)
        self._asides.dead(dead)


def _named(stage: Stage, outs: Iterable[T]) -> Iterator[T]:
    """What an operator gives; its errors say whose they are."""
    try:
        yield from outs
    except ClickpipeError as error:
        raise error.at(stage.name) from None
