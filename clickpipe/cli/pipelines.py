"""The pipelines that have saved state, by name."""

from __future__ import annotations

import os

from clickpipe.errors import PlanError, near
from clickpipe.state.directory import StateDirectory
from clickpipe.state.home import home, pipeline_directory


def names() -> list[str]:
    folder = os.path.join(home(), "pipelines")
    return sorted(name for name in (os.listdir(folder) if os.path.isdir(folder) else ()) if _has_epochs(name))


def known() -> list[str]:
    """For a message."""
    return [f"there are: {', '.join(names())}"] if names() else [f"no pipeline has saved anything under {home()}"]


def opened(name: str) -> StateDirectory:
    """Raises PlanError with the nearest name."""
    if not _has_epochs(name):
        raise PlanError(f'no pipeline "{name}" has saved a checkpoint', hint=near(name, names()), notes=known())
    return StateDirectory(pipeline_directory(name))


def chosen(given: tuple[str, ...]) -> list[StateDirectory]:
    """Those that were named, or all."""
    return [opened(name) for name in given or names()]


def _has_epochs(name: str) -> bool:
    return os.path.isdir(os.path.join(pipeline_directory(name), "epochs"))
