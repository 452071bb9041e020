"""Where state lives: $CLICKPIPE_HOME, else $XDG_STATE_HOME/clickpipe. What processes say of themselves while they run is below
it too where it was named, else in $XDG_RUNTIME_DIR/clickpipe, which is memory, where there is one.
"""

from __future__ import annotations

import os
import re

from clickpipe.errors import PlanError

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def home() -> str:
    if chosen := os.environ.get("CLICKPIPE_HOME"):
        return os.path.abspath(chosen)
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "clickpipe")


def run_directory(name: str) -> str:
    """Where the processes of a pipeline say how they are while they run. Raises PlanError as `pipeline_directory` does."""
    return run_directories(name)[0]


def run_directories(name: str) -> list[str]:
    """Where they may have said it: one that cron has started has no session, whose memory it could use."""
    _check(name)
    in_home = os.path.join(home(), "run", name)
    memory = os.environ.get("XDG_RUNTIME_DIR")
    if os.environ.get("CLICKPIPE_HOME") or not memory or not os.path.isdir(memory):
        return [in_home]
    return [os.path.join(memory, "clickpipe", name), in_home]


def pipeline_directory(name: str, told: str | None = None) -> str:
    """The directory of a pipeline. `told`: where the stream says it is, believed if it looks like one.

    Raises PlanError for a name that could lead elsewhere.
    """
    _check(name)
    if told and os.path.isabs(told) and os.path.normpath(told).endswith(f"{os.sep}pipelines{os.sep}{name}"):
        return os.path.normpath(told)
    return os.path.join(home(), "pipelines", name)


def is_name(name: str) -> bool:
    """Whether a pipeline can be called so."""
    return _NAME.fullmatch(name) is not None


def _check(name: str) -> None:
    if not is_name(name):
        raise PlanError(f"a pipeline cannot be called {name!r}", hint="letters, digits, . _ and -", word=name)
