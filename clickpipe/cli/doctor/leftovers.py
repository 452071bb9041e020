"""What pipelines have left that needs a person: damage, a run that hangs, a restore that was cut short."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from clickpipe.cli.doctor.cgroup import from_disk
from clickpipe.cli.doctor.verdict import Verdict, bad, note, ok
from clickpipe.errors import ClickpipeError
from clickpipe.state.directory import StateDirectory
from clickpipe.state.home import is_name
from clickpipe.state.trust import check_folder, check_no_links

_SHOWN = 10  # of many, these


@dataclass(frozen=True)
class Trouble:
    """`is_bad`: the pipeline does not start until somebody has done something."""

    pipeline: str
    text: str
    remedy: str
    is_bad: bool = True


@dataclass(frozen=True)
class Found:
    pipelines: int
    troubles: tuple[Trouble, ...]


def look(home: str) -> Found:
    folder = os.path.join(home, "pipelines")
    names = sorted(filter(is_name, os.listdir(folder))) if os.path.isdir(folder) else []
    troubles = tuple(trouble for name in names for trouble in _troubles(StateDirectory(os.path.join(folder, name))))
    return Found(len(names), troubles)


def _troubles(directory: StateDirectory) -> Iterator[Trouble]:
    name = directory.name
    try:
        check_folder(directory.path)
        check_no_links(directory.path)
        yield from _of_checkpoints(directory)
        yield from _of_processes(directory)
    except ClickpipeError as error:
        yield Trouble(name, error.what.removeprefix(f"{name}: "), error.hint or f"clickpipe checkpoint verify {name} says more")
    except OSError as error:
        yield Trouble(name, f"{error.filename or directory.path}: {error.strerror}", f"ls -l {directory.path}")
    except (AttributeError, LookupError, TypeError, ValueError):  # a file with anything in it
        yield Trouble(name, "a file of it holds what clickpipe has not written", f"ls -lt {directory.path}")


def _of_checkpoints(directory: StateDirectory) -> Iterator[Trouble]:
    name, damaged, newest = directory.name, directory.unreadable(), directory.newest_epoch()
    if damaged:
        remedy = "put it back from a copy, or start anew with --reset at ingest and destinations that are empty"
        yield Trouble(name, f"checkpoint {damaged[-1]} is damaged", remedy, is_bad=newest in damaged)
    if os.path.isdir(os.path.join(directory.path, "epochs")):
        directory.run()  # raises where its number cannot be read
    said = directory.restoring()
    if said:
        remedy = f"clickpipe savepoint restore {name} {said['savepoint']}"
        yield Trouble(name, f"going back to savepoint {said['savepoint']} was cut short", remedy)


def _of_processes(directory: StateDirectory) -> Iterator[Trouble]:
    """Locks end with their processes; what keeps one for ever is a process that was stopped, not ended."""
    name, supervisor, processes = directory.name, directory.supervisor(), directory.processes()
    for process in sorted({*processes, *([supervisor] if supervisor else [])}):
        if _is_stopped(process):
            remedy = f"kill -CONT {process} lets it go on, kill {process} ends it"
            yield Trouble(name, f"process {process} is stopped, as by Ctrl-Z, and keeps its lock", remedy, is_bad=False)
    if not supervisor and not processes and directory.told_by_supervisor().get("state") in ("running", "waiting"):
        text = "it runs no more, and its supervisor was killed before it could say why"
        yield Trouble(name, text, "run it again: it goes on from its last checkpoint", is_bad=False)


def _is_stopped(process: int) -> bool:
    _, _, rest = (from_disk(f"/proc/{process}/stat") or "").rpartition(")")
    return rest.split()[:1] in (["T"], ["t"])


def verdict(found: Found) -> Verdict:
    if not found.troubles:
        count = f"{found.pipelines:,} pipeline{'s' if found.pipelines != 1 else ''}"
        return ok(f"{count} {'have' if found.pipelines != 1 else 'has'} saved state, and nothing of it needs you")
    names = list(dict.fromkeys(one.pipeline for one in found.troubles))
    text = f"{', '.join(names[:_SHOWN])}{' and others' if len(names) > _SHOWN else ''}: look at what follows"
    remedies = [f"{one.pipeline}: {one.text}: {one.remedy}" for one in found.troubles[:_SHOWN]]
    judge = bad if any(one.is_bad for one in found.troubles) else note
    return judge(text, *remedies)
