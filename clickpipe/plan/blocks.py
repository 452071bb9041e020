"""Partition blocks: the steps between partition and merge, which workers run.

ingest | partition | window | aggregate | merge | sink        as nodes of one plan, numbered by hop
└──────────────────┘ └────────────────┘ └────────────┘        as segments: what a process runs
    one process         N processes       one process
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clickpipe.columns import Columns
from clickpipe.core.step import FlowStep, MergeStep, OperatorStep, PartitionStep
from clickpipe.errors import ClickpipeError
from clickpipe.plan.parse import locate
from clickpipe.plan.plan import Node, Plan


@dataclass(frozen=True)
class Segment:
    """What a process runs. `partition`: the step that divides its input, where workers run it."""

    nodes: tuple[Node, ...]
    partition: PartitionStep | None = None

    @property
    def processes(self) -> int:
        return self.partition.workers if self.partition else 1

    @property
    def keeps_text(self) -> bool:
        """Whether records leave it as they came, with fields that are in no column."""
        return all(isinstance(node.step, FlowStep) and node.step.passes() for node in self.nodes)


def segments(plan: Plan) -> list[Segment]:
    """In order; a plan without partitions is one."""
    found: list[Segment] = []
    nodes: list[Node] = []
    partition: PartitionStep | None = None
    for node in plan.nodes:
        if isinstance(node.step, MergeStep):
            found.append(Segment(tuple(nodes), partition))
            nodes, partition = [], None
        nodes.append(node)
        if isinstance(node.step, PartitionStep):
            found.append(Segment(tuple(nodes)))
            nodes, partition = [], node.step
    return [*found, Segment(tuple(nodes), partition)]


def check_covered(partition: PartitionStep, nodes: Sequence[Node], given: Columns) -> None:
    """Raises PlanError for steps that these workers cannot run, and shows the step. `given`: the columns behind partition."""
    kept = set(partition.by)
    for node in nodes:
        step = node.step
        assert isinstance(step, OperatorStep)
        try:
            after = step.columns(given)
            partition.check(step, given, kept)
            kept = (kept - step.changes(given)) & set(after.types)
        except ClickpipeError as error:
            raise locate(error, node.written) from None
        given = after
