"""What a plan would do, as plain data. Nothing is run and nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clickpipe.columns import Columns
from clickpipe.core.step import OperatorStep, RawStep, SinkStep
from clickpipe.errors import ClickpipeError
from clickpipe.plan.parse import locate
from clickpipe.plan.plan import Node, Plan

_REPLAYED = "can be read again; this version takes no checkpoints: a run that dies is run again from the start"
_LIVE = "at most once: standard input cannot be read again"
_STREAM = "at least once: a stream on standard output; whoever reads one that was cut short sees that its end is missing"


@dataclass(frozen=True)
class Explained:
    """One step. `columns`: types by name after it; None where they are not known, or where nothing comes after."""

    step: str
    does: str
    columns: Mapping[str, str] | None
    needs: tuple[str, ...] | None
    memory: str


@dataclass(frozen=True)
class Explanation:
    """A plan. `source` and `sink` are what may be relied on at either end."""

    name: str
    steps: tuple[Explained, ...]
    source: str
    sink: str


def explain(plan: Plan, columns: Columns | None) -> Explanation:
    """`columns`: of the records before the first operator; None when only a run can tell.

    Raises PlanError that shows the step, as a run does.
    """
    steps, given = [], columns
    for node in plan.nodes:
        try:
            explained, given = _explained(node, given)
        except ClickpipeError as error:
            raise locate(error, node.written) from None
        steps.append(explained)
    return Explanation(plan.name, tuple(steps), _LIVE if columns is None else _REPLAYED, _sink_guarantee(plan))


def _explained(node: Node, given: Columns | None) -> tuple[Explained, Columns | None]:
    """The step, and the columns after it."""
    step, name = node.step, node.written.name
    if given is None:
        return Explained(name, " ".join(node.written.words), None, None, step.memory()), None
    after = step.columns(given) if isinstance(step, OperatorStep) else given
    shown = None if isinstance(step, (RawStep, SinkStep)) else after.types
    needs = step.needs(given) if isinstance(step, (OperatorStep, SinkStep)) else ()
    return Explained(name, step.describe(given), shown, needs, step.memory()), after


def _sink_guarantee(plan: Plan) -> str:
    node = plan.sink
    if node is None or not isinstance(node.step, SinkStep):
        return _STREAM
    try:
        return node.step.guarantee()
    except ClickpipeError as error:
        raise locate(error, node.written) from None
