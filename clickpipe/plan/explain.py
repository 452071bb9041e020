"""A plan, told: what each step does, which columns it has, what it costs, what is guaranteed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from clickpipe.columns import Columns
from clickpipe.core.step import FlowStep, SinkStep
from clickpipe.errors import ClickpipeError
from clickpipe.plan.parse import locate
from clickpipe.plan.plan import Plan


@dataclass(frozen=True)
class Told:
    """One step. `columns` None: known only when the stream comes."""

    step: str
    does: str
    reads: list[str]
    columns: dict[str, str] | None
    memory: str


def tell(plan: Plan, columns: Columns | None) -> list[Told]:
    """`columns` are those of the source, None where they cannot be known. Raises PlanError like a run."""
    told = []
    for node in plan.nodes:
        step = node.step
        reads: tuple[str, ...] = ()
        try:
            if columns is not None and isinstance(step, FlowStep) and node is not plan.sink:
                reads, before = step.needs(columns), columns
                columns = step.columns(columns)
                does = step.describe(before)
            else:
                does = step.describe(columns) if columns is not None else " ".join(node.written.words)
        except ClickpipeError as error:
            raise locate(error, node.written) from None
        types = None if columns is None else dict(columns.types)
        told.append(Told(node.written.name, does, list(reads), types, step.memory()))
    return told


def guarantees(plan: Plan, *, is_live: bool) -> list[str]:
    """What a reader of the results may rely on, and why it is not more."""
    said = []
    has_checkpoints = any(getattr(node.step, "checkpoint", None) for node in plan.nodes)
    if is_live:
        said.append("source: standard input cannot be replayed: at most once")
    elif any(getattr(node.step, "follow", False) for node in plan.nodes):
        said.append(_of_followed(has_checkpoints=has_checkpoints))
    elif has_checkpoints:
        said.append("source: files are read again from the position of the last checkpoint: exactly once")
    else:
        said.append("source: files can be read again; without --checkpoint a run that died starts from the beginning")
    for node in plan.nodes:
        if isinstance(node.step, SinkStep):
            name = "sink" if node is plan.sink else f"sink {' '.join(node.written.words)}"
            said.append(f"{name}: {node.step.guarantee(has_checkpoints=has_checkpoints)}")
    if plan.sink is None:
        said.append("sink: none: the stream goes to standard output, its end said by a signal")
    return said


def _of_followed(*, has_checkpoints: bool) -> str:
    if not has_checkpoints:
        return "source: files are followed; without --checkpoint a run that died starts from the beginning of what is there"
    return (
        "source: files are read on from the position of the last checkpoint: exactly once, as long as a rotated file stays "
        "unpacked in its directory until it has been read; what is written between copying and truncating may be lost"
    )


def to_json(told: list[Told], said: list[str]) -> dict[str, Any]:
    return {"steps": [asdict(one) for one in told], "guarantees": said}
