"""Partition blocks: the steps between partition and merge, which workers run.

ingest | partition | window | aggregate | merge | sink        as nodes of one plan, numbered by hop
└──────────────────┘ └────────────────┘ └────────────┘        as segments: what a process runs
    one process         N processes       one process

An aggregate that brings together what partition parts is run in two phases; what follows it, behind the merge.

ingest | partition | window | aggregate | filter | merge | sink
ingest | partition | window | partial | merge | final | filter | sink
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clickpipe.columns import Columns
from clickpipe.core.step import FlowStep, MergeStep, OperatorStep, PartitionStep
from clickpipe.core.summarise import Summarise
from clickpipe.core.two_phase import in_two
from clickpipe.errors import PlanError
from clickpipe.plan.flags import parse_step
from clickpipe.plan.parse import locate, located
from clickpipe.plan.plan import Node, Plan


@dataclass(frozen=True)
class Segment:
    """What a process runs. `partition`: the step that divides its input, where workers run it; `merges`: what they run whose
    streams it merges."""

    nodes: tuple[Node, ...]
    partition: PartitionStep | None = None
    merges: Segment | None = None

    @property
    def processes(self) -> int:
        return self.partition.workers if self.partition else 1

    @property
    def keeps_text(self) -> bool:
        """Whether records leave it as they came, with fields that are in no column."""
        return all(isinstance(node.step, FlowStep) and node.step.passes() for node in self.nodes)


def segments(plan: Plan) -> list[Segment]:
    """In order; a plan without partitions is one. Whose first is a merge, or whose last a partition, has workers elsewhere."""
    found: list[Segment] = []
    nodes: list[Node] = []
    partition: PartitionStep | None = None
    merges: Segment | None = None
    for node in plan.nodes:
        if isinstance(node.step, MergeStep) and node is not plan.nodes[0]:
            merges = Segment(tuple(nodes), partition)
            found.append(merges)
            nodes, partition = [], None
        nodes.append(node)
        if isinstance(node.step, PartitionStep) and node is not plan.nodes[-1]:
            found.append(Segment(tuple(nodes), None, merges))
            nodes, partition = [], node.step
    return [*found, Segment(tuple(nodes), partition, merges)]


def sized(plan: Plan, counts: Sequence[int] = ()) -> Plan:
    """With so many workers for each partition. Without `counts` those whose number follows the load have the most they may."""
    found = list(counts)
    nodes = []
    for node in plan.nodes:
        step = node.step
        if isinstance(step, PartitionStep) and (found or step.is_auto):
            node = replace(node, step=step.with_workers(found.pop(0) if found else step.most))
        nodes.append(node)
    return replace(plan, nodes=tuple(nodes))


def for_workers(segment: Segment, given: Columns) -> tuple[Node, ...]:
    """What workers run of their segment. `given`: the columns behind partition. Raises PlanError that shows the step."""
    return tuple(_phased(segment, given)[0])


def for_merging(segment: Segment, given: Columns) -> tuple[Node, ...]:
    """What the process runs that merges their streams, where an aggregate of theirs is run in two phases."""
    assert segment.merges is not None
    merge, *rest = segment.nodes
    assert isinstance(merge.step, MergeStep)
    ordered = [merge] if merge.step.ordered else []
    plain = replace(merge, step=merge.step.unordered())
    return (plain, *_phased(segment.merges, given)[1], *ordered, *rest)


@dataclass(frozen=True)
class Looked:
    """What workers look at of a record. `refuses`: they may find one bad, and must have it whole then."""

    names: frozenset[str]
    refuses: bool


def looked_at(nodes: tuple[Node, ...], given: Columns) -> Looked | None:
    """By these steps. None: records leave the last one as they came, and so it is all of them."""
    names, refuses = set[str](), False
    for step in (node.step for node in nodes):
        assert isinstance(step, OperatorStep)
        names |= set(step.needs(given))
        refuses |= step.refuses(given)
        if not step.passes():
            return Looked(frozenset(names), refuses)
        given = step.columns(given)
    return None


def lowered(plan: Plan, columns: Columns) -> Plan:
    """The plan as it runs, with aggregates in two phases where they must be. `columns`: those of the source. Raises PlanError."""
    nodes: list[Node] = []
    divided = columns
    for part in segments(plan):
        own = part.nodes
        if part.partition:
            divided, own = columns, for_workers(part, columns)
        elif nodes and nodes[-1].step.gives_pieces:
            own = for_merging(part, divided)
        for node in own:
            with located(node.written):
                columns = node.step.columns(columns) if isinstance(node.step, OperatorStep) else columns
        nodes += own
    return replace(plan, nodes=tuple(nodes))


def check_covered(by: tuple[str, ...], nodes: tuple[Node, ...], given: Columns) -> None:
    """Raises PlanError where workers of several machines cannot run these steps. `by`: what their records were divided by."""
    partition = parse_step("partition", ["--by", ",".join(by)])
    assert isinstance(partition, PartitionStep)
    steps = tuple(node for node in nodes if isinstance(node.step, OperatorStep))
    _, behind = _phased(Segment(steps, partition), given)
    if behind:
        what = f"it brings together what partition --by {','.join(by)} parts, and its second phase would run nowhere"
        raise locate(PlanError(what, hint="put it behind merge"), behind[0].written)


def _phased(segment: Segment, given: Columns) -> tuple[list[Node], list[Node]]:
    """The steps before merge, and those behind it, if there are two phases."""
    partition, before = segment.partition, list[Node]()
    assert partition is not None
    kept = set(partition.by)
    for number, node in enumerate(segment.nodes):
        step = node.step
        assert isinstance(step, OperatorStep)
        with located(node.written):
            after = step.columns(given)
            if isinstance(step, Summarise) and not partition.covers(step, given, kept):
                partial, final = in_two(step, given)
                return [*before, replace(node, step=partial)], [replace(node, step=final), *segment.nodes[number + 1 :]]
            partition.check(step, given, kept)
        kept = (kept - step.changes(given)) & set(after.types)
        before.append(node)
        given = after
    return before, []
