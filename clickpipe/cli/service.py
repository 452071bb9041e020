"""A supervisor as a service: its manager hears when its pipelines have begun, how they are, and that they make progress.

ready      every pipeline has restored its state, and its first process reads, or waits for the first records
watchdog   is fed while the processes say something, and records that come move the watermark or a checkpoint; what has died
           and is going to be started again is the supervisor's affair
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

from clickpipe.core.units import format_duration
from clickpipe.engine.notify import Manager
from clickpipe.engine.supervisor import Attendant
from clickpipe.state import samples
from clickpipe.state.home import home
from clickpipe.top.feed import look
from clickpipe.top.model import Pipeline, standstill

_SOON, _EVERY = 0.1, 5.0  # seconds between two looks, before all is ready and then
_FULL = 1 << 16  # bytes that are left of a disk on which nobody can say anything


class Service(Attendant):
    """`processes`: how many each pipeline has; one that is not named says nothing, and reads as soon as it is started."""

    def __init__(self, manager: Manager, processes: Mapping[str, int]) -> None:
        self._manager, self._processes, self._began = manager, processes, time.monotonic()
        self.due = self._hungry = self._began
        self._is_ready = self._is_stopping = False
        self._status = ""
        self._every = min(_EVERY, (manager.watchdog or _EVERY) / 2)

    def look(self, now: float, names: Sequence[str]) -> None:
        self.due = now + (self._every if self._is_ready else min(self._every, _SOON))
        found = [one for one in look(names=tuple(names)) if one.is_running or one.state == "waiting"] if names else []
        if not self._is_ready and names and all(map(self._reads, names)):
            self._ready()
        stuck = [f"{one.name}: {why}" for one in found for why in self._stuck(one)]
        if not stuck and now >= self._hungry:
            self._hungry = now + self._every
            self._manager.tell("WATCHDOG")
        self._tell("; ".join(stuck or map(_said, found)))

    def stopping(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._manager.tell("STOPPING")

    def ended(self, code: int) -> None:
        """What ends well at once had begun."""
        if not code and not self._is_ready:
            self._ready()
        self.stopping()

    def _ready(self) -> None:
        self._is_ready = True
        self._manager.tell("READY")

    def _reads(self, name: str) -> bool:
        """Whether it waits for its first records, or all its processes are at work."""
        if name not in self._processes:
            return True
        said = [one for one in samples.read(name) if one.at >= self._began and one.is_alive]
        first = [one for one in said if one.hop == 0 and samples.reads(one)]
        return bool(first) and (not first[0].steps or len(said) >= self._processes[name])

    def _stuck(self, one: Pipeline) -> list[str]:
        """On a full disk all pause, and cannot say so."""
        found = standstill(one, time.time(), self._manager.watchdog or 0.0)
        silent = self._processes.get(one.name, 0) - len({process for step in one.steps for process in step.processes})
        if one.steps and silent > 0:
            found.append(f"{silent} of its processes have said nothing yet")
        return [] if found and one.state == "silent" and _is_full(home()) else found

    def _tell(self, status: str) -> None:
        if status and status != self._status:
            self._status = status
            self._manager.tell("STATUS", status)


def _is_full(path: str) -> bool:
    try:
        space = os.statvfs(path)
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < _FULL


def _said(one: Pipeline) -> str:
    if one.state == "silent":
        return f"{one.name}: its disk is full"
    parts = [] if one.is_running else [one.state]
    parts += [one.reason] if one.reason else []
    parts += [f"{one.rate:,.0f} records/s", f"{one.records:,} in all"] if one.is_running else []
    parts += [f"{format_duration(max(0, one.lag) // 1_000 * 1_000)} behind"] if one.is_running and one.lag is not None else []
    parts += [f"checkpoint {one.checkpoint.epoch}"] if one.checkpoint else []
    return f"{one.name}: {', '.join(parts)}"
