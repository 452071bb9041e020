"""Print the script that completes commands, options, names and columns when TAB is pressed.

    bash    eval "$(clickpipe completion bash)"        in ~/.bashrc
    zsh     eval "$(clickpipe completion zsh)"         in ~/.zshrc, behind compinit
    fish    clickpipe completion fish | source         in ~/.config/fish/config.fish

It completes commands and their options, choices, recipes, files, addresses (log: view: archive:) with the names that there are,
names of pipelines and savepoints, functions behind NAME=, and columns: those of the file that the pipeline on the line begins
with, as the steps between make them (bash shows a completion the command at the cursor only, so there they are known of ingest).
What cannot be found within half a second is not offered.
"""

from __future__ import annotations

import sys

import click

from clickpipe.cli.completing.shells import SHELLS, VARIABLE
from clickpipe.cli.text import described

_EPILOG = """\
Examples:
  eval "$(clickpipe completion bash)" && complete -p clickpipe
  clickpipe completion zsh > /tmp/_clickpipe && head -1 /tmp/_clickpipe"""


@described("completion", __doc__, _EPILOG)
@click.argument("shell", type=click.Choice(list(SHELLS)), metavar="|".join(SHELLS), help="which shell")
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    sys.stdout.write(SHELLS[shell](ctx.find_root().command, {}, "clickpipe", VARIABLE).source())
