"""A plan once more over its raw input, as one bounded run: for backfill, replay and audit.

    recipe    ingest tcp://:9000 --checkpoint 1s | sink archive:clicks --pass | window … | aggregate … | sink view:pages
    again     ingest archive:clicks                                           | window … | aggregate … | somewhere else

The same steps see the same records, so they give the same results. What the pipeline itself has saved is neither read nor
changed: the run has a name of its own, no checkpoints and no workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from clickpipe.batch import Batch
from clickpipe.columns import Columns
from clickpipe.core.operator import FOREVER, Writer
from clickpipe.core.source import is_direct
from clickpipe.core.step import FlowStep, MergeStep, PartitionStep, SinkStep
from clickpipe.core.windows import FIXED
from clickpipe.errors import PlanError
from clickpipe.operators.aggregate import Aggregate
from clickpipe.operators.filter import Filter
from clickpipe.operators.ingest import Ingest
from clickpipe.operators.rollup import Rollup
from clickpipe.operators.select import Select
from clickpipe.operators.sink import Sink
from clickpipe.operators.sketch import Sketch
from clickpipe.operators.window import Window
from clickpipe.plan.plan import Node, Plan

Opener = Callable[[Sink, Columns], Writer]
Span = tuple[int, int]  # in which windows begin; milliseconds, the second one exclusive


@dataclass(frozen=True)
class Redirected(SinkStep):
    """A sink whose rows go elsewhere."""

    of: Sink
    opener: Opener = field(compare=False)
    harmless = frozenset({"of", "opener"})

    def columns(self, given: Columns) -> Columns:
        return self.of.columns(given)

    def is_middle(self) -> bool:
        return self.of.is_middle()

    def destination_kind(self) -> str:
        return self.of.destination_kind()

    def place(self) -> str:
        return f"again {self.of.place()}"

    def needs(self, given: Columns) -> tuple[str, ...]:
        return self.of.needs(given) if self.opener is _nowhere else tuple(given.types)

    def open(self, given: Columns) -> Writer:
        return self.opener(self.of, given)


def again(plan: Plan, purpose: str, inputs: tuple[str, ...], opener: Opener, span: Span | None = None) -> Plan:
    """The plan over these inputs; `opener` says where the rows of its sinks of results go. `purpose`: makes its name; `span`: of
    windows that are wanted, others may be left out."""
    ingest = _ingest(plan)
    inputs = inputs or inputs_of(plan)
    first = replace(
        ingest,
        source=inputs,
        within=_records_of(plan, span) if span else None,
        name=name_again(plan, purpose),
        checkpoint=None,
        follow=False,
        until=None,
        drain=False,
        reset=False,
        dead_letter=None,
        idle_timeout=None,
        on_idle=None,
        max_errors=None,
    )
    if is_direct(inputs):  # what was text is none any more, and the archive knows by which column it goes
        first = replace(first, time=None, format=None, columns=None, strict=False)
    nodes = [Node(first, plan.nodes[0].written), *_rest(plan, opener)]
    return replace(plan, nodes=tuple(nodes), name=f"{plan.name}-{purpose}" if plan.name else "")


def name_again(plan: Plan, purpose: str) -> str:
    """Of the pipeline that a plan is then."""
    return f"{_ingest(plan).pipeline(plan.name)[:80]}-{purpose}"


def _records_of(plan: Plan, span: Span) -> tuple[int | None, int | None] | None:
    """The time of the records that windows of a span may have; None: all."""
    reach = 0
    for node in plan.nodes[1:]:
        step = node.step
        if isinstance(step, Window):
            if step.kind not in FIXED:
                return None
            reach += int(step.size)
        elif isinstance(step, Rollup):
            reach += int(step.size)
        elif not isinstance(step, Aggregate | Sketch | Filter | Select | Sink | PartitionStep | MergeStep):
            return None  # it may look at what came before
    first, end = span
    return (first if first > -FOREVER else None, end + reach if end < FOREVER else None) if reach else None


def inputs_of(plan: Plan) -> tuple[str, ...]:
    """Where its raw records can be read again: the archive that it writes them to, or its input. Raises PlanError."""
    for sink in _sinks(plan):
        if sink.destination_kind() == "archive" and not _is_of_results(plan, sink):
            return (sink.destination,)
    ingest = _ingest(plan)
    if not ingest.is_replayable:
        raise PlanError(
            "the raw records are nowhere to be read again: they came by standard input or a socket",
            hint="sink archive:NAME --pass behind ingest keeps them, or --input says where they are",
        )
    return ingest.source


def results_of(plan: Plan) -> list[Sink]:
    """The sinks that take results."""
    return [sink for sink in _sinks(plan) if _is_of_results(plan, sink)]


def _rest(plan: Plan, opener: Opener) -> Iterator[Node]:
    for node in plan.nodes[1:]:
        if isinstance(node.step, PartitionStep | MergeStep):
            continue
        if not isinstance(node.step, Sink):
            yield node
        else:  # one of raw records writes nothing, but judges the columns that it takes, as it did
            taken = opener if _is_of_results(plan, node.step) else _nowhere
            yield Node(Redirected(node.step, taken), node.written)


class _Nowhere(Writer):
    def write(self, batch: Batch) -> None:
        pass


def _nowhere(_sink: Sink, _given: Columns) -> Writer:
    return _Nowhere()


def _ingest(plan: Plan) -> Ingest:
    first = plan.nodes[0].step if plan.nodes else None
    if not isinstance(first, Ingest):
        raise PlanError("only a pipeline that begins with ingest can be computed again")
    return first


def _sinks(plan: Plan) -> list[Sink]:
    return [node.step for node in plan.nodes if isinstance(node.step, Sink)]


def _is_of_results(plan: Plan, sink: Sink) -> bool:
    """Whether an aggregate stands before it; in a pipeline without one its last sink takes the results."""
    if not any(_aggregates(node) for node in plan.nodes):
        return plan.sink is not None and plan.sink.step is sink
    at = next(number for number, node in enumerate(plan.nodes) if node.step is sink)
    return any(_aggregates(node) for node in plan.nodes[:at])


def _aggregates(node: Node) -> bool:
    return isinstance(node.step, FlowStep) and node.step.outcome == "aggregated"
