"""What a recipe needs of a machine when it runs as a service: files to read, folders to write to, a network.

    /home /root /run/user    hidden: what is needed there is shown to the service, and nothing else of it
    /tmp /var/tmp            the service has its own
    elsewhere                can be read as it is; folders that are written to are named

Folders are shown rather than files: a file that is followed is renamed, and results are written beside their place first.
"""

from __future__ import annotations

import grp
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import clickpipe
from clickpipe.core.address import part_of
from clickpipe.core.source import SOURCES
from clickpipe.core.step import RawStep
from clickpipe.errors import PlanError
from clickpipe.operators.ingest import Ingest
from clickpipe.operators.sink import Sink
from clickpipe.operators.window import Window
from clickpipe.plan.parse import locate
from clickpipe.plan.plan import Node, Plan

_HOMES = ("/home", "/root", "/run/user")
_OWN = ("/tmp", "/var/tmp")  # services have others
_MAGIC = "*?["


@dataclass
class Needs:
    """Absolute paths. `files`: of the input, as far as they are there; `is_relative`: the recipe says some from here."""

    reads: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    has_network: bool = False
    is_relative: bool = False

    def hidden(self, paths: Iterable[str]) -> list[str]:
        """Those that a service cannot see, the outermost of each."""
        hidden = sorted(one for one in paths if _is_under(one, (*_HOMES, *_OWN)))
        return [one for one in hidden if not any(other != one and _is_under(one, (other,)) for other in hidden)]


def needs_of(plan: Plan, recipe: str) -> Needs:
    """Raises PlanError for a pipeline that reads standard input: a service has none."""
    if plan.source is None:
        raise PlanError("the pipeline reads a stream on standard input, and a service has none")
    needs = Needs(reads={os.path.abspath(recipe), *_program()})
    for node in plan.nodes:
        _add(needs, node, is_fed=isinstance(plan.nodes[0].step, RawStep))
    if needs.is_relative:
        needs.reads.add(os.getcwd())
    return needs


def _add(needs: Needs, node: Node, *, is_fed: bool) -> None:
    step = node.step
    if isinstance(step, Ingest):
        for address in step.source:
            _add_source(needs, address, node, is_fed=is_fed)
        _add_files(needs, [one for one in (step.tls_cert, step.tls_key, step.tls_ca) if one])
        _add_written(needs, step.dead_letter)
    elif isinstance(step, Sink) and step.destination_kind() == "file":
        _add_written(needs, step.destination)
    elif isinstance(step, Window) and step.late and not step.late.startswith("log:"):
        _add_written(needs, step.late)


def _add_source(needs: Needs, address: str, node: Node, *, is_fed: bool) -> None:
    kind, rest = part_of(address, SOURCES, "stdin")
    if kind == "stdin" and not is_fed:
        error = PlanError("standard input: a service has none", hint="a file, a log or a socket", word="-")
        raise locate(error, node.written)
    if kind == "file":
        _add_files(needs, [address])
    elif kind == "unix":
        _add_written(needs, rest)
    elif kind == "tcp":
        needs.has_network = True


def _add_files(needs: Needs, paths: Iterable[str]) -> None:
    for path in paths:
        needs.is_relative |= not os.path.isabs(path)
        folder = _folder(path)
        needs.reads.add(folder)
        needs.files += [one for one in _matches(os.path.abspath(path)) if os.path.isfile(one)]


def _add_written(needs: Needs, path: str | None) -> None:
    if path:
        needs.is_relative |= not os.path.isabs(path)
        needs.writes.add(os.path.dirname(os.path.abspath(path)))


def _folder(path: str) -> str:
    """Of a file, or of all that a glob can match."""
    folder = os.path.dirname(os.path.abspath(path))
    while any(c in folder for c in _MAGIC) and not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    return folder


def _matches(path: str) -> list[str]:
    import glob

    return [path] if os.path.lexists(path) else glob.glob(path, recursive=True)


def _program() -> Iterator[str]:
    """Where Python and clickpipe are."""
    for one in (sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix), os.path.dirname(clickpipe.__path__[0])):
        yield os.path.abspath(one)


def _is_under(path: str, folders: Iterable[str]) -> bool:
    return any(path == one or path.startswith(one.rstrip("/") + "/") for one in folders)


# Who may read it.


def groups_of(files: Iterable[str]) -> tuple[list[str], list[str]]:
    """Groups that a service must belong to, so that it can read these files; and the files that only their owner can read."""
    groups, closed = set[str](), list[str]()
    for path in files:
        with suppress(OSError):
            status = os.stat(path)
            if status.st_mode & stat.S_IROTH:
                continue
            name = _group(status.st_gid) if status.st_mode & stat.S_IRGRP else None
            if name and status.st_gid:
                groups.add(name)
            else:
                closed.append(path)
    return sorted(groups), closed


def _group(number: int) -> str | None:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return None
