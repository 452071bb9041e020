"""How far a bounded run is, on a terminal: a bar on standard error, which goes when the run ends.

It is never shown where standard error is no terminal, where messages are JSON, or where records are printed on the same one.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from clickpipe.cli.supervised import name_of
from clickpipe.cli.words import speaks_json
from clickpipe.plan.plan import Plan
from clickpipe.state import samples
from clickpipe.stopping import parent

_EVERY = 0.25  # seconds
_AFTER = 1.0  # seconds: what is quicker needs no bar

# What there is to show: a name, how much was done, of how much, and how fast.
Look = Callable[[], Sequence[tuple[str, int, int, str]]]


@contextmanager
def bar(look: Look, *, prints: bool = False, quiet: bool = False) -> Iterator[None]:
    """While in here it is shown. `look`: by another thread; `prints`: records go to standard output meanwhile."""
    if quiet or not _is_for_people(prints):
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_draw, args=(look, over), daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def progress(plans: Sequence[Plan], *, quiet: bool = False) -> AbstractContextManager[None]:
    """The same of plans that are run."""
    prints = any(plan.sink is None or getattr(plan.sink.step, "destination", "") == "-" for plan in plans)
    return bar(of_pipelines(lambda: [name_of(plan) for plan in plans]), prints=prints, quiet=quiet)


def of_pipelines(names: Callable[[], Sequence[str]]) -> Look:
    """How far they have read their input, as they say it themselves. One that has no end is left out."""
    begun = time.time()

    def look() -> list[tuple[str, int, int, str]]:
        found = []
        for name in names():
            first = next((one for one in samples.read(name) if one.extent and one.when >= begun and not one.ended), None)
            if first and first.extent and (seconds := first.busy + first.idle + first.backpressured):
                found.append((name, *first.extent, f"{first.records / seconds:,.0f} records/s"))
        return found

    return look


def _is_for_people(prints: bool) -> bool:
    if speaks_json():
        return False
    return parent() is None and os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb" and not (prints and os.isatty(1))


def _draw(look: Look, over: threading.Event) -> None:
    if over.wait(_AFTER):
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    )
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, refresh_per_second=4) as shown:
        tasks: dict[str, TaskID] = {}
        while True:
            for name, done, whole, rate in look():
                task = tasks.setdefault(name, shown.add_task(name, total=whole, rate="")) if name not in tasks else tasks[name]
                shown.update(task, completed=done, total=whole, rate=rate)
            if over.wait(_EVERY):
                return
