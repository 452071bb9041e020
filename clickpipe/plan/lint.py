"""Advice on a plan: what each of its steps knows against it, and what only two of them together show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from clickpipe.columns import Columns
from clickpipe.core.advice import settings
from clickpipe.core.guarantee import WHOLE
from clickpipe.core.kept import Kept
from clickpipe.core.lateness import Lateness
from clickpipe.core.lint import Advice, Input, Situation
from clickpipe.core.step import FlowStep, OperatorStep, SinkStep, SourceStep
from clickpipe.core.units import format_duration
from clickpipe.plan.explain import Placed, walk
from clickpipe.plan.parse import located
from clickpipe.plan.plan import Node, Plan


@dataclass(frozen=True)
class Advised:
    node: Node
    advice: Advice


def input_of(plan: Plan) -> Input:
    """What is known of the records before any is read. One that a limit ends is as good as one that ends."""
    sources = [node.step for node in plan.nodes if isinstance(node.step, SourceStep)]
    known = sources[-1].input() if sources else Input()
    is_limited = any(isinstance(node.step, OperatorStep) and node.step.ends for node in plan.nodes)
    return replace(known, ends=known.ends or is_limited)


def advice(plan: Plan, columns: Columns | None, known: Input) -> list[Advised]:
    """In the order of the steps. `plan`: as it was written; `columns`: those of its source, None: not known yet.

    Raises PlanError like a run.
    """
    steps = list(walk(plan, columns))
    found = [Advised(steps[0].node, one) for one in [*_untimed(steps, known), *_disordered(plan, known)]]
    for before, placed in zip([None, *steps], steps, strict=False):
        with located(placed.node.written):
            found += [Advised(placed.node, one) for one in [*_alone(placed, known), *_sooner(before, placed)]]
    return found


def _alone(placed: Placed, known: Input) -> Iterator[Advice]:
    """What a step knows, and what it says of itself shows."""
    yield from placed.node.step.advice(Situation(placed.given, placed.window, known))
    yield from _kept(placed, known)
    yield from _unseen(placed, known)


def _untimed(steps: Sequence[Placed], known: Input) -> Iterator[Advice]:
    """What waits for a watermark that never moves."""
    waiting = [placed.node.written.name for placed in steps if (kept := _keeping(placed)) and kept.is_timed]
    if waiting and not known.ends and not known.has_time:
        what = f"ingest knows no time, so {waiting[0]} lets go of nothing until somebody stops the run"
        yield Advice("no-watermark", what, "ingest --time FIELD")


def _keeping(placed: Placed) -> Kept | None:
    with located(placed.node.written):
        return placed.node.step.keeps(placed.given, placed.window)


def _disordered(plan: Plan, known: Input) -> Iterator[Advice]:
    """What the first records tell of those to come."""
    steps = [(node.step, node.written.name) for node in plan.nodes if isinstance(node.step, FlowStep)]
    judging = [(step.tolerates(), name) for step, name in steps if step.judges_lateness()]
    tolerated, name = min(judging, key=lambda one: one[0], default=(0, ""))
    if name and known.disorder and not known.out_of_orderness and known.disorder.greatest > tolerated:
        yield _out_of_order(known.disorder, name)


def _out_of_order(disorder: Lateness, taker: str) -> Advice:
    """With two settings: one that loses some, and one that loses none."""
    found = [one for one in settings(disorder, 0) if one.delay]
    few, none = found[0], found[-1]
    behind = f"{disorder.disordered:,} of the first {disorder.records:,} records come behind newer ones"
    late = f"by up to {format_duration(none.delay)}: they are late, and lost to {taker} where it has gone on already"
    some = "" if few is none else f"; {format_duration(few.delay)} loses at most {100 * few.loses_at_most:.2g} %"
    remedy = f"ingest --max-out-of-orderness {format_duration(none.delay)} loses none of these{some}"
    return Advice("out-of-order", f"{behind}, {late}", remedy)


def _kept(placed: Placed, known: Input) -> Iterator[Advice]:
    kept = _keeping(placed)
    if kept and kept.grows_with and not known.ends:
        yield Advice("unbounded-state", f"it keeps {kept.what}, for ever: memory grows with {kept.grows_with}", kept.remedy)


def _unseen(placed: Placed, known: Input) -> Iterator[Advice]:
    """A sink that shows all at the end, of input that has none."""
    step = placed.node.step
    if known.ends or known.takes_checkpoints or not isinstance(step, SinkStep):
        return
    if step.guarantee(has_checkpoints=False).level == WHOLE:
        what = "without checkpoints its rows appear at the end of the input, here when somebody stops the run and not before"
        yield Advice("no-checkpoint", what, "ingest --checkpoint 1s, or clickpipe run --checkpoint 1s")


def _sooner(before: Placed | None, placed: Placed) -> Iterator[Advice]:
    """Records that are dropped behind a step that did not need them."""
    step = placed.node.step
    if before is None or before.given is None or placed.given is None:
        return
    if isinstance(step, OperatorStep) and step.chooses and isinstance(before.node.step, OperatorStep):
        reads, name = step.needs(placed.given), before.node.written.name
        if reads and set(reads) <= before.node.step.choosable(before.given):
            what = f"it reads {', '.join(reads)} only, and {name} has worked for all that it drops"
            yield Advice("filter-first", what, f"put it before {name}: the results are the same")


def numbered(found: Sequence[Advised], plan: Plan) -> list[tuple[int, Advised]]:
    """With the number of the step in a plan as it runs; where one is run in two phases, of the second."""
    places = {id(node.written): number for number, node in enumerate(plan.nodes, 1)}
    return [(places[id(one.node.written)], one) for one in found]
