"""The columns that a step is given, as the rest of the line says: the head of the input is read, as ingest does it, and each step
before says what it makes of them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence

import click

from clickpipe.cli import catalog
from clickpipe.cli.begun import begun
from clickpipe.cli.completing.typed import Typed
from clickpipe.core.option import options
from clickpipe.core.step import FlowStep, SourceStep, Step
from clickpipe.operators.ingest import Ingest
from clickpipe.plan.flags import STEPS, command
from clickpipe.plan.plan import Node, Plan, Written


def columns_at(ctx: click.Context) -> list[str]:
    """At the cursor; none where they cannot be told. Raises whatever is wrong with the line."""
    line: Typed = ctx.obj
    if ctx.info_name == "why":
        return _of_pipeline(line.words[1])
    is_source = bool(line.words) and line.words[0] == "ingest"
    steps = [_said(_whole(line.words))] if is_source else list(_steps(line.before))
    return _after(steps)


def _of_pipeline(name: str) -> list[str]:
    """Of the input of one that has saved its state."""
    from clickpipe.cli import pipelines
    from clickpipe.engine.rebuilt import rebuilt

    found = begun(rebuilt(pipelines.opened(name)).plan)[0]
    return [] if found is None else list(found.types)


def _after(steps: Sequence[Step]) -> list[str]:
    plan = Plan(tuple(Node(step, Written("", ())) for step in steps))
    columns = begun(plan)[0] if steps else None
    for step in steps[1:] if columns else ():
        if columns and isinstance(step, FlowStep):
            columns = step.columns(columns)
    return [name for name in columns.types if not name.startswith("_")] if columns else []


def _steps(before: Sequence[Sequence[str]]) -> Iterator[Step]:
    """Those that stand before, as far as they are ours. A file that another program begins with is what the first one reads."""
    file = ""
    is_first = True
    for words in before:
        if not words or words[0] not in catalog.step_names():
            file = file or next(filter(os.path.isfile, words[1:]), "")
            continue
        step = _said(words)
        if is_first and file:
            yield dataclasses.replace(step, source=(file,)) if isinstance(step, Ingest) else Ingest((file,))
        if not (is_first and file and isinstance(step, SourceStep)):
            yield step
        is_first = False
    if is_first and file:
        yield Ingest((file,))


def _said(words: Sequence[str]) -> Step:
    """The step that these words say in a shell. Raises whatever is wrong with them."""
    name, *rest = words
    found, plain = catalog.find(name), command(name)
    assert found is not None
    assert plain.callback is not None
    own = {option.name for option in options(STEPS.find(name, Step))}
    with found.make_context(name, rest, resilient_parsing=True) as context:
        given = {key: value for key, value in context.params.items() if key in own and value not in (None, ())}
    step = plain.callback(**given)
    assert isinstance(step, Step)
    return step


def _whole(words: Sequence[str]) -> Sequence[str]:
    """Without the option whose value is being typed."""
    return words[:-1] if len(words) > 1 and words[-1].startswith("-") else words
