"""What runs, as the files of its processes say it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from clickpipe.errors import PlanError, near
from clickpipe.state import samples
from clickpipe.state.directory import StateDirectory
from clickpipe.state.home import home, is_name
from clickpipe.top.model import Pipeline, Told, pipelines

RECENT = 600.0  # seconds for which one that has ended is shown


def look(*, names: tuple[str, ...] = (), everything: bool = False) -> list[Pipeline]:
    """All that runs, and what has ended of late. `everything`: also what ended long ago; `names`: these only."""
    wanted = [name for name in samples.pipelines() if not names or name in names]
    found = [(name, sample, sample.is_alive) for name in wanted for sample in samples.read(name)]
    told = {name: one for name, one in _told() if not names or name in names}
    now = time.time()
    made = pipelines(found, told, now, time.monotonic())
    return [one for one in made if everything or one.is_running or _is_recent(one, now)]


def known() -> list[str]:
    """Pipelines that something is known of."""
    return sorted({*samples.pipelines(), *(name for name, _ in _told())})


def check_known(names: tuple[str, ...]) -> None:
    """Raises PlanError for one that nothing is known of."""
    there = known() if names else []
    for name in names:
        if name not in there:
            notes = [f"there are: {', '.join(there)}" if there else "nothing has run yet"]
            raise PlanError(f'nothing is known of a pipeline "{name}"', hint=near(name, there), notes=notes, word=name)


def _is_recent(one: Pipeline, now: float) -> bool:
    return one.state == "waiting" or now - one.when < RECENT


def _told() -> Iterator[tuple[str, Told]]:
    """What supervisors say, those that live, and those that have given up."""
    folder = os.path.join(home(), "pipelines")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        directory = StateDirectory(os.path.join(folder, name))
        said = directory.told_by_supervisor() if is_name(name) else {}
        if said:
            state = str(said.get("state", "running")) if directory.supervisor() else ""
            state = state or ("failed" if said.get("state") == "failed" else "")
            reason = said.get("reason") or said.get("last") or ""
            yield name, Told(state, int(said.get("restarts", 0)), str(reason) if state in ("failed", "waiting") else "")
