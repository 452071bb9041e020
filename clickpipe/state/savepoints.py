"""Savepoints: checkpoints that a person keeps. Verified copies, never deleted by us.

    savepoints/before-upgrade/epochs/42/    as in a pipeline's own directory; nothing in it leads outside

Restoring copies it back, and the savepoint stays as it is: it can be restored again.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator

from clickpipe.errors import PlanError, StateError, near
from clickpipe.state.directory import StateDirectory
from clickpipe.state.epochs import Epochs
from clickpipe.state.files import copy_file, make_folder, rename, sync_way
from clickpipe.state.manifest import Manifest

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_TRIES = 5  # a running pipeline lets checkpoints go while they are copied


class Savepoints:
    """Of one pipeline."""

    def __init__(self, directory: StateDirectory) -> None:
        self._directory = directory
        self._folder = os.path.join(directory.path, "savepoints")

    def names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._folder) if _NAME.fullmatch(name))
        except FileNotFoundError:
            return []

    def all(self) -> Iterator[tuple[str, Manifest]]:
        """With their checkpoints; of a damaged one, nothing."""
        for name in self.names():
            manifest = next(self._opened(name).manifests(), None)
            if manifest:
                yield name, manifest

    def create(self, name: str) -> Manifest:
        """A copy of the newest checkpoint, durable and whole. Raises PlanError, StateError, DiskError."""
        for _ in range(_TRIES):
            manifest = next(self._directory.manifests(), None)
            if manifest is None:
                raise PlanError(f"{self._directory.name} has no checkpoint yet")
            try:
                return self._copied(manifest, name or str(manifest.epoch))
            except StateError:
                if not self._directory.is_gone(manifest.epoch):
                    raise
        raise StateError(
            f"{self._directory.name}: its checkpoints go faster than they can be copied", hint="a longer --checkpoint"
        )

    def restore(self, manifest: Manifest, name: str) -> None:
        """Put it in the place of what the pipeline has saved since, which is put aside. Raises StateError, DiskError."""
        self._directory.put_aside()
        _copy(self._opened(name), self._directory, manifest)

    def found(self, name: str) -> Manifest:
        """What a savepoint holds, whole. Raises PlanError, StateError."""
        manifest = self._opened(name).newest()
        if manifest is None:
            raise StateError(f"savepoint {name} of {self._directory.name} is empty")
        return manifest

    def _opened(self, name: str) -> Epochs:
        if name not in self.names():
            known = self.names()
            told = [f"there are: {', '.join(known)}"] if known else ["there is none"]
            raise PlanError(f'{self._directory.name} has no savepoint "{name}"', hint=near(name, known), notes=told)
        return Epochs(os.path.join(self._folder, name))

    def _copied(self, manifest: Manifest, name: str) -> Manifest:
        if not _NAME.fullmatch(name):
            raise PlanError(f"a savepoint cannot be called {name!r}", hint="letters, digits, . _ and -", word=name)
        if name in self.names():
            raise PlanError(f'there is a savepoint "{name}" already', word=name)
        part = os.path.join(self._folder, f".{name}.{os.getpid()}-{time.monotonic_ns()}.part")
        try:
            make_folder(os.path.join(part, "epochs"))
            copy = Epochs(part)
            _copy(self._directory, copy, manifest)
            rename(part, os.path.join(self._folder, name))
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        sync_way(self._folder)
        return manifest


def _copy(origin: Epochs, to: Epochs, manifest: Manifest) -> None:
    """A checkpoint; what was written is read again and compared."""
    for file in manifest.files():
        copy_file(origin.path_of(manifest.epoch, file["file"]), to.place(manifest.epoch, file["file"]))
    to.verify(manifest)
    to.sync(manifest.epoch)
    to.commit(manifest)
