"""Runs that write to an archive without checkpoints: what one of them has staged, nobody commits but itself.

    archives/clicks/.shell-9f86d0811234abcd-.run                            held while it runs
    archives/clicks/day=2026-03-01/.shell-9f86d0811234abcd-000000000000-1.parquet.staged

When such a lock can be had its run is over: what it left behind is no part of the archive, and is taken away.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator

from clickpipe.errors import OutsideError
from clickpipe.state.files import hold, remove
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.store.archivefiles import Origin
from clickpipe.store.archives import Archive, folders

_RUN = re.compile(r"\.([a-z]+-[0-9a-f]{16}-)\.run")


class Run:
    """`kind`: what it does, in small letters."""

    def __init__(self, archive: Archive, kind: str, patience: Patience = NO_PATIENCE) -> None:
        self._archive = archive
        token = secrets.token_hex(8)
        self.origin = Origin(kind, "", f"{kind}-{token}-")  # nobody goes on from it: its rows need no lineage
        archive.make()
        with archive.locked():
            clear_ended(archive)
            self._path = os.path.join(archive.folder, f".{self.origin.stem}.run")
            self._lock = hold(self._path, patience)

    def abandon(self) -> None:
        """What it has staged goes."""
        self._archive.clear(self.origin.staged(), [])
        self.end()

    def end(self) -> None:
        remove(self._path)
        os.close(self._lock)


def clear_ended(archive: Archive) -> None:
    """What runs have left behind that died. Under the archive's lock."""
    for path, stem in _runs(archive):
        try:
            lock = hold(path)
        except OutsideError:
            continue  # it runs
        _clear(archive, stem)
        remove(path)
        os.close(lock)


def _runs(archive: Archive) -> Iterator[tuple[str, str]]:
    for name in os.listdir(archive.folder):
        if found := _RUN.fullmatch(name):
            yield os.path.join(archive.folder, name), found[1]


def _clear(archive: Archive, stem: str) -> None:
    """Staged files, and those that were seen already when it died, and are in no version."""
    now = archive.newest()
    counts = {os.path.join(archive.folder, path) for path in (*now.files, *now.removed)}
    left = re.compile(rf"\.?{stem}\d{{12}}-\d+\.parquet(\.staged(\.\d+\.part)?)?")
    for inner in folders(archive.folder):
        for path in (os.path.join(inner, name) for name in os.listdir(inner) if left.fullmatch(name)):
            if path not in counts:
                remove(path)
