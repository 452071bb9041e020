"""What is offered for the options of steps: their descriptions say what kind of value each takes, by its metavar."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

import click

from clickpipe.cli.completing import places, values
from clickpipe.cli.completing.offering import Completer

if TYPE_CHECKING:
    from clickpipe.cli.completing.shells import Item

_BY_METAVAR: dict[str, Completer] = {
    "SOURCE": places.sources,
    "DEST": places.sinks,
    "KIND": values.kinds,
    "FILE": places.files,
    "FIELD": values.column,
    "COL": values.column,
    "COL,…": values.columns,
    "EXPR": values.column,
    "SET": values.columns,
    "ADDRESS": places.sockets,
    "ZONE": values.zones,
    "TIME_ZONE": values.zones,
    "FORMAT": values.formats,
    "log:NAME": places.spools,
}
_CALLS = {"aggregate": "clickpipe.aggregates", "sketch": "clickpipe.sketches"}
_MANY = re.compile(r"\[(.*)\](?:\.\.\.|…)?")  # of arguments


def complete_values(step: str, params: Iterable[click.Parameter]) -> None:
    """From here on each knows what to offer for its value."""
    for param in params:
        metavar = _MANY.sub(r"\1", param.metavar or "")
        found = _completer(step, metavar)
        if found and not isinstance(param.type, click.Choice):
            setattr(param, "shell_complete", partial(_completed, found, param))  # noqa: B010  # as its argument of that name does


def _completer(step: str, metavar: str) -> Completer | None:
    if metavar == "NAME=EXPR":
        return values.calls(_CALLS[step])
    return _BY_METAVAR.get(metavar.split("|")[0]) or values.alternatives(metavar)


def _completed(found: Completer, param: click.Parameter, ctx: click.Context, incomplete: str) -> list[Item]:
    return found(ctx, param, incomplete)
