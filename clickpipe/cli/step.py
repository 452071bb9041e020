"""A step as a command of its own: a plan of one step between standard input and output."""

from __future__ import annotations

import os
import stat
import sys
from typing import Any

import click

from clickpipe.cli.accounts import report
from clickpipe.cli.words import say
from clickpipe.core.step import SinkStep, Step
from clickpipe.errors import ClickpipeError, PlanError
from clickpipe.plan.flags import StepCommand, command, refuse_later
from clickpipe.plan.parse import planned
from clickpipe.plan.plan import Node, Written

CODECS = ("ndjson", "arrow")


class ShellCommand(StepCommand):
    """Refuses options of the design that this version lacks before the parser calls them unknown."""

    step: type[Step]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            refuse_later(self.step, args)
        except PlanError as error:
            raise error.at(self.name or "") from None
        return super().parse_args(ctx, args)


def step_command(name: str) -> click.Command:
    from clickpipe.plan.flags import STEPS

    plain = command(name)
    step = STEPS.find(name, Step)
    say = plain.callback
    assert say is not None
    is_sink = issubclass(step, SinkStep)

    def act(codec: str | None = None, quiet: bool = False, **values: Any) -> None:
        try:
            step = say(**values)
        except ClickpipeError as error:
            raise error.at(name) from None
        if codec and isinstance(step, SinkStep) and not step.is_middle():
            raise PlanError("--codec is for a sink that passes records on: --pass", word="--codec").at(name)
        run_step(name, step, codec or os.environ.get("CLICKPIPE_CODEC") or "ndjson", quiet)

    shell = ShellCommand(
        name,
        params=[*plain.params, *([_PASSED_CODEC, _QUIET] if is_sink else [_CODEC])],
        callback=act,
        help=plain.help,
        epilog=plain.epilog,
        context_settings=plain.context_settings,
    )
    shell.step = step
    return shell


def _codec(when: str = "") -> click.Option:
    text = f"{when}how records travel to the next step  [default $CLICKPIPE_CODEC or ndjson]"
    return click.Option(["--codec"], type=click.Choice(CODECS), default=None, help=text)


_CODEC, _PASSED_CODEC = _codec(), _codec("with --pass: ")
_QUIET = click.Option(["--quiet", "-q"], is_flag=True, default=False, help="do not print the accounts at the end")


def run_step(name: str, step: Step, codec: str, quiet: bool) -> None:
    from clickpipe.engine.limits import share_the_cores
    from clickpipe.engine.local import run

    if _has_neighbours():
        share_the_cores(2)
    if codec not in CODECS:
        raise PlanError(f'CLICKPIPE_CODEC is "{codec}"; it can be ndjson or arrow')
    try:
        plan = planned([Node(step, Written(name, ()))])
        outcome = run(plan, say, arrow=codec == "arrow" and not sys.stdout.isatty())
    except ClickpipeError as error:
        if not error.where or error.where[0] != name:
            error.at(name)
        raise
    if not quiet:
        report(outcome)


def _has_neighbours() -> bool:
    """Whether it is a step of a shell pipeline."""
    return stat.S_ISFIFO(os.fstat(0).st_mode) or stat.S_ISFIFO(os.fstat(1).st_mode)
