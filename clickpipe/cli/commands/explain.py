"""Show what a recipe or pipeline would do, step by step.

For each step: what it does, the columns after it, the columns whose values it looks at, and the
memory it takes; then what may be relied on if the run dies. Files are looked into to learn their
columns. Nothing is run and nothing is written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict

import click
import orjson

from clickpipe.cli.commands.run import read_plan
from clickpipe.columns import Columns
from clickpipe.core.operator import Feed
from clickpipe.core.step import RawStep
from clickpipe.engine.feeds import ProducedSplit
from clickpipe.engine.local import ErrorLimit
from clickpipe.errors import DataError, PlanError
from clickpipe.operators.ingest import Ingest, IngestFeed
from clickpipe.plan.explain import Explained, Explanation, explain
from clickpipe.plan.flags import StepCommand
from clickpipe.plan.parse import locate
from clickpipe.plan.plan import Plan

_EPILOG = """\
Examples:
  clickpipe explain recipes/trending.toml
  clickpipe explain recipes/trending.toml --set window=1d --json
  clickpipe explain -c "ingest sample_data/clicks.ndjson.zst | filter \\"country = 'DE'\\" | sink -\""""


@click.command(
    "explain",
    cls=StepCommand,
    help=__doc__,
    epilog=_EPILOG,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@click.argument("recipes", nargs=-1, metavar="[RECIPE]")
@click.option("-c", "pipeline", metavar="PIPELINE", help="explain this pipeline instead of a recipe")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="fill in ${NAME} in the pipeline")
@click.option("--json", "as_json", is_flag=True, help="one JSON object, for programs")
def command(recipes: tuple[str, ...], pipeline: str | None, values: tuple[str, ...], as_json: bool) -> None:
    plan = read_plan(recipes, pipeline, values)
    explanation = explain(plan, _columns(plan))
    _check_limit(plan)
    click.echo(orjson.dumps(asdict(explanation)).decode() if as_json else rendered(explanation))


def _columns(plan: Plan) -> Columns | None:
    """The columns that the source gives; None for one that would lose what is read from it now."""
    node = plan.source
    if node is None:
        return None
    try:
        feed = _feed(plan)
        if feed is None:
            return None
        with closing(feed):
            return feed.columns
    except (PlanError, DataError) as error:
        raise locate(error, node.written) from None


def _feed(plan: Plan) -> Feed | None:
    first = plan.nodes[0].step
    if isinstance(first, Ingest):
        return None if any(map(_is_live, first.source)) else first.open()
    if isinstance(first, RawStep) and len(plan.nodes) > 1 and isinstance(second := plan.nodes[1].step, Ingest):
        return IngestFeed(second, [ProducedSplit(first.raw())])
    return None


def _is_live(address: str) -> bool:
    """Whether looking takes away: standard input, a named pipe."""
    return address == "-" or (os.path.exists(address) and stat.S_ISFIFO(os.stat(address).st_mode))


def _check_limit(plan: Plan) -> None:
    """Raises what a run would raise for --max-errors."""
    for node in plan.nodes:
        if isinstance(node.step, Ingest):
            ErrorLimit(node.step.max_errors)


def rendered(explanation: Explanation) -> str:
    """For people."""
    known = any(step.columns is not None for step in explanation.steps)
    blocks = [_block(number, step) for number, step in enumerate(explanation.steps, 1)]
    ends = [] if known else ["columns  known only when it runs: the records come from standard input"]
    ends += [f"source   {explanation.source}", f"sink     {explanation.sink}"]
    return "\n\n".join([*blocks, "\n".join(ends)])


def _block(number: int, step: Explained) -> str:
    lines = [f"{number}  {step.step}  {step.does}".rstrip()]
    if step.columns is not None:
        lines.append(f"   gives   {_spoken(step.columns)}")
    if step.needs:
        lines.append(f"   needs   {', '.join(step.needs)}")
    return "\n".join([*lines, f"   memory  {step.memory}"])


def _spoken(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items()) or "no columns"
