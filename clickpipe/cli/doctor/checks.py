"""All checks, in the order in which they are told."""

from __future__ import annotations

from typing import Any

from clickpipe.cli.doctor import (
    clock,
    compiled,
    filesystem,
    fsync,
    interpreter,
    leftovers,
    libraries,
    locks,
    machine,
    openfiles,
    pipes,
    sqlite,
    terminal,
)
from clickpipe.cli.doctor.verdict import Check

CHECKS: tuple[Check[Any], ...] = (
    Check("python", interpreter.look, interpreter.verdict),
    Check("libraries", libraries.look, libraries.verdict),
    Check("compiled", compiled.look, compiled.verdict),
    Check("machine", machine.look, machine.verdict),
    Check("file system", filesystem.look, filesystem.verdict),
    Check("fsync", fsync.look, fsync.verdict),
    Check("locks", locks.look, locks.verdict),
    Check("sqlite", sqlite.look, sqlite.verdict),
    Check("pipes", pipes.look, pipes.verdict),
    Check("open files", openfiles.look, openfiles.verdict),
    Check("clock", clock.look, clock.verdict),
    Check("terminal", terminal.look, terminal.verdict),
    Check("leftovers", leftovers.look, leftovers.verdict),
)
