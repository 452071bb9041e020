"""The checkpoints of a pipeline on disk, each a folder: whole once its manifest is there.

epochs/42/    2-aggregate.7.9f86….state    1-late.ndjson    MANIFEST.json
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from io import BufferedReader

from clickpipe.errors import StateError
from clickpipe.faults import kill_point
from clickpipe.state.files import make_folder, rename, sync_folder, write_whole
from clickpipe.state.manifest import Entry, Manifest, digest, digest_of
from clickpipe.state.space import Patience, Space
from clickpipe.state.trust import open_own, read_own

_MANIFEST = "MANIFEST.json"


class Epochs:
    """Below `path`. `space`: what waits when the disk is full; None: nobody does."""

    def __init__(self, path: str, space: Space | None = None) -> None:
        self.path, self._space = path, space

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    def patience(self, what: str) -> Patience:
        """With which all is written that belongs to this pipeline's checkpoints."""
        return Patience(what, self._space)

    # What there is.

    def newest_epoch(self) -> int:
        """The number of the newest checkpoint, 0 for none; whether it is whole is not looked at."""
        return max((epoch for epoch in self._epochs() if self.has(epoch, _MANIFEST)), default=0)

    def _epochs(self) -> list[int]:
        try:
            names = os.listdir(os.path.join(self.path, "epochs"))
        except FileNotFoundError:  # they are just being put aside
            return []
        return sorted(int(name) for name in names if name.isdigit())

    def manifests(self) -> Iterator[Manifest]:
        """Whole checkpoints, the newest first."""
        for epoch in reversed(self._epochs()):
            manifest = self.manifest(epoch)
            if manifest:
                yield manifest

    def is_complete(self, epoch: int) -> bool:
        """Whether this checkpoint or a newer one is whole."""
        return any(number >= epoch and self.has(number, _MANIFEST) for number in self._epochs())

    def is_gone(self, epoch: int) -> bool:
        """Whether a newer checkpoint has taken this one's place meanwhile."""
        return not self.has(epoch, _MANIFEST)

    def unreadable(self) -> list[int]:
        """Checkpoints whose manifest is there and damaged."""
        return [epoch for epoch in self._epochs() if self.has(epoch, _MANIFEST) and self.manifest(epoch) is None]

    def newest(self) -> Manifest | None:
        """The newest checkpoint. Raises StateError when it is there and damaged: falling back in silence could repeat results."""
        for epoch in reversed(self._epochs()):
            manifest = self.manifest(epoch)
            if manifest:
                self.verify(manifest)
                return manifest
            if os.path.exists(self.path_of(epoch, _MANIFEST)):
                raise self._damaged(epoch, _MANIFEST)
        return None

    def manifest(self, epoch: int) -> Manifest | None:
        try:
            return Manifest.from_bytes(read_own(self.path_of(epoch, _MANIFEST)))
        except FileNotFoundError:
            return None
        except KeyError as error:
            raise StateError(
                f"{self.name}: checkpoint {epoch} is of format version {error}, which this clickpipe does not know"
            ) from None

    def verify(self, manifest: Manifest) -> None:
        """Raises StateError unless every file of the checkpoint is there and whole."""
        for file in manifest.files():
            self.opened(manifest.epoch, file).close()

    def read(self, epoch: int, file: Entry) -> bytes:
        """A file of a checkpoint, by its entry in the manifest. Raises StateError."""
        try:
            data = read_own(self.path_of(epoch, file["file"]))
        except OSError:
            raise self._damaged(epoch, file["file"]) from None
        if len(data) != file["bytes"] or digest(data) != file["hash"]:
            raise self._damaged(epoch, file["file"])
        return data

    def opened(self, epoch: int, file: Entry) -> BufferedReader:
        """The same of one that may be large, to read it piece by piece. It was looked at as a whole."""
        try:
            found = open_own(self.path_of(epoch, file["file"]))
            whole = os.fstat(found.fileno()).st_size == file["bytes"] and digest_of(found) == file["hash"]
        except OSError:
            raise self._damaged(epoch, file["file"]) from None
        if not whole:
            found.close()
            raise self._damaged(epoch, file["file"])
        found.seek(0)
        return found

    def _damaged(self, epoch: int, name: str) -> StateError:
        return StateError(
            f"{self.name}: checkpoint {epoch} is damaged: {name}",
            notes=[
                "results up to it may have been given already, so an older one would repeat some",
                f"either put {self.path_of(epoch, name)} back from a copy,",
                "or start anew with --reset, and with destinations that are empty",
            ],
        )

    # What is written.

    def save(self, epoch: int, name: str, data: bytes) -> None:
        """A file of a checkpoint that is not complete yet: durable, and then there under its name. Raises DiskError."""
        kind = "manifest" if name == _MANIFEST else "state"
        write_whole(self.place(epoch, name), data, kind, self.patience(f"checkpoint {epoch}"))

    def place(self, epoch: int, name: str) -> str:
        """Where a file of a checkpoint goes; its folder is there."""
        self._make_epoch(epoch)
        return self.path_of(epoch, name)

    def _make_epoch(self, epoch: int) -> str:
        folder = os.path.join(self.path, "epochs", str(epoch))
        make_folder(folder, self.patience(f"checkpoint {epoch}"))
        return folder

    def has(self, epoch: int, name: str) -> bool:
        return os.path.exists(self.path_of(epoch, name))

    def state_file(self, epoch: int, stem: str) -> Entry | None:
        """What a manifest says of a step's state, once it is there under STEM.HASH.state."""
        folder = os.path.join(self.path, "epochs", str(epoch))
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name.startswith(f"{stem}.") and name.endswith(".state"):
                size = os.stat(self.path_of(epoch, name)).st_size
                return {"file": name, "bytes": size, "hash": name.removeprefix(f"{stem}.").removesuffix(".state")}
        return None

    def commit(self, manifest: Manifest) -> None:
        """The one commit point. Raises DiskError."""
        self.save(manifest.epoch, _MANIFEST, manifest.to_bytes())
        sync_folder(os.path.join(self.path, "epochs"))
        kill_point("after-manifest")

    def sync(self, epoch: int) -> None:
        """All names in a checkpoint's folder survive from here. Raises DiskError."""
        sync_folder(self._make_epoch(epoch))
        sync_folder(os.path.join(self.path, "epochs"))

    def retire(self, keep: int) -> None:
        """Let checkpoints go but for the newest."""
        whole = [number for number in self._epochs() if self.has(number, _MANIFEST)]
        for epoch in whole[:-keep]:
            self._remove(epoch)

    def _remove(self, epoch: int) -> None:
        """Under a name that nobody looks for first, so that no half of a checkpoint is ever seen."""
        folder = os.path.join(self.path, "epochs", str(epoch))
        rename(folder, f"{folder}.old")
        kill_point("after-retire-rename")
        shutil.rmtree(f"{folder}.old", ignore_errors=True)

    def path_of(self, epoch: int, name: str) -> str:
        """Raises StateError for a name that would lead out of the checkpoint's folder."""
        if os.sep in name or name in ("", ".", ".."):
            raise StateError(f"{self.path}: checkpoint {epoch} names a file {name!r}, which it cannot hold")
        return os.path.join(self.path, "epochs", str(epoch), name)
