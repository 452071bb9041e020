"""What a plan runs on: its feed, its running operators, where records go that leave it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from clickpipe.columns import Columns
from clickpipe.core.intake import IngestFeed
from clickpipe.core.loop import Stage
from clickpipe.core.operator import Feed, Operator
from clickpipe.core.step import FlowStep, MergeStep, OperatorStep, RawStep, SourceStep
from clickpipe.core.windows import FIXED
from clickpipe.engine.asides import SideFiles
from clickpipe.engine.checkpoints import Checkpoints, begin, join
from clickpipe.engine.errorlimit import ErrorLimit
from clickpipe.engine.feeds import ProducedSplit, open_stream
from clickpipe.engine.merged import open_merged
from clickpipe.errors import PlanError
from clickpipe.faults import strikes_input, struck
from clickpipe.operators.ingest import Ingest
from clickpipe.operators.sink import Sink
from clickpipe.operators.window import Window
from clickpipe.plan.parse import located
from clickpipe.plan.plan import Node, Plan
from clickpipe.state import samples
from clickpipe.state.files import hold, remove, rename
from clickpipe.state.space import Space
from clickpipe.wire.links import NO_LINKS, Links
from clickpipe.wire.pump import Arriving, Inbox

ACCOUNTS = "CLICKPIPE_ACCOUNTS"


@contextmanager
def seen(plan: Plan) -> Iterator[Callable[[], None]]:
    """While in here, it is seen from outside that a pipeline begins, until what this gives is called."""
    first = plan.nodes[0] if plan.nodes else None
    if first is None or not isinstance(first.step, Ingest):
        yield lambda: None
        return
    with located(first.written):
        name = first.step.pipeline(plan.name)
    with samples.opening(name) as over:
        yield over


def watched(plan: Plan, links: Links = NO_LINKS) -> int | None:
    """The descriptor of our output, where somebody reads it."""
    if links.written:
        return None
    sink = plan.sink.step if plan.sink else None
    return sys.stdout.fileno() if sink is None or (isinstance(sink, Sink) and sink.destination == "-") else None


def open_feed(
    plan: Plan, space: Space, inputs: Sequence[int] = (), links: Links = NO_LINKS
) -> tuple[Feed, bool, Checkpoints | None]:
    """The feed, whether the pipeline begins here, and this process's part in its checkpoints.

    `inputs`: descriptors of the streams of workers, which are merged.
    """
    first = plan.nodes[0].step if plan.nodes else None
    if isinstance(first, MergeStep) and (inputs or links.read):
        inboxes: Sequence[Arriving] = [Inbox(one, "a worker's stream") for one in inputs] or links.read
        merged = open_merged(inboxes, first.max_drift)
        return merged, False, join(merged, space)
    if plan.source is None:
        return _joined(plan, space, *links.read)
    feed, begins, checkpoints = _begun(plan, plan.source, space)
    if strikes_input():
        feed.pulls = partial(struck, feed.pulls, lambda pull: pull.read)  # type: ignore[method-assign]  # of this feed
    return feed, begins, checkpoints


def _begun(plan: Plan, first: Node, space: Space) -> tuple[Feed, bool, Checkpoints | None]:
    with located(first.written):
        if isinstance(first.step, RawStep) and isinstance(plan.nodes[1].step, Ingest):
            if plan.nodes[1].step.checkpoint:
                raise PlanError("--checkpoint is for input that can be read again from the middle: not behind generate")
            return plan.nodes[1].step.feed([ProducedSplit(first.step.raw())]), True, None
        if isinstance(first.step, Ingest):
            return _begun_ingest(plan, first.step, first.written.name, space)
        assert isinstance(first.step, SourceStep)
        return first.step.open(say=space.say), True, None


def _begun_ingest(plan: Plan, step: Ingest, name: str, space: Space) -> tuple[Feed, bool, Checkpoints | None]:
    if not step.checkpoint:
        return step.open(say=space.say), True, None
    begun, checkpoints = begin(step, plan.name, name, space)
    return begun, True, checkpoints


def _joined(plan: Plan, space: Space, inbox: Arriving | None = None) -> tuple[Feed, bool, Checkpoints | None]:
    if inbox is None and os.isatty(sys.stdin.fileno()):
        name = plan.nodes[0].written.name if plan.nodes else "it"
        hint = "put it behind a pipe: clickpipe ingest FILE | …"
        raise PlanError(f"{name} reads a stream, and standard input is a terminal", hint=hint)
    feed = open_stream(inbox or Inbox(sys.stdin.fileno(), "standard input"))
    return feed, isinstance(feed, IngestFeed), join(feed, space)


def _fresh(_number: int, step: FlowStep, _name: str, given: Columns) -> Operator:
    assert isinstance(step, OperatorStep)
    return step.open(given, {})


def open_stages(
    plan: Plan, columns: Columns, opened: Callable[[int, FlowStep, str, Columns], Operator] = _fresh
) -> tuple[list[Stage], Columns]:
    """The running operators, and the columns after the last. Raises PlanError that shows the step."""
    stages: list[Stage] = []
    for step, written in plan.middle():
        with located(written):
            after = step.columns(columns)
            operator = opened(len(stages), step, written.name, columns)
            stages.append(Stage(written.name, step, columns, operator, step.needs(columns)))
        columns = after
    return stages, columns


def accounts_by_window(stages: list[Stage]) -> bool:
    """Whether a person wants accounts per window. Raises PlanError where they cannot be had."""
    wanted = os.environ.get(ACCOUNTS)
    if wanted not in (None, "", "windows"):
        raise PlanError(f'{ACCOUNTS} is "{wanted}"; it can be windows')
    for stage in stages if wanted else ():
        info, after = stage.given.window, stage.step.columns(stage.given)
        for one in (info, after.window):
            if one and one.kind not in FIXED:
                raise PlanError(f"accounts per window are for fixed windows, and these are {one.kind} windows")
        if info and not after.window and stage.step.outcome != "aggregated":
            raise PlanError(f"accounts per window need window_start and window_end, and {stage.name} drops them")
    return bool(wanted)


def side_paths(plan: Plan) -> tuple[str | None, str | None]:
    late = [step.late for step, _ in plan.middle() if isinstance(step, Window) and step.late]
    dead = [node.step.dead_letter for node in plan.nodes if isinstance(node.step, Ingest) and node.step.dead_letter]
    return (late[0] if late else None, dead[0] if dead else None)


def begin_anew(sides: SideFiles, run: int) -> None:
    """Side files are of one run; with checkpoints, those of runs before are put aside."""
    for path in sides.files:
        if os.path.isfile(path):
            if run:
                os.close(hold(path))  # or it is another's, who writes to it
            rename(path, f"{path}.before-run-{run}") if run else remove(path)


def error_limit(plan: Plan, feed: Feed) -> ErrorLimit:
    """Given to ingest, and told to the steps behind it by the stream."""
    for node in plan.nodes:
        if isinstance(node.step, Ingest):
            with located(node.written):
                return ErrorLimit(node.step.max_errors, is_live=feed.is_live)
    return ErrorLimit(feed.max_errors)
