"""A plan, told: what each step does, which columns it has, what it keeps and costs, what is guaranteed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clickpipe.columns import Columns, WindowInfo
from clickpipe.core.guarantee import Guarantee
from clickpipe.core.kept import Kept
from clickpipe.core.step import FlowStep, MergeStep, OperatorStep, PartitionStep, SinkStep, SourceStep, Step
from clickpipe.plan.parse import located
from clickpipe.plan.plan import Node, Plan


@dataclass(frozen=True)
class Told:
    """One step. `number`: its place, from 1; `inside`: the number of the partition whose workers run it.

    `columns` None: known only when the stream comes. `keys`: by which it brings records together; none in the list: all of them;
    None: each is by itself. `window`: in which the records behind it stand, or of which they are the results.
    """

    number: int
    step: str
    words: str
    does: str
    inside: int | None
    reads: list[str]
    columns: dict[str, str] | None
    added: dict[str, str] | None
    dropped: list[str] | None
    keys: list[str] | None
    window: WindowInfo | None
    keeps: Kept | None
    memory: str
    guarantee: Guarantee | None

    @property
    def is_source(self) -> bool:
        """Whether the plan begins with it."""
        return self.number == 1 and self.added is None and self.guarantee is not None


@dataclass(frozen=True)
class Placed:
    """A step with what comes to it. `after`: the columns behind it; None, as `given`: not known yet."""

    node: Node
    given: Columns | None
    after: Columns | None
    window: WindowInfo | None


def walk(plan: Plan, columns: Columns | None) -> Iterator[Placed]:
    """`columns`: those of the source, None where they cannot be known. Raises PlanError like a run."""
    window = None if columns is None else _window(columns)
    for node in plan.nodes:
        step, after = node.step, columns
        with located(node.written):
            if columns is not None and isinstance(step, FlowStep):
                after = step.columns(columns)
        yield Placed(node, columns, after, window)
        window = _assigned(step, window) if after is None else _window(after)
        columns = after


def _window(columns: Columns) -> WindowInfo | None:
    window = columns.window
    return window if window and set(window.columns()) <= set(columns.types) else None


def _assigned(step: Step, window: WindowInfo | None) -> WindowInfo | None:
    """Behind a step whose columns are not known. Where results are made, windows end."""
    if not isinstance(step, OperatorStep):
        return window
    return step.assigns() or (None if step.outcome == "aggregated" else window)


def tell(plan: Plan, columns: Columns | None) -> list[Told]:
    """`columns`: as of `walk`. Raises PlanError."""
    told: list[Told] = []
    inside: int | None = None
    for number, placed in enumerate(walk(plan, columns), 1):
        step = placed.node.step
        inside = None if isinstance(step, MergeStep) else inside
        with located(placed.node.written):
            told.append(_told(plan, number, placed, inside))
        inside = number if isinstance(step, PartitionStep) else inside
    return told


def _told(plan: Plan, number: int, placed: Placed, inside: int | None) -> Told:
    node, given, after = placed.node, placed.given, placed.after
    step = node.step
    is_begin = isinstance(step, SourceStep)
    words = " ".join(node.written.words)
    does = step.describe(given or Columns()) if given is not None or is_begin else ""
    return Told(
        number=number,
        step=node.written.name,
        words=words,
        does=does or words,
        inside=inside,
        reads=list(step.needs(given)) if isinstance(step, FlowStep) and given is not None else [],
        columns=None if after is None else dict(after.types),
        added=None if given is None or after is None or is_begin else _added(given, after),
        dropped=None if given is None or after is None or is_begin else [name for name in given.types if name not in after.types],
        keys=_keys(step, given),
        window=_assigned(step, placed.window) if after is None else after.window or after.results_of,
        keeps=step.keeps(given, placed.window),
        memory=step.memory(),
        guarantee=_guarantee(plan, node),
    )


def _added(given: Columns, after: Columns) -> dict[str, str]:
    """New columns, and those whose type is another."""
    return {name: kind for name, kind in after.types.items() if given.types.get(name) != kind}


def _keys(step: Step, given: Columns | None) -> list[str] | None:
    if given is None or not isinstance(step, OperatorStep):
        return None
    keys = step.groups_by(given)
    return None if keys is None else list(keys)


def _guarantee(plan: Plan, node: Node) -> Guarantee | None:
    """Of the source, and of each sink."""
    if node is plan.nodes[0] and isinstance(node.step, SourceStep):
        return node.step.guarantee()
    return node.step.guarantee(has_checkpoints=plan.takes_checkpoints) if isinstance(node.step, SinkStep) else None


def wanted(plan: Plan, columns: Columns) -> tuple[list[str], bool]:
    """The columns whose values a plan looks at, and whether it takes the text of records beside. Raises PlanError."""
    names: list[str] = []
    is_text = False
    for placed in walk(plan, columns):
        step = placed.node.step
        if not isinstance(step, FlowStep) or placed.given is None:
            continue
        with located(placed.node.written):
            names += step.needs(placed.given)
        is_text |= isinstance(step, SinkStep)
        if not step.passes() and placed.node is not plan.sink:
            return list(dict.fromkeys(names)), is_text
    return list(dict.fromkeys(names)), True


def to_json(told: Sequence[Told], parsed: Sequence[str] | None, said: Mapping[str, Guarantee]) -> dict[str, Any]:
    """`parsed`: columns that are made of the input; None: not known yet."""
    promised = [{"part": part, **asdict(one)} for part, one in said.items()]
    return {"steps": [_object(one) for one in told], "parsed": parsed, "guarantees": promised}


def _object(told: Told) -> dict[str, Any]:
    keeps = {name: getattr(told.keeps, name) for name in ("what", "until", "grows_with")} if told.keeps else None
    return asdict(told) | {"window": told.window.to_json() if told.window else None, "keeps": keeps}
