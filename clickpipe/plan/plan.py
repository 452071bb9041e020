"""A plan: steps in order, each with the place where a person wrote it."""

from __future__ import annotations

from dataclasses import dataclass

from clickpipe.core.step import OperatorStep, RawStep, SinkStep, SourceStep, Step
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
    """Steps in the order in which records pass them."""

    nodes: tuple[Node, ...]
    name: str = ""

    @property
    def source(self) -> Node | None:
        first = self.nodes[0]
        return first if isinstance(first.step, SourceStep) else None

    @property
    def sink(self) -> Node | None:
        last = self.nodes[-1]
        return last if isinstance(last.step, SinkStep) else None

    def operators(self) -> list[tuple[OperatorStep, Written]]:
        return [(node.step, node.written) for node in self.nodes if isinstance(node.step, OperatorStep)]

    def check(self) -> None:
        """Raises PlanError unless sources come first and sinks last."""
        for number, node in enumerate(self.nodes):
            if number and isinstance(node.step, SourceStep) and not _is_fed(node.step, self.nodes[number - 1].step):
                raise PlanError(
                    f"{node.written.name} begins a pipeline; it cannot stand after another step", word=node.written.name
                )
            if number < len(self.nodes) - 1 and isinstance(node.step, SinkStep):
                raise PlanError(
                    f"{node.written.name} ends a pipeline; it cannot stand before another step", word=node.written.name
                )


def _is_fed(step: SourceStep, before: Step) -> bool:
    """`generate | ingest -` is one source."""
    return isinstance(before, RawStep) and getattr(step, "source", None) == ("-",)
