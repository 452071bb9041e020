"""The guarantee of each part of a plan's way from its source to its sinks. A chain is as strong as the weakest."""

from __future__ import annotations

from clickpipe.core.guarantee import AT_LEAST_ONCE, AT_MOST_ONCE, Guarantee
from clickpipe.core.step import SinkStep, SourceStep
from clickpipe.errors import PlanError
from clickpipe.plan.plan import Plan

_STREAM = Guarantee(AT_MOST_ONCE, "a stream on standard input cannot be replayed; the steps before say what they give")


def guarantees(plan: Plan) -> dict[str, Guarantee]:
    """By part: the source, and each sink."""
    first = plan.nodes[0].step
    has_checkpoints = plan.takes_checkpoints
    said = {"source": first.guarantee() if isinstance(first, SourceStep) else _STREAM}
    for node in plan.nodes:
        if isinstance(node.step, SinkStep):
            name = "sink" if node is plan.sink else f"sink {' '.join(node.written.words)}"
            said[name] = node.step.guarantee(has_checkpoints=has_checkpoints)
    if plan.sink is None:
        said["sink"] = Guarantee(AT_LEAST_ONCE, "there is none: the stream goes to standard output, its end said by a signal")
    return said


def require_exactly_once(plan: Plan) -> None:
    """Raises PlanError that names what is weaker."""
    weak = [f"{part}: {said}" for part, said in guarantees(plan).items() if not said.is_exact]
    if weak:
        raise PlanError("--require exactly-once: this pipeline gives less", notes=weak)
