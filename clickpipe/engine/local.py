"""Run a plan in this process: between standard input and output, or from its own source to its own sink."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns
from clickpipe.core.bywindow import counted, is_windowed
from clickpipe.core.intake import IngestFeed
from clickpipe.core.loop import Asides, Loop, Tail
from clickpipe.core.meter import Ledger, added, joined
from clickpipe.core.operator import Operator, Writer
from clickpipe.core.spread import spread
from clickpipe.core.step import FlowStep, OperatorStep, PartitionStep, RawStep, SinkStep, Step, Tables
from clickpipe.core.terminal import standard_output
from clickpipe.engine.asides import SideFiles, StagedSides
from clickpipe.engine.checkpoints import PARTIAL, Place
from clickpipe.engine.commit import Committer
from clickpipe.engine.divided import DividedEnd
from clickpipe.engine.ends import CommittedEnd, End, SinkEnd, StreamEnd
from clickpipe.engine.limits import need_open_files, share_the_cores
from clickpipe.engine.memory import keep_freed_memory
from clickpipe.engine.middle import MiddleSink, Unheeding, refuse_remote_checkpoints, refuse_without_pipe, wait_until_complete
from clickpipe.engine.opening import (
    accounts_by_window,
    begin_anew,
    error_limit,
    open_feed,
    open_stages,
    seen,
    side_paths,
    watched,
)
from clickpipe.engine.parallel import ALONE, Role, forked
from clickpipe.engine.sampling import Observed
from clickpipe.errors import Caution, ClickpipeError, DataError, PlanError, ReaderGone, Unsupported
from clickpipe.faults import kill_point
from clickpipe.operators.ingest import Ingest
from clickpipe.plan.blocks import check_covered, for_merging, for_workers, looked_at, segments, sized
from clickpipe.plan.parse import located
from clickpipe.plan.plan import Node, Plan
from clickpipe.state.home import pipeline_directory
from clickpipe.state.observed import keep
from clickpipe.state.samples import is_life, new_life
from clickpipe.state.space import Space
from clickpipe.stopping import RESCALE, WORKERS, on_ask, parent
from clickpipe.wire.frames import Barrier, StreamLine
from clickpipe.wire.links import NO_LINKS, Links
from clickpipe.wire.pump import Outbox, when_reader_leaves
from clickpipe.wire.stream import StreamWriter


@dataclass
class Outcome:
    """What a run came to. `has_sink`: whether the accounts end here, and so must balance."""

    accounts: list[Ledger] = field(default_factory=list)
    has_sink: bool = False
    late_path: str | None = None
    dead_path: str | None = None
    stopped_at: int | None = None  # the checkpoint from which the next run goes on
    is_rescaled: bool = False  # and it stopped to go on with another number of workers


def run(
    plan: Plan,
    say: Callable[[str], None],
    *,
    arrow: bool = False,
    links: Links = NO_LINKS,
    begun: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Raises what goes wrong; then no sink has got its result. `say`: what a person should know meanwhile.

    `links`: where the stream comes from and goes to, instead of standard input and output. `begun`: takes the name of the
    pipeline, as soon as it is known.
    """
    if isinstance(plan.nodes[0].step, RawStep) and len(plan.nodes) == 1:
        return _write_raw(plan.nodes[0].step)
    need_open_files()
    keep_freed_memory()
    counts = os.environ.get(WORKERS, "")
    plan = sized(plan, [int(count) for count in counts.split(",") if count])
    parts = segments(plan)
    if len(parts) == 1:
        return _run(plan, say, arrow, ALONE, links, begun)
    if links.read or links.written:
        raise Unsupported("notimpl", "workers beside sockets", "they are forked", hint="run a serve for each worker")
    share_the_cores(max(part.processes for part in parts))
    with forked(parts, say, is_saved=plan.takes_checkpoints) as role:
        return _run(replace(plan, nodes=role.segment.nodes), say, arrow, role, links, begun)


def _run(plan: Plan, say: Callable[[str], None], arrow: bool, role: Role, links: Links, begun: Callable[[str], None]) -> Outcome:
    with seen(plan) as over:
        return _Run(plan, say, arrow, role, links, begun).run(over)


def _write_raw(step: RawStep) -> Outcome:
    outbox = standard_output()
    for block in step.raw():
        outbox.put(block)
    outbox.close()
    return Outcome()


