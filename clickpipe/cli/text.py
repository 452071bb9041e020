"""Commands whose help ends with examples, line by line as they were written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from clickpipe.cli.words import FLAG, FORMAT, FORMATS


class Described(click.Command):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.epilog:
            formatter.write_paragraph()
            for line in self.epilog.splitlines():
                formatter.write(f"{line}\n")

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        for line in (self.help or "").strip().splitlines():
            formatter.write(f"  {line}\n" if line else "\n")


def described(name: str, text: str | None, epilog: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a command of a function, with `text` as its help."""
    settings = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}
    made = click.command(name, cls=Described, help=text, epilog=epilog, context_settings=settings)
    return lambda function: log_format(made(function))


def log_format(command: click.Command) -> click.Command:
    """Adds the option for the form of messages, for all commands the same. Nobody is given its value: it was heeded before the
    command line was parsed, see words.heed_format."""
    text = f"the form of messages on standard error  [default ${FORMAT} or text]"
    command.params.append(click.Option([FLAG], type=click.Choice(FORMATS), expose_value=False, help=text))
    return command
