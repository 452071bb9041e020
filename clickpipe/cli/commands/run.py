"""Run a recipe, or a pipeline given with -c.

All steps run in one process and hand each other columns; --no-fuse gives each step a process of its
own, joined by pipes, with the same results.
"""

from __future__ import annotations

import dataclasses
import os

import click

from clickpipe.cli.accounts import report
from clickpipe.cli.step import CODECS
from clickpipe.cli.text import described
from clickpipe.cli.words import say
from clickpipe.errors import PlanError, Unsupported
from clickpipe.operators.sink import Sink
from clickpipe.plan.parse import parse
from clickpipe.plan.plan import Node, Plan
from clickpipe.plan.recipe import fill_in, read_recipe

_EPILOG = """\
Examples:
  clickpipe run recipes/trending.toml --format table
  clickpipe run -c 'ingest sample_data/clicks.ndjson.zst | select event_id page country | limit 2 | sink -'
  clickpipe run recipes/trending.toml --set window=1d --format table"""


@described("run", __doc__, _EPILOG)
@click.argument("recipes", nargs=-1, metavar="[RECIPE]", help="a pipeline in a TOML file")
@click.option("-c", "pipeline", metavar="PIPELINE", help="run this pipeline instead of a recipe")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="fill in ${NAME} in the pipeline")
@click.option("--format", "form", type=click.Choice(["ndjson", "csv", "table"]), help="how a sink on standard output writes")
@click.option("--no-fuse", is_flag=True, help="one process per step")
@click.option("--codec", type=click.Choice(CODECS), help="with --no-fuse: how records travel between steps")
@click.option("--quiet", "-q", is_flag=True, help="do not print the accounts at the end")
def command(
    recipes: tuple[str, ...],
    pipeline: str | None,
    values: tuple[str, ...],
    form: str | None,
    no_fuse: bool,
    codec: str | None,
    quiet: bool,
) -> int:
    plan = formatted(read_plan(recipes, pipeline, values), form)
    codec = codec or os.environ.get("CLICKPIPE_CODEC") or "ndjson"
    if codec not in CODECS:
        raise PlanError(f'CLICKPIPE_CODEC is "{codec}"; it can be ndjson or arrow')
    if no_fuse:
        from clickpipe.engine.processes import run_processes

        return run_processes(plan, codec, quiet)
    from clickpipe.engine.local import run

    outcome = run(plan, say, arrow=codec == "arrow")
    if not quiet:
        report(outcome)
    return 0


def read_plan(recipes: tuple[str, ...], pipeline: str | None, values: tuple[str, ...]) -> Plan:
    """The plan that the words name. Raises PlanError."""
    filled = dict(_named(value) for value in values)
    if pipeline is not None:
        if recipes:
            raise PlanError("a recipe or -c PIPELINE, not both")
        return parse(fill_in(pipeline, {}, filled, "-c"))
    if not recipes:
        raise PlanError("no recipe", hint="clickpipe run recipes/trending.toml, or -c 'ingest … | … | sink -'")
    if len(recipes) > 1:
        raise Unsupported("notimpl", "several recipes at once", "that takes the supervisor, which is not in this version")
    recipe = read_recipe(recipes[0], filled)
    return parse(recipe.pipeline, name=recipe.name, origin=recipe.path, first_line=recipe.first_line)


def formatted(plan: Plan, form: str | None) -> Plan:
    """The plan with the form that a person wants on standard output."""
    node = plan.sink
    if form is None:
        return plan
    if node is None or not isinstance(node.step, Sink) or node.step.destination != "-":
        raise PlanError("--format is for a pipeline that ends in sink -")
    step = dataclasses.replace(node.step, format=form)
    written = dataclasses.replace(node.written, words=(*node.written.words, "--format", form))
    return dataclasses.replace(plan, nodes=(*plan.nodes[:-1], Node(step, written)))


def _named(value: str) -> tuple[str, str]:
    name, equals, rest = value.partition("=")
    if not equals or not name.isidentifier():
        raise PlanError(f'--set "{value}" is not NAME=VALUE', word=value)
    return name, rest
