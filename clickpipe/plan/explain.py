"""A plan, told: what each step does, which columns it has, what it costs, what is guaranteed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from clickpipe.columns import Columns
from clickpipe.core.guarantee import Guarantee
from clickpipe.core.step import FlowStep
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


def to_json(told: list[Told], said: Mapping[str, Guarantee]) -> dict[str, Any]:
    promised = [{"part": part, **asdict(one)} for part, one in said.items()]
    return {"steps": [asdict(one) for one in told], "guarantees": promised}
