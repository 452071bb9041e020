"""Ask running pipelines to end, and wait until they have."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

import click

from clickpipe.cli import pipelines
from clickpipe.cli.completing import values
from clickpipe.cli.text import described
from clickpipe.errors import OutsideError, PlanError
from clickpipe.plan.flags import DURATION
from clickpipe.state.directory import StateDirectory


def ending(name: str, text: str | None, epilog: str, number: signal.Signals) -> click.Command:
    """The command that sends this signal."""

    @described(name, text, epilog)
    @click.argument("names", nargs=-1, metavar="[NAME]...", help="pipelines", shell_complete=values.pipelines)
    @click.option("--all", "every", is_flag=True, help="all that run")
    @click.option("--timeout", type=DURATION, default=60_000, metavar="DURATION", help="wait no longer than this  [default 1m]")
    def command(names: tuple[str, ...], every: bool, timeout: int) -> None:
        _end(names, number, timeout / 1_000, every=every)

    return command


def _end(names: tuple[str, ...], number: signal.Signals, timeout: float, *, every: bool) -> None:
    """Send them the signal. Raises PlanError, and OutsideError for those that still run after `timeout` seconds."""
    if every == bool(names):
        raise PlanError("name pipelines, or --all", notes=pipelines.known())
    asked = [directory for directory in pipelines.chosen(names) if _ask(directory, number, every=every)]
    if every and not asked:
        sys.stdout.write("no pipeline with checkpoints runs\n")
    supervised = [directory for directory in asked if directory.supervisor()]
    deadline = time.monotonic() + timeout
    for directory in asked:
        while directory.processes() or directory.supervisor():
            if time.monotonic() > deadline:
                raise OutsideError(
                    f"{directory.name} still runs {timeout:.0f} s after it was asked to end",
                    notes=["it may wait for a disk or a reader; clickpipe status shows its processes"],
                )
            time.sleep(0.05)
        newest, said = next(directory.manifests(), None), directory.told_by_supervisor()
        if directory in supervised and said.get("code"):
            raise OutsideError(f"{directory.name} ended with exit code {said['code']}: {said.get('reason') or 'it has said why'}")
        if number == signal.SIGUSR1 and not (newest and newest.ended):
            raise OutsideError(f"{directory.name} ended without being drained", hint="run it, and drain it again")
        what = (
            f"{'ended' if newest.ended else 'stopped'} at checkpoint {newest.epoch}" if newest else "stopped; nothing was saved"
        )
        sys.stdout.write(f"{directory.name}: {what}\n")
        sys.stdout.flush()


def _ask(directory: StateDirectory, number: signal.Signals, *, every: bool) -> bool:
    """Whether there was somebody to ask."""
    process = _whom(directory)
    if process is None:
        if not every:
            sys.stdout.write(f"{directory.name}: does not run\n")
        return False
    with suppress(ProcessLookupError):  # it has ended by itself meanwhile
        os.kill(process, number)
    return True


def _whom(directory: StateDirectory) -> int | None:
    """Its supervisor, which would end all that it supervises; so where that is more, the process that reads the input."""
    supervisor = directory.supervisor()
    is_alone = directory.told_by_supervisor().get("together", 1) == 1
    return supervisor if supervisor and is_alone else directory.source() or supervisor
