"""Python and the machine it is for."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

from clickpipe import __version__
from clickpipe.cli.doctor.verdict import Verdict, bad, note, ok

_OLDEST = (3, 11)


@dataclass(frozen=True)
class Found:
    clickpipe: str
    python: tuple[int, ...]
    implementation: str
    system: str
    machine: str


def look(_: str) -> Found:
    return Found(
        __version__, tuple(sys.version_info[:3]), platform.python_implementation(), platform.system(), platform.machine()
    )


def verdict(found: Found) -> Verdict:
    version = ".".join(map(str, found.python))
    text = f"clickpipe {found.clickpipe}, {found.implementation} {version}, {found.system} {found.machine}"
    if found.python[:2] < _OLDEST:
        return bad(text, f"clickpipe needs Python {'.'.join(map(str, _OLDEST))} or newer")
    if found.system != "Linux":
        return note(text, "clickpipe is tested on Linux only")
    return ok(text)
