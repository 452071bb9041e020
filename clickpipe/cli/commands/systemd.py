"""Write the unit of a recipe that runs as a service of systemd.

The unit is printed, or with --output written to a folder, where a file that this command has not written is left alone. It runs
the recipe as a user of its own that can read its input and write to its state, and to nothing else; says that it is ready when
the pipeline has gone on from its last checkpoint and reads; is killed and started again when it stands still; stops after a
last checkpoint with windows left open; and is not started again where that would not help (exit codes 2, 64, 65, 78).

With --timer it is started now and then instead: it takes what is there by then, and ends (run --until now). State lives in
/var/lib/clickpipe/NAME: CLICKPIPE_HOME=/var/lib/clickpipe/NAME clickpipe status shows it. With --user it is a unit of yours, and
state is where yours is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import click

from clickpipe.cli.adjusted import taken_until
from clickpipe.cli.begun import check
from clickpipe.cli.needs import Needs, groups_of, needs_of
from clickpipe.cli.recipes import read_plan, takes_values
from clickpipe.cli.supervised import name_of
from clickpipe.cli.text import described
from clickpipe.cli.unit import MARK, Unit, path, service, timer
from clickpipe.cli.words import say
from clickpipe.errors import PlanError
from clickpipe.plan.plan import Plan
from clickpipe.state.files import write_fleeting
from clickpipe.state.home import is_name

_CALENDAR = re.compile(r"[A-Za-z0-9*:/.,~+_ -]{1,200}")
_MEMORY = re.compile(r"[1-9][0-9]{0,8}[KMGT]")
_EPILOG = """\
Examples:
  clickpipe systemd recipes/live.toml
  clickpipe systemd recipes/live.toml --timer '*:0/5' --memory 512M --set log=/var/log/nginx/access.log
  clickpipe systemd recipes/live.toml --user --output /tmp && grep ExecStart /tmp/clickpipe-live.service"""


@described("systemd", __doc__, _EPILOG)
@click.argument("recipe", metavar="RECIPE", help="a pipeline in a TOML file")
@click.option("--name", metavar="NAME", help="of the service: clickpipe-NAME; by default the pipeline's")
@click.option("--user", is_flag=True, help="a unit of your own, for systemctl --user")
@click.option("--timer", "calendar", metavar="WHEN", help="run it then, and no longer than it takes  [e.g. '*:0/5']")
@click.option("--output", type=click.Path(), metavar="DIR", help="write files there, instead of printing them")
@click.option("--force", is_flag=True, help="with --output: replace files that were not written by this command")
@click.option("--memory", metavar="SIZE", default="2G", help="it is killed beyond that, and slowed down before  [default 2G]")
@takes_values
def command(
    recipe: str,
    name: str | None,
    user: bool,
    calendar: str | None,
    output: str | None,
    force: bool,
    memory: str,
    values: tuple[str, ...],
) -> None:
    plan = read_plan(recipe, None, values)
    plan = taken_until(plan, "now", drain=False) if calendar else plan
    needs = needs_of(plan, recipe)
    check(plan)
    name = name or name_of(plan)
    _check(name, memory, calendar)
    unit = _unit(name, recipe, values, needs, memory=memory, is_of_user=user, is_periodic=calendar is not None)
    files = {f"clickpipe-{name}.service": service(unit)}
    if calendar:
        files[f"clickpipe-{name}.timer"] = timer(unit, calendar)
    if output is None:
        sys.stdout.write("\n".join(f"# {one}\n{text}" for one, text in files.items()))
    else:
        _write(output, files, is_forced=force)
    _advise(plan, unit, needs, list(files)[-1] if output else "")


def _check(name: str, memory: str, calendar: str | None) -> None:
    if not is_name(name):
        raise PlanError(f"a service cannot be called {name!r}", hint="letters, digits, . _ and -", word=name)
    if not _MEMORY.fullmatch(memory):
        raise PlanError(f'--memory "{memory}" is not a size; sizes look like 512M, 2G', word=memory)
    if calendar is None:
        return
    if not _CALENDAR.fullmatch(calendar) or not calendar.strip() or not _is_calendar(calendar):
        hint = "'*:0/5' is every five minutes, hourly, daily; see systemd.time(7)"
        raise PlanError(f"--timer {calendar!r} is no time that systemd knows", hint=hint, word=calendar)


def _is_calendar(text: str) -> bool:
    """As systemd says, where it is here."""
    tool = shutil.which("systemd-analyze")
    return tool is None or not subprocess.run([tool, "calendar", "--", text], capture_output=True, check=False).returncode


def _unit(
    name: str, recipe: str, values: tuple[str, ...], needs: Needs, *, memory: str, is_of_user: bool, is_periodic: bool
) -> Unit:
    more = (["--until", "now"] if is_periodic else []) + [f"--set={value}" for value in values]
    reads = [one for one in needs.hidden({*needs.reads, *needs.writes}) if one not in needs.writes]
    writes = needs.hidden(needs.writes)
    homes = [one for one in (*reads, *writes) if not one.startswith(("/tmp", "/var/tmp"))]  # no file of ours
    return Unit(
        name,
        [*_program(), "run", *more, "--", os.path.abspath(recipe)],
        os.getcwd() if needs.is_relative else "/",
        memory,
        is_periodic,
        is_of_user,
        home=os.environ.get("CLICKPIPE_HOME") if is_of_user else "state",
        has_network=needs.has_network,
        reads=reads,
        writes=writes,
        written=sorted(needs.writes - set(writes)),
        groups=groups_of(needs.files)[0],
        hides_homes=not homes,
    )


def _program() -> list[str]:
    """The command that is installed beside this Python, else the module."""
    script = os.path.join(os.path.dirname(sys.executable), "clickpipe")
    return [script] if os.access(script, os.X_OK) else [sys.executable, "-m", "clickpipe"]


def _write(folder: str, files: dict[str, str], *, is_forced: bool) -> None:
    """All of them or none, as far as it can be known before."""
    if not os.path.isdir(folder):
        raise PlanError(f"--output: {folder} is no directory", word=folder)
    for name in files:
        if not is_forced and not _is_ours(os.path.join(folder, name)):
            hint = "--force replaces it"
            raise PlanError(f"{os.path.join(folder, name)} was not written by clickpipe systemd", hint=hint)
    for name, text in files.items():
        write_fleeting(os.path.join(folder, name), text.encode(), mode=0o644)


def _is_ours(path: str) -> bool:
    """Or nobody's yet."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MARK)) == MARK.encode()
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _advise(plan: Plan, unit: Unit, needs: Needs, enabled: str) -> None:
    """What is not in the unit, and a person should know."""
    if not plan.takes_checkpoints:
        say(f"{unit.name} takes no checkpoints, and begins anew whenever it is started: ingest --checkpoint 1s")
    if not unit.is_of_user:
        for one in groups_of(needs.files)[1]:
            say(f"{path(one)} can be read by its owner only, and not by the service: chmod, or --user")
        for one in sorted(needs.writes):
            say(f"{path(one)} must be there, and writable for the service, which has a user of its own: a view, or --user")
    if enabled:
        of_user = " --user" if unit.is_of_user else ""
        say(f"systemctl{of_user} daemon-reload; systemctl{of_user} enable --now {enabled}")
