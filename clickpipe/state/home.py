"""Where state lives: $CLICKPIPE_HOME, else $XDG_STATE_HOME/clickpipe."""

from __future__ import annotations

import os


def home() -> str:
    if chosen := os.environ.get("CLICKPIPE_HOME"):
        return os.path.abspath(chosen)
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "clickpipe")


def pipeline_directory(name: str) -> str:
    return os.path.join(home(), "pipelines", name)