class _Run:
    def __init__(
        self,
        plan: Plan,
        say: Callable[[str], None],
        arrow: bool,
        role: Role,
        links: Links,
        begun: Callable[[str], None],
    ) -> None:
        self._say, self._role, self._links = say, role, links
        self._arrow = arrow or (role.workers is not None and not role.workers.keeps_text)
        self._space = Space(say, watched(plan, links))
        self._feed, begins, self._checkpoints = open_feed(plan, self._space, role.inputs, links)
        if not is_life(self._feed.life):
            self._feed.life = new_life()
        self._plan = plan = replace(plan, nodes=self._nodes(plan))
        if self._checkpoints:
            refuse_remote_checkpoints(links)
        given = plan.source.step.name if plan.source and isinstance(plan.source.step, Ingest) else None
        self._pipeline = given or (plan.name if begins else None) or self._feed.pipeline
        begun(self._pipeline)
        for note in self._feed.notes:
            say(Caution(note))
        self._first_hop = self._feed.hop + (plan.source is not None)
        self._floats = self._feed.floats
        self._middle: list[MiddleSink] = []
        self._written_to = list(self._feed.sinks)
        self._stages, self._columns = open_stages(plan, self._feed.columns, self._opened)
        following = role.following and for_workers(role.following, self._columns)  # who sees their mistakes first speaks of them
        self._looked = looked_at(following, self._columns) if following and self._feed.has_text else None
        self._by_window = accounts_by_window(self._stages)
        self._state = pipeline_directory(self._pipeline, self._feed.state)
        self._sides = self._open_sides(begins)
        self._begins = begins
        self._limit = error_limit(plan, self._feed)
        self._last_epoch = 0
        self._end = End()
        self._was_asked = self._drains = self._is_rescaling = False
        if begins and self._checkpoints:
            on_ask(self._asked)
        elif parent() is not None:  # systemd asks all processes of a service: we end when the stream does
            on_ask(lambda number: number == signal.SIGTERM)
        self._want()

    def _nodes(self, plan: Plan) -> tuple[Node, ...]:
        """What we run of it, now that the columns are known."""
        if self._role.is_worker:
            return for_workers(self._role.segment, self._feed.columns)
        if self._feed.worker:
            check_covered(self._feed.worker.by, plan.nodes, self._feed.columns)
        if self._feed.divided is None:
            return plan.nodes
        if self._role.segment.merges is None:
            raise DataError("the stream has pieces of an aggregate, and its second phase is not known here")
        return for_merging(self._role.segment, self._feed.divided)

    def _opened(self, number: int, step: FlowStep, name: str, given: Columns) -> Operator:
        """An operator of ours, from what it had saved."""
        place = self._place(number, step, name)
        if isinstance(step, SinkStep):
            sink = MiddleSink(place, step.destination_kind(), lambda: self._open_writer(step, place, given))
            self._middle.append(sink)
            return sink
        assert isinstance(step, OperatorStep)
        return step.open(given, self._checkpoints.tables(place) if self._checkpoints else {})

    def _place(self, number: int, step: Step, name: str) -> Place:
        """Of our operator with this number; the source comes before the first, the sink behind the last."""
        name = PARTIAL if step.gives_pieces else name
        return Place(self._first_hop + number, name, step.says(), step.words(), self._feed.worker)

    def _places(self, *, with_sink: bool = False) -> list[Place]:
        source, sink = self._plan.source, self._plan.sink
        begin = [Place(0, source.written.name, source.step.says(), source.step.words())] if source else []
        middle = [self._place(number, stage.step, stage.name) for number, stage in enumerate(self._stages)]
        end = [self._place(len(middle), sink.step, sink.written.name)] if sink and with_sink else []
        return begin + middle + end

    def _open_sides(self, begins: bool) -> SideFiles:
        late, dead = side_paths(self._plan)
        late, dead = late or self._feed.late, dead or self._feed.dead_letter
        if self._checkpoints is None:
            sides = SideFiles(self._state, late, dead)
        else:
            places = self._places(with_sink=True)
            self._floats |= self._checkpoints.floats(places)
            sides = StagedSides(self._checkpoints, places[0], late, dead)
            begins = self._checkpoints.restore is None
        if begins:
            begin_anew(sides, self._feed.run if self._checkpoints else 0)
        return sides

    def _want(self) -> None:
        time = self._feed.columns.time
        wanted: list[str] = ["window_start", time.name] if self._by_window and time else []
        is_text_written = False
        for stage in self._stages:
            wanted += stage.needs
            is_text_written |= stage.is_sink
            if not stage.step.passes():
                self._feed.want(wanted, is_text_written)
                return
        if self._looked and not is_text_written:
            time_name = [time.name] if time else []
            self._feed.want([*wanted, *self._looked.names, *time_name], False)
        elif self._plan.sink is None and self._arrow:
            self._feed.want(None, True)
        else:
            self._feed.want([*wanted, *self._sink_needs()], True)

    def _sink_needs(self) -> tuple[str, ...]:
        node = self._plan.sink
        if not node or not isinstance(node.step, SinkStep):
            return ()
        with located(node.written):
            return node.step.needs(self._columns)

    def run(self, computes: Callable[[], None]) -> Outcome:
        """`computes`: is called when it says that it does."""
        with ExitStack() as stack:
            stack.callback(self._feed.close)
            try:
                self._open_middle()
                tail = self._tail()
                unheeding = Unheeding(tail) if self._middle and not self._checkpoints else None
                asides = Asides(self._sides.add_late, self._dead)
                by_window = self._by_window
                observed = self._observed()
                tail = unheeding.tail if unheeding else tail
                loop = Loop(self._feed, self._stages, tail, asides, self._floats, by_window=by_window, between=observed.measure)
                self._loop = loop
                if self._plan.sink is None and unheeding is None:
                    self._watch_reader()
                stack.enter_context(observed.told(loop, computes))
                loop.run()
                accounts = self._accounts(self._feed.inherited)
                self._limit.check(self._judged(accounts[0]), final=not self._feed.is_stopped)
                self._tell_of_nothing_good(self._judged(loop.accounts[0]))
                last = self._last_barrier()
                accounts = self._finish(accounts, last, unheeding is not None and unheeding.is_gone)
                self._sides.close()
                self._keep_what_was_seen()
            except BaseException:
                self._space.give_up()
                if self._checkpoints:  # barriers that went on must find their files
                    with suppress(ClickpipeError, ReaderGone):
                        self._checkpoints.close()
                for sink in self._middle:
                    sink.abandon()
                self._end.abandon()
                raise
        stopped_at = last.epoch if last and self._feed.is_stopped else None
        is_rescaled = self._is_rescaling and self._feed.is_stopped
        has_sink = self._plan.sink is not None
        return Outcome(accounts, has_sink, self._sides.late_path, self._sides.dead_path, stopped_at, is_rescaled)

    def _watch_reader(self) -> None:
        for outbox in self._links.written:
            outbox.when_reader_leaves(self._feed.leave)
        for descriptor in () if self._links.written else self._role.outputs or (sys.stdout.fileno(),):
            when_reader_leaves(descriptor, self._feed.leave)

    def _asked(self, number: int) -> bool:
        """A signal asks for the end: after a last checkpoint. At once the second time (unless a supervisor decides on that),
        while a full disk lets none be written, and for Ctrl-C in a shell pipeline, whose other processes have ended by it."""
        if number == RESCALE:
            self._is_rescaling = not (self._was_asked or self._drains or self._space.is_waiting)
            if self._is_rescaling:
                self._feed.stop(drain=False)
            return True
        if number == signal.SIGUSR1:
            self._drains = True
            self._feed.stop(drain=True)
            return True
        is_first = not self._was_asked or parent() is not None
        is_soft = is_first and not self._space.is_waiting and (number == signal.SIGTERM or self._has_whole_pipeline())
        self._was_asked, self._is_rescaling = True, False
        if is_soft:
            self._feed.stop(drain=False)
        return is_soft

    def _observed(self) -> Observed:
        source, sink = self._plan.source, self._plan.sink
        return Observed(
            self._pipeline,
            self._feed,
            self._stages,
            self._places(with_sink=True) or [Place(self._first_hop, "merge" if self._role.inputs else "worker", "")],
            self._end,
            self._begins,
            has_source=source is not None,
            has_sink=sink is not None,
            run=self._feed.run if self._checkpoints else None,
            interval=source.step.checkpoint / 1_000
            if source and isinstance(source.step, Ingest) and source.step.checkpoint
            else None,
        )

    def _has_whole_pipeline(self) -> bool:
        """Whether a signal for all processes of a pipeline is for us alone."""
        return self._plan.sink is not None or bool(self._role.outputs)

    def _finish(self, accounts: list[Ledger], last: Barrier | None, is_reader_gone: bool) -> list[Ledger]:
        """The end: of the sinks in the middle first, so that what is behind them never ends well without them."""
        for sink in self._middle:
            sink.close()
        if is_reader_gone:
            raise ReaderGone
        accounts = self._end.finish(accounts, last, is_stopped=self._feed.is_stopped)
        if last and self._checkpoints and self._middle and not self._has_whole_pipeline():
            wait_until_complete(self._checkpoints, last.epoch)
        return accounts

    def _keep_what_was_seen(self) -> None:
        """Of event times, where no checkpoint holds it, and something stands in the state directory or has come late."""
        feed = self._feed
        if self._begins and self._checkpoints is None and isinstance(feed, IngestFeed):
            said = feed.seen()
            is_late = any(split.get("lateness", {}).get("greatest", 0) > said["out_of_orderness"] for split in said["splits"])
            if is_late or os.path.isdir(self._state):
                keep(self._state, said)

    def _tell_of_nothing_good(self, ledger: Ledger) -> None:
        """A wrong --format or --time looks like this, and must not look like an empty input."""
        if ledger.dead and ledger.dead == ledger.read:
            first = f"of the first it is said: {self._sides.first_reason}"
            self._say(Caution(f"none of the {ledger.read:,} records is good; {first}"))

    def _dead(self, dead: Dead) -> None:
        self._sides.add_dead(dead)
        self._limit.check(self._judged(self._loop.accounts[0]), final=False)

    # Checkpoints.

    def _judged(self, ledger: Ledger) -> Ledger:
        """With the records of the runs before, which count for --max-errors too."""
        restore = self._checkpoints.restore if self._checkpoints else None
        return added(ledger, Ledger.from_json(dict(restore.accounts[0]))) if restore else ledger

    def _check_background(self) -> None:
        """What has failed in the background must not stay unheard of while the input pauses."""
        if self._checkpoints:
            self._checkpoints.check()
            self._end.check()

    def _accounts(self, inherited: list[Ledger]) -> list[Ledger]:
        return joined(inherited, [replace(ledger) for ledger in self._loop.accounts])

    def _barrier(self, barrier: Barrier) -> None:
        accounts = self._accounts([Ledger.from_json(said) for said in barrier.accounts])
        self._last_epoch = barrier.epoch
        self._end.barrier(self._extended(barrier, ended=False), accounts)

    def _extended(self, barrier: Barrier, *, ended: bool) -> Barrier:
        """The barrier with what our own steps have saved."""
        if self._checkpoints is None:
            return barrier
        tables: list[Tables] = [stage.operator.snapshot() for stage in self._stages]
        if self._plan.source:
            tables.insert(0, {})
        entries = self._checkpoints.entries(barrier.epoch, list(zip(self._places(), tables, strict=True)), self._floats)
        entries += [sink.stage(barrier.epoch, self._checkpoints, ended=ended) for sink in self._middle]
        assert isinstance(self._sides, StagedSides)
        return replace(barrier, state=(*barrier.state, *entries, *self._sides.entries(barrier.epoch)))

    def _last_barrier(self) -> Barrier | None:
        """The end as a barrier; None where there are no checkpoints, or the run before had come to its end."""
        checkpoints = self._checkpoints
        if checkpoints is None or (checkpoints.restore and checkpoints.restore.ended):
            return None
        last = self._feed.last or Barrier(max(self._last_epoch, self._feed.restore or 0) + 1)
        last = self._extended(last, ended=not self._feed.is_stopped)
        checkpoints.close()
        kill_point("before-end")
        return last

    def _tail(self) -> Tail:
        node = self._plan.sink
        if node and isinstance(node.step, SinkStep):
            place = self._place(len(self._stages), node.step, node.written.name)
            with located(node.written):
                writer = self._open_writer(node.step, place, self._columns)
                self._end = self._sink_end(writer, node.step.destination_kind(), place)

            def advance(watermark: int | None, _is_idle: bool) -> None:
                self._check_background()
                writer.advance(watermark)

            return Tail(lambda batch: self._write_to(writer, batch), advance, self._sink_needs(), self._barrier)
        feed, hop = self._feed, self._first_hop + len(self._stages)
        late, dead = self._said_sides()
        more = (self._limit.text, feed.restore, dead, tuple(self._written_to), late)
        has_pieces = bool(self._stages) and self._stages[-1].step.gives_pieces
        divided = feed.columns if has_pieces else None
        line = StreamLine(self._columns, self._pipeline, hop, feed.run, self._state, *more, feed.worker, divided, feed.life)
        partition = self._plan.nodes[-1].step if self._plan.nodes else None
        if isinstance(partition, PartitionStep):
            self._end = end = self._divided(partition, line)
            return self._into(end)
        outbox = self._links.written[0] if self._links.written else standard_output()
        is_worker = feed.worker is not None
        if (self._arrow or is_worker) and not self._by_window and all(type(stage.operator) is Operator for stage in self._stages):
            feed.hand_on()
        stream = StreamWriter(outbox, line, arrow=self._arrow or is_worker, keeps_text=is_worker and not self._arrow)
        self._end = StreamEnd(stream, feed)
        return self._into(stream)

    def _into(self, stream: StreamWriter | DividedEnd) -> Tail:
        def hand_on(watermark: int | None, is_idle: bool) -> None:
            self._check_background()
            stream.advance(watermark, idle=is_idle)

        return Tail(stream.write, hand_on, (), self._barrier)

    def _divided(self, partition: PartitionStep, line: StreamLine) -> DividedEnd:
        following = self._role.following
        if following is None:
            return DividedEnd(self._links.written, line, partition, keeps_text=not self._arrow)
        outboxes = [Outbox(one, "a worker") for one in self._role.outputs]
        return DividedEnd(outboxes, line, partition, self._looked, keeps_text=following.keeps_text)

    def _said_sides(self) -> tuple[str | None, str | None]:
        """Where late records and dead letters go, if a person has said it: the steps behind this one put theirs there too."""
        late, dead = (path and os.path.abspath(path) for path in side_paths(self._plan))
        return late or self._feed.late, dead or self._feed.dead_letter

    def _open_middle(self) -> None:
        nodes = [node for node in self._plan.nodes if isinstance(node.step, SinkStep) and node is not self._plan.sink]
        for sink, node in zip(self._middle, nodes, strict=True):
            with located(node.written):
                if self._checkpoints and not self._has_whole_pipeline() and not self._links.written:
                    refuse_without_pipe()
                sink.open()

    def _open_writer(self, step: SinkStep, place: Place, given: Columns) -> Writer:
        if step.place() in self._written_to:
            raise PlanError(f"{place.says}: a sink before this one writes there too", word=place.says.split()[0])
        taken = {f"file:{os.path.realpath(path)}": what for what, path in self._taken_places()}
        if step.place() in taken:
            raise PlanError(f"{place.says}: {taken[step.place()]}", word=place.says.split()[0])
        self._written_to.append(step.place())
        if self._checkpoints is None:
            return spread(step.open(given), given)
        self._checkpoints.tables(place)  # or it is another sink
        restore = self._checkpoints.restore
        saved = restore.entry(place.hop, "staged") if restore else None
        return spread(step.open_staged(given, self._feed.restore or 0, saved, self._checkpoints.directory), given)

    def _taken_places(self) -> list[tuple[str, str]]:
        """Files that a sink would destroy."""
        places = [
            ("that is where dead letters go", self._sides.dead_path),
            ("that is where late records go", self._sides.late_path),
        ]
        source = self._plan.source.step if self._plan.source else None
        sources = source.source if isinstance(source, Ingest) else ()
        return places + [("that is the input", path) for path in sources if path != "-"]

    def _sink_end(self, writer: Writer, kind: str, place: Place) -> End:
        if self._checkpoints is None:
            return SinkEnd(writer)
        committer = Committer(self._pipeline, self._checkpoints, writer, kind, place, self._say, self._role.inputs or (0,))
        return CommittedEnd(committer, self._checkpoints, writer, self._floats)

    def _write_to(self, writer: Writer, batch: Batch) -> None:
        batch, dead = writer.accept(batch)
        for letters in dead:
            self._loop.bury(letters)
        writer.write(batch)
        self._loop.accounts[-1].written += batch.height
        if self._by_window and is_windowed(batch):
            self._loop.accounts[-1].windows.note("written", counted(batch))
