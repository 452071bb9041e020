"""Go back to a savepoint: state and results together, or the next run would give results twice."""

from __future__ import annotations

import time

from clickpipe.operators.sink import commits_of
from clickpipe.state.directory import StateDirectory
from clickpipe.state.files import copy_file, cut, length_of
from clickpipe.state.manifest import Manifest
from clickpipe.state.savepoints import Savepoints


def rewind(directory: StateDirectory, name: str) -> list[str]:
    """What a person should know of it. Raises PlanError, StateError, OutsideError, DiskError.

    First it is looked at whether all can go back. After a crash in between no run begins, and this can be repeated.
    """
    directory.take_over()
    savepoint = Savepoints(directory).found(name)
    newest = next(directory.manifests(), savepoint)
    sinks = [(commits_of(entry["sink"], directory), entry["staged"]) for entry in savepoint.steps if "staged" in entry]
    for commits, said in sinks:
        commits.check_rewind(said)
    begun = directory.restoring() or {"sides": []}
    sides = sorted({*begun["sides"], *savepoint.lengths, *newest.lengths})
    directory.begin_restoring({"savepoint": name, "sides": sides})
    Savepoints(directory).restore(savepoint, name)
    notes = [note for commits, said in sinks if (note := commits.rewind(said))]
    notes += [note for path in sides if (note := _cut(path, savepoint))]
    directory.end_restoring()
    return notes


def _cut(path: str, savepoint: Manifest) -> str:
    """A late or dead-letter file ends where it ended then."""
    length = savepoint.lengths.get(path, 0)
    if length_of(path) <= length:
        return ""
    kept = f"{path}.before-savepoint-{savepoint.epoch}-{int(time.time())}"
    copy_file(path, kept)
    cut(path, length)
    return f"{path} was longer, and is kept as {kept}"
