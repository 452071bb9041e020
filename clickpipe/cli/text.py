"""Commands whose help ends with examples, line by line as they were written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


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
    return click.command(name, cls=Described, help=text, epilog=epilog, context_settings=settings)
