"""The program's side of a TAB: what the environment asks is answered on standard output, and nothing is ever said."""

from __future__ import annotations

import sys

import click

from clickpipe.cli.completing.shells import SHELLS, VARIABLE


def answer(program: click.Command, asked: str) -> int:
    """The exit code. `asked`: bash_complete, as the script of the shell says it, or bash_source for the script."""
    name, _, what = asked.partition("_")
    if name not in SHELLS or what not in ("complete", "source"):
        return 2
    shell = SHELLS[name](program, {}, "clickpipe", VARIABLE)
    try:
        text = shell.source() if what == "source" else shell.complete()
    except BaseException:  # a half typed line may be anything, and so may what it names
        return 1
    sys.stdout.write(text)
    return 0
