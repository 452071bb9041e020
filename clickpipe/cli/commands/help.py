"""Show help; with --man, a manual page.

Without NAME: the overview. The page that --man prints is roff, made from the same text as --help:
read it with `clickpipe help --man window | man -l -`.
"""

from __future__ import annotations

import click

from clickpipe.cli import catalog
from clickpipe.cli.man import page
from clickpipe.errors import PlanError, near
from clickpipe.plan.flags import StepCommand

_PROGRAM = "clickpipe"
_EPILOG = """\
Examples:
  clickpipe help window
  clickpipe help --man clickpipe
  clickpipe help --man window"""


@click.command(
    "help",
    cls=StepCommand,
    help=__doc__,
    epilog=_EPILOG,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@click.argument("name", required=False, default=_PROGRAM, metavar="[NAME]")
@click.option("--man", is_flag=True, help="print the manual page, in roff")
@click.pass_context
def command(ctx: click.Context, name: str, man: bool) -> None:
    about = _context(ctx.find_root(), name)
    click.echo(page(about) if man else about.get_help())


def _context(root: click.Context, name: str) -> click.Context:
    """The context in which a command would say its own help. Raises PlanError."""
    if name == _PROGRAM:
        return root
    found = catalog.find(name)
    if found is None:
        raise PlanError(f'no command "{name}"', hint=near(name, catalog.names()), notes=["clickpipe --help lists them"])
    return click.Context(found, parent=root, info_name=name, **found.context_settings)
