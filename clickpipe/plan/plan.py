"""A plan: steps in order, each with the place where a person wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clickpipe.core.step import FlowStep, MergeStep, PartitionStep, RawStep, SinkStep, SourceStep, Step
from clickpipe.errors import PlanError


@dataclass(frozen=True)
class Written:
    """One step as it was written. `text` is the pipeline or command line; `start` and `end` bound the step in it."""

    name: str
    words: tuple[str, ...]
    text: str = ""
    start: int = 0
    end: int = 0
    origin: str = ""  # the recipe's path, if there is one
    first_line: int = 0  # the number of the text's first line in that file


@dataclass(frozen=True)
class Node:
    step: Step
    written: Written


@dataclass(frozen=True)
class Plan:
    """Steps in the order in which records pass them; none: they pass."""

    nodes: tuple[Node, ...]
    name: str = ""

    @property
    def source(self) -> Node | None:
        first = self.nodes[0] if self.nodes else None
        return first if first and isinstance(first.step, SourceStep) else None

    @property
    def takes_checkpoints(self) -> bool:
        return any(isinstance(node.step, SourceStep) and node.step.takes_checkpoints for node in self.nodes)

    @property
    def sink(self) -> Node | None:
        """The last step, if records end there."""
        last = self.nodes[-1] if self.nodes else None
        return last if last and isinstance(last.step, SinkStep) and not last.step.is_middle() else None

    def middle(self) -> list[tuple[FlowStep, Written]]:
        """The steps that hand records on: operators, and sinks in the middle."""
        nodes = [node for node in self.nodes if node is not self.sink]
        return [(node.step, node.written) for node in nodes if isinstance(node.step, FlowStep)]

    def mistakes(self) -> Iterator[tuple[Written, PlanError]]:
        """Sources that do not come first, and sinks that neither come last nor pass on what they write."""
        for number, node in enumerate(self.nodes):
            if number and isinstance(node.step, SourceStep) and not _is_fed(node.step, self.nodes[number - 1].step):
                what = f"{node.written.name} begins a pipeline; it cannot stand after another step"
                yield node.written, PlanError(what, word=node.written.name)
            if number < len(self.nodes) - 1 and isinstance(node.step, SinkStep) and not node.step.is_middle():
                what = f"{node.written.name} ends a pipeline; it cannot stand before another step"
                yield node.written, PlanError(what, hint="--pass hands the records on", word=node.written.name)
        yield from self._mistaken_blocks()

    def _mistaken_blocks(self) -> Iterator[tuple[Written, PlanError]]:
        is_inside = False
        for node in self.nodes:
            step = node.step
            if isinstance(step, PartitionStep) and is_inside:
                yield node.written, PlanError("a partition within another: merge comes first", word=node.written.name)
            if isinstance(step, MergeStep) and not is_inside:
                what = "nothing to merge: partition comes before it, and between them the steps of the workers"
                hint = "streams of other processes: clickpipe merge ADDRESS…"
                yield node.written, PlanError(what, hint=hint, word=node.written.name)
            is_inside = isinstance(step, PartitionStep) or (is_inside and not isinstance(step, MergeStep))
            if is_inside and isinstance(step, (SourceStep, SinkStep)):
                yield (
                    node.written,
                    PlanError("workers cannot run it: put it before partition or behind merge", word=node.written.name),
                )


def _is_fed(step: SourceStep, before: Step) -> bool:
    """`generate | ingest -` is one source."""
    return isinstance(before, RawStep) and getattr(step, "source", None) == ("-",)
