"""Go back to a savepoint: state and results together, or the next run would give results twice."""

from __future__ import annotations

from clickpipe.core.sink import Commits, Destination
from clickpipe.operators.sink import SINKS
from clickpipe.state.directory import StateDirectory
from clickpipe.state.files import copy_file, cut, length_of
from clickpipe.state.manifest import Manifest
from clickpipe.state.savepoints import Savepoints


def rewind(directory: StateDirectory, name: str) -> list[str]:
    """What a person should know of it. Raises PlanError, StateError, OutsideError, DiskError.

    First it is looked at whether all can go back. After a crash in between a run refuses to start, and this can be repeated.
    """
    savepoint = Savepoints(directory).found(name)
    newest = next(directory.manifests(), savepoint)
    sinks = [(_commits(entry["sink"], directory), entry["staged"]) for entry in savepoint.steps if "staged" in entry]
    for commits, said in sinks:
        commits.check_rewind(said)
    Savepoints(directory).restore(name)
    notes = [note for commits, said in sinks if (note := commits.rewind(said))]
    return notes + _cut_sides(savepoint, newest)


def _commits(kind: str, directory: StateDirectory) -> Commits:
    destination: type[Destination] = SINKS.find(kind, Destination)
    return destination.commits(directory)


def _cut_sides(savepoint: Manifest, newest: Manifest) -> list[str]:
    """Late and dead-letter files end where they ended then."""
    notes = []
    for path in {*savepoint.lengths, *newest.lengths}:
        length = savepoint.lengths.get(path, 0)
        if length_of(path) > length:
            kept = f"{path}.before-savepoint-{savepoint.epoch}-of-{newest.epoch}"
            copy_file(path, kept)
            cut(path, length)
            notes.append(f"{path} was longer, and is kept as {kept}")
    return notes
