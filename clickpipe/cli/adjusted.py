"""A plan with what a person has said beside it, as options of the command that runs it."""

from __future__ import annotations

import dataclasses

from clickpipe.core.option import Duration
from clickpipe.errors import PlanError
from clickpipe.operators.ingest import Ingest
from clickpipe.operators.sink import Sink
from clickpipe.plan.parse import located
from clickpipe.plan.plan import Node, Plan


def formatted(plan: Plan, form: str | None) -> Plan:
    """The plan with the form that a person wants on standard output."""
    node = plan.sink
    if form is None:
        return plan
    if node is None or not isinstance(node.step, Sink) or node.step.destination != "-":
        raise PlanError("--format is for a pipeline that ends in sink -")
    return _with_option(plan, len(plan.nodes) - 1, "format", form, form)


def saved_every(plan: Plan, interval: int | None) -> Plan:
    """The plan with the interval of checkpoints that a person wants."""
    if interval is None:
        return plan
    at = _ingest_at(plan)
    if at is None:
        raise PlanError("--checkpoint is for a pipeline that begins with ingest")
    return _with_option(plan, at, "checkpoint", Duration(interval), f"{interval}ms")


def taken_until(plan: Plan, until: str | None, *, drain: bool) -> Plan:
    """The plan with an end of its input, where a person wants one. Raises PlanError where it can have none."""
    at = _ingest_at(plan)
    if at is None:
        if until or drain:
            raise PlanError("--until is for a pipeline that begins with ingest")
        return plan
    plan = _with_option(plan, at, "until", until, until) if until else plan
    plan = _with_option(plan, at, "drain", True) if drain else plan
    node = plan.nodes[at]
    assert isinstance(node.step, Ingest)
    with located(node.written):
        node.step.check_until()
    return plan


def _ingest_at(plan: Plan) -> int | None:
    return next((number for number, node in enumerate(plan.nodes) if isinstance(node.step, Ingest)), None)


def _with_option(plan: Plan, at: int, name: str, value: object, *word: str) -> Plan:
    node = plan.nodes[at]
    step = dataclasses.replace(node.step, **{name: value})  # type: ignore[type-var]  # steps are dataclasses
    written = dataclasses.replace(node.written, words=(*node.written.words, f"--{name}", *word))
    return dataclasses.replace(plan, nodes=(*plan.nodes[:at], Node(step, written), *plan.nodes[at + 1 :]))
