"""Run a plan in this process: between standard input and output, or from its own source to its own sink."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns
from clickpipe.core.loop import Asides, Loop, Stage, Tail
from clickpipe.core.meter import OUTCOMES, Ledger, check
from clickpipe.core.operator import Feed, Writer
from clickpipe.core.step import RawStep, SinkStep, SourceStep
from clickpipe.core.terminal import standard_output
from clickpipe.engine.asides import SideFiles
from clickpipe.engine.errorlimit import ErrorLimit
from clickpipe.engine.feeds import ProducedSplit, open_stream
from clickpipe.engine.memory import keep_freed_memory
from clickpipe.errors import ClickpipeError, DataError, PlanError
from clickpipe.operators.ingest import Ingest, IngestFeed
from clickpipe.operators.window import Window
from clickpipe.plan.parse import locate
from clickpipe.plan.plan import Plan
from clickpipe.state.files import remove
from clickpipe.state.home import pipeline_directory
from clickpipe.wire.frames import StreamLine
from clickpipe.wire.pump import Inbox
from clickpipe.wire.stream import StreamWriter


@dataclass
class Outcome:
    """What a run came to. `has_sink`: whether the accounts end here, and so must balance."""

    accounts: list[Ledger] = field(default_factory=list)
    has_sink: bool = False
    late_path: str | None = None
    dead_path: str | None = None


def run(plan: Plan, say: Callable[[str], None], *, arrow: bool = False) -> Outcome:
    """Raises what goes wrong; then no sink has got its result. `say`: what a person should know meanwhile."""
    if isinstance(plan.nodes[0].step, RawStep) and len(plan.nodes) == 1:
        return _write_raw(plan.nodes[0].step)
    keep_freed_memory()
    return _Run(plan, say, arrow).run()


def _write_raw(step: RawStep) -> Outcome:
    outbox = standard_output()
    for block in step.raw():
        outbox.put(block)
    outbox.close()
    return Outcome()


class _Run:
    def __init__(self, plan: Plan, say: Callable[[str], None], arrow: bool) -> None:
        self._plan, self._say, self._arrow = plan, say, arrow
        self._floats: set[str] = set()
        self._feed, begins = _open_feed(plan)
        self._feed.floats = self._floats
        for note in self._feed.notes:
            say(note)
        self._stages, self._columns = open_stages(plan, self._feed.columns)
        self._state = pipeline_directory(plan.name or self._feed.pipeline, self._feed.state)
        self._sides = SideFiles(self._state, *_side_paths(plan))
        if begins:
            _begin_anew(self._sides)
        self._limit = _error_limit(plan, self._feed)
        self._want()

    def _want(self) -> None:
        wanted: list[str] = []
        for stage in self._stages:
            wanted += stage.needs
            if not stage.step.passes():
                self._feed.want(wanted, False)
                return
        if self._plan.sink is None and self._arrow:
            self._feed.want(None, True)
        else:
            self._feed.want([*wanted, *self._sink_needs()], True)

    def _sink_needs(self) -> tuple[str, ...]:
        node = self._plan.sink
        if not node or not isinstance(node.step, SinkStep):
            return ()
        try:
            return node.step.needs(self._columns)
        except ClickpipeError as error:
            raise locate(error, node.written) from None

    def run(self) -> Outcome:
        with ExitStack() as stack:
            stack.callback(self._feed.close)
            loop = Loop(self._feed, self._stages, self._tail(), Asides(self._sides.add_late, self._dead), self._floats)
            self._loop = loop
            try:
                loop.run()
                accounts = _joined(self._feed.inherited, loop.accounts)
                self._limit.check(accounts[0], final=True)
                self._tell_of_nothing_good(loop.accounts[0])
                self._sides.close()
                self._finish(accounts)
            except BaseException:
                self._abandon()
                raise
        return Outcome(accounts, self._plan.sink is not None, self._sides.late_path, self._sides.dead_path)

    def _tell_of_nothing_good(self, ledger: Ledger) -> None:
        """A wrong --format or --time looks like this, and must not look like an empty input."""
        if ledger.dead and ledger.dead == ledger.read:
            self._say(f"none of the {ledger.read:,} records is good; of the first it is said: {self._sides.first_reason}")

    def _dead(self, dead: Dead) -> None:
        self._sides.add_dead(dead)
        self._limit.check(self._loop.accounts[0], final=False)

    def _tail(self) -> Tail:
        node = self._plan.sink
        if node and isinstance(node.step, SinkStep):
            try:
                writer = node.step.open(self._columns)
            except ClickpipeError as error:
                raise locate(error, node.written) from None
            self._finish, self._abandon = _sink_finish(writer), writer.abandon
            return Tail(lambda batch, count: self._write_to(writer, batch, count), writer.advance, self._sink_needs())
        feed = self._feed
        line = StreamLine(self._columns, self._plan.name or feed.pipeline, feed.hop + 1, feed.run, self._state, self._limit.text)
        stream = StreamWriter(standard_output(), line, arrow=self._arrow)
        self._finish, self._abandon = _stream_finish(stream), _nothing
        return Tail(lambda batch, count: stream.write(batch, _records(batch, count)), stream.advance, ())

    def _write_to(self, writer: Writer, batch: Batch, count: int) -> None:
        writer.write(batch)
        self._loop.accounts[-1].written += count

    _finish: Callable[[list[Ledger]], None]
    _abandon: Callable[[], None]


def _records(batch: Batch, count: int) -> int | None:
    return count if batch.columns.is_hopping() else None


def _sink_finish(writer: Writer) -> Callable[[list[Ledger]], None]:
    def finish(accounts: list[Ledger]) -> None:
        check(accounts)
        writer.close(accounts)

    return finish


def _stream_finish(stream: StreamWriter) -> Callable[[list[Ledger]], None]:
    def finish(accounts: list[Ledger]) -> None:
        check(accounts[:-1])
        stream.end([ledger.to_json() for ledger in accounts])

    return finish


def _nothing() -> None:
    """A stream that is not ended is a failed one: its reader sees that by itself."""


def _open_feed(plan: Plan) -> tuple[Feed, bool]:
    """The feed, and whether the pipeline begins here."""
    first = plan.nodes[0]
    try:
        if isinstance(first.step, RawStep) and isinstance(plan.nodes[1].step, Ingest):
            return IngestFeed(plan.nodes[1].step, [ProducedSplit(first.step.raw())]), True
        if isinstance(first.step, SourceStep):
            return first.step.open(), True
    except (PlanError, DataError) as error:
        raise locate(error, first.written) from None
    if os.isatty(sys.stdin.fileno()):
        raise PlanError(
            f"{first.written.name} reads a stream, and standard input is a terminal",
            hint="put it behind a pipe: clickpipe ingest FILE | …",
        )
    feed = open_stream(Inbox(sys.stdin.fileno(), "standard input"))
    return feed, isinstance(feed, IngestFeed)


def open_stages(plan: Plan, columns: Columns) -> tuple[list[Stage], Columns]:
    """The running operators, and the columns after the last. Raises PlanError that shows the step."""
    stages = []
    for step, written in plan.operators():
        try:
            after = step.columns(columns)
            stages.append(Stage(written.name, step, columns, step.open(columns, {}), step.needs(columns)))
        except ClickpipeError as error:
            raise locate(error, written) from None
        columns = after
    return stages, columns


def _side_paths(plan: Plan) -> tuple[str | None, str | None]:
    late = [step.late for step, _ in plan.operators() if isinstance(step, Window) and step.late]
    dead = [node.step.dead_letter for node in plan.nodes if isinstance(node.step, Ingest) and node.step.dead_letter]
    return (late[0] if late else None, dead[0] if dead else None)


def _begin_anew(sides: SideFiles) -> None:
    for path in (sides.late_path, sides.dead_path):
        if path and os.path.isfile(path):
            remove(path)


def _error_limit(plan: Plan, feed: Feed) -> ErrorLimit:
    """Given to ingest, and told to the steps behind it by the stream."""
    for node in plan.nodes:
        if isinstance(node.step, Ingest):
            try:
                return ErrorLimit(node.step.max_errors, is_live=feed.is_live)
            except PlanError as error:
                raise locate(error, node.written) from None
    return ErrorLimit(feed.max_errors)


def _joined(inherited: list[Ledger], own: list[Ledger]) -> list[Ledger]:
    """The accounts of the steps before, and ours: our first ledger goes on where their last one stopped."""
    if not inherited:
        return own
    last, first = inherited[-1], own[0]
    if last.left() != first.read:
        raise DataError(f"the steps before handed on {last.left()} records and {first.read} came")
    for name in (*OUTCOMES, "partly_late"):
        setattr(last, name, getattr(last, name) + getattr(first, name))
    return [*inherited, *own[1:]]
