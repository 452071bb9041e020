"""Which pipelines a command is for, as its words say: recipes, or one with -c."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click

from clickpipe.cli.completing.places import recipes
from clickpipe.cli.completing.values import variables
from clickpipe.cli.words import speak_of
from clickpipe.errors import ClickpipeError, PlanError
from clickpipe.plan.parse import parse
from clickpipe.plan.plan import Plan
from clickpipe.plan.recipe import fill_in, read_recipe

takes_values = click.option(
    "--set",
    "values",
    multiple=True,
    metavar="NAME=VALUE",
    help="fill in ${NAME} in the pipeline",
    shell_complete=variables,
)


def takes_one(command: Callable[..., Any]) -> Callable[..., Any]:
    """The words of a command that computes a recipe again, for `read_plan`."""
    pipeline = click.option("-c", "pipeline", metavar="PIPELINE", help="a pipeline, as in a shell, instead of a recipe")
    return click.argument("recipe", default="", metavar="[RECIPE]", help="a recipe", shell_complete=recipes)(
        pipeline(takes_values(command))
    )


def read_plan(recipe: str, pipeline: str | None, values: tuple[str, ...]) -> Plan:
    """The plan that the words name. Raises PlanError."""
    (plan,) = read_plans((recipe,) if recipe else (), pipeline, values)
    return plan


def read_plans(recipes: tuple[str, ...], pipeline: str | None, values: tuple[str, ...]) -> list[Plan]:
    """As `read_plan`, of one recipe or several."""
    plans = _read_all(recipes, pipeline, values)
    if len(plans) == 1:
        introduce(plans[0])
    return plans


def _read_all(recipes: tuple[str, ...], pipeline: str | None, values: tuple[str, ...]) -> list[Plan]:
    filled = dict(_named(value) for value in values)
    if pipeline is not None:
        if recipes:
            raise PlanError("a recipe or -c PIPELINE, not both")
        return [parse(fill_in(pipeline, {}, filled, "-c"))]
    if not recipes:
        raise PlanError("no recipe", hint="clickpipe run recipes/trending.toml, or -c 'ingest … | … | sink -'")
    return [_read(path, filled) for path in recipes]


def introduce(plan: Plan) -> None:
    """Messages are about its pipeline from here on, as far as its name can be told."""
    from clickpipe.operators.ingest import Ingest

    with suppress(ClickpipeError, OSError):  # what is wrong with its source is said when it is opened
        for node in plan.nodes:
            if isinstance(node.step, Ingest):
                speak_of(node.step.pipeline(plan.name))


def _read(path: str, filled: dict[str, str]) -> Plan:
    recipe = read_recipe(path, filled)
    return parse(recipe.pipeline, name=recipe.name, origin=recipe.path, first_line=recipe.first_line)


def _named(value: str) -> tuple[str, str]:
    name, equals, rest = value.partition("=")
    if not equals or not name.isidentifier():
        raise PlanError(f'--set "{value}" is not NAME=VALUE', word=value)
    return name, rest
