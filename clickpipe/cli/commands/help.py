"""Show help; with --man, a manual page."""

from __future__ import annotations

import os
import sys

import click

from clickpipe.cli import catalog
from clickpipe.cli.completing import values
from clickpipe.cli.man import page
from clickpipe.cli.text import described
from clickpipe.errors import PlanError, failed_call, near

_EPILOG = """\
Examples:
  clickpipe help window
  clickpipe help --man window | man -l -"""


@described("help", __doc__, _EPILOG)
@click.argument(
    "name", default="clickpipe", metavar="[NAME]", help="a command; without one, the overview", shell_complete=values.commands
)
@click.option("--man", "as_man", is_flag=True, help="the manual page, in roff")
@click.option("--man-pages", "folder", metavar="FOLDER", help="write the manual pages of all commands to a folder")
@click.pass_context
def command(ctx: click.Context, name: str, as_man: bool, folder: str | None) -> None:
    if folder is not None:
        _write_all(ctx, folder)
        return
    found = _find(ctx, name)
    if as_man:
        sys.stdout.write(page(name, found))
        return
    path = "clickpipe" if name == "clickpipe" else f"clickpipe {name}"
    with click.Context(found, info_name=path, max_content_width=100) as context:
        click.echo(found.get_help(context))


def _find(ctx: click.Context, name: str) -> click.Command:
    if name == "clickpipe":
        return ctx.find_root().command
    found = catalog.find(name)
    if found is None:
        raise PlanError(f'no command "{name}"', hint=near(name, catalog.names()), notes=["clickpipe --help lists them"])
    return found


def _write_all(ctx: click.Context, folder: str) -> None:
    for name in ["clickpipe", *catalog.names()]:
        title = name if name == "clickpipe" else f"clickpipe-{name}"
        path = os.path.join(folder, f"{title}.1")
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(page(name, _find(ctx, name)))
        except OSError as error:
            raise failed_call(path, error) from None
