"""A step as a command of its own: a plan of one step between standard input and output."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Collection, Mapping
from typing import Any

import click

from clickpipe.cli.completing.steps import complete_values
from clickpipe.cli.sockets import SECURITY, SocketOption, Sockets, end_options, opened, said_of_sockets, several_sources
from clickpipe.cli.text import log_format
from clickpipe.cli.words import say, speak_of
from clickpipe.core.source import is_shared
from clickpipe.core.step import MergeStep, PartitionStep, RawStep, SinkStep, SourceStep, Step
from clickpipe.errors import ClickpipeError, PlanError
from clickpipe.plan.flags import StepCommand, command, refuse_later
from clickpipe.plan.parse import planned
from clickpipe.plan.plan import Node, Plan, Written

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

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Those of sockets in a section of their own."""
        named = [param for param in self.get_params(ctx) if not isinstance(param, click.Argument)]
        records = [(param, param.get_help_record(ctx)) for param in named]
        for title, is_of_sockets in (("Options", False), ("Streams over sockets", True)):
            rows = [record for param, record in records if record and isinstance(param, SocketOption) == is_of_sockets]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def step_command(name: str) -> click.Command:
    from clickpipe.plan.flags import STEPS

    plain = command(name)
    step = STEPS.find(name, Step)
    say = plain.callback
    assert say is not None
    is_sink = issubclass(step, SinkStep)
    own = {str(param.name) for param in plain.params}
    ends = [param for param in _ends(step) if param.name not in own]

    def act(codec: str | None = None, quiet: bool = False, **values: Any) -> None:
        of_streams, of_step = _dealt(values, own)
        try:
            sockets, step = said_of_sockets(of_streams), say(**of_step)
        except ClickpipeError as error:
            raise error.at(name) from None
        if isinstance(step, SinkStep) and not step.is_middle():
            _refuse_output(name, codec, sockets)
        run_step(name, step, codec_of(codec, "arrow" if sockets.to else "ndjson"), quiet, sockets)

    shell = ShellCommand(
        name,
        params=[*plain.params, *([_PASSED_CODEC, _QUIET] if is_sink else [_CODEC]), *ends],
        callback=act,
        help=plain.help,
        epilog=plain.epilog,
        context_settings=plain.context_settings,
    )
    shell.step = step
    complete_values(name, shell.params)
    log_format(shell)
    return shell


def _ends(step: type[Step]) -> list[click.Parameter]:
    """Options for the ends of its stream. What `generate` makes is none yet."""
    if issubclass(step, RawStep):
        return []
    if issubclass(step, MergeStep):
        return [several_sources(), *end_options(reads=False, writes=True)]
    return [*end_options(reads=not issubclass(step, SourceStep), writes=True, divides=issubclass(step, PartitionStep))]


def _plan(node: Node, sockets: Sockets) -> Plan:
    """Raises PlanError. Steps that divide among other machines, or merge what comes from there, stand for themselves."""
    step = node.step
    if isinstance(step, MergeStep) and sockets.from_:
        return Plan((node,))
    if isinstance(step, PartitionStep) and sockets.to:
        if step.steps is not None:
            hint = "the workers are told: clickpipe serve --listen ADDRESS 'STEPS'"
            raise PlanError("--to divides among workers that have steps of their own", hint=hint, word="--to")
        if step.is_auto or step.workers not in (type(step).workers, len(sockets.to)):
            said = "auto" if step.is_auto else step.workers
            raise PlanError(f"--workers {said}, and --to has {len(sockets.to)} addresses", word="--workers")
        return Plan((node,))
    return planned([node])


def _dealt(values: Mapping[str, Any], own: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the stream's sockets, and the step's `own`.

    It may have some of the same, for its clients: with --to they are the stream's, and the step's too if it has clients.
    """
    has_clients = any(map(is_shared, values.get("source", ())))
    of_streams = {name: value for name, value in values.items() if name not in own or (values.get("to") and name in SECURITY)}
    of_step = {name: values[name] for name in own if name not in of_streams or has_clients}
    return of_streams, of_step


def _refuse_output(name: str, codec: str | None, sockets: Sockets) -> None:
    for flag, value in (("--codec", codec), ("--to", sockets.to)):
        if value:
            raise PlanError(f"{flag} is for a sink that passes records on: --pass", word=flag).at(name)


def codec_of(said: str | None, default: str) -> str:
    """How records travel. Raises PlanError."""
    codec = said or os.environ.get("CLICKPIPE_CODEC") or default
    if codec not in CODECS:
        raise PlanError(f'CLICKPIPE_CODEC is "{codec}"; it can be ndjson or arrow')
    return codec


def _codec(when: str = "") -> click.Option:
    text = f"{when}how records travel to the next step  [default $CLICKPIPE_CODEC or ndjson]"
    return click.Option(["--codec"], type=click.Choice(CODECS), default=None, help=text)


_CODEC, _PASSED_CODEC = _codec(), _codec("with --pass: ")
_QUIET = click.Option(["--quiet", "-q"], is_flag=True, default=False, help="do not print the accounts at the end")


def run_step(name: str, step: Step, codec: str, quiet: bool, sockets: Sockets) -> None:
    from clickpipe.cli.accounts import report
    from clickpipe.cli.recipes import introduce
    from clickpipe.engine.limits import share_the_cores
    from clickpipe.engine.local import run

    if _has_neighbours():
        share_the_cores(2)
    try:
        plan = _plan(Node(step, Written(name, ())), sockets)
        introduce(plan)
        with opened(sockets) as links:
            arrow = codec == "arrow" and (bool(links.written) or not sys.stdout.isatty())
            outcome = run(plan, say, arrow=arrow, links=links, begun=speak_of)
    except ClickpipeError as error:
        if not error.where or error.where[0] != name:
            error.at(name)
        raise
    if not quiet:
        report(outcome)


def _has_neighbours() -> bool:
    """Whether it is a step of a shell pipeline."""
    return stat.S_ISFIFO(os.fstat(0).st_mode) or stat.S_ISFIFO(os.fstat(1).st_mode)
