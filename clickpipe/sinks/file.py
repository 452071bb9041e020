"""A file of NDJSON or CSV, packed when its name ends in .zst or .gz.

Guarantee: whole or not there. The file gets its name when the stream has ended as it should. With checkpoints
exactly once: until then its rows stand in FILE.parts/, a file per checkpoint.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from clickpipe.batch import Batch
from clickpipe.columns import Columns
from clickpipe.core.guarantee import EXACTLY_ONCE, WHOLE, Guarantee
from clickpipe.core.meter import Ledger
from clickpipe.core.operator import Staged, Writer
from clickpipe.core.sink import Commits, Destination, Renderer
from clickpipe.errors import PlanError
from clickpipe.state.directory import StateDirectory
from clickpipe.state.files import AtomicFile, StagedFile, is_special
from clickpipe.state.parts import Parts
from clickpipe.wire.pump import Outbox


class File(Destination):
    shows_all = True

    def open(self, given: Columns) -> Writer:
        self._check()
        return FileWriter(AtomicFile(self.address), Renderer(self.form, self.format(), given), _packer(self.address))

    def open_staged(self, given: Columns, restored: int, saved: Mapping[str, Any] | None, directory: StateDirectory) -> Writer:
        self._check()
        if is_special(self.address):  # it would be renamed over
            hint = f"sink - > {self.address} gives each row at least once"
            raise PlanError(f"{self.address} is a device or pipe: not with --checkpoint", hint=hint, word=self.address)
        parts = Parts(self.address, directory.patience(self.address))
        parts.begin(restored, saved, directory.path)
        goes_on = bool(saved and saved["begun"])
        return PartsWriter(self.address, parts, Renderer(self.form, self.format(), given, goes_on=goes_on))

    @classmethod
    def commits(cls, directory: StateDirectory) -> Commits:
        return FileCommits(directory)

    def check_middle(self) -> None:
        with suppress(OSError):
            if os.path.samestat(os.stat(self.address), os.fstat(1)):
                raise PlanError("standard output carries the stream to the next step", word=self.address)

    def place(self) -> str:
        return os.path.realpath(self.address)

    def _check(self) -> None:
        if self.format() == "table":
            raise PlanError("a table is for standard output: sink - --format table")
        if os.path.isdir(self.address):
            raise PlanError(f"{self.address} is a directory", word=self.address)

    def guarantee(self, *, has_checkpoints: bool) -> Guarantee:
        if has_checkpoints:
            why = f"rows become visible in {self.address}.parts at checkpoints, and as {self.address} at the end"
            return Guarantee(EXACTLY_ONCE, why)
        return Guarantee(WHOLE, "the file gets its name at the end; a killed run is run again from the start")


class FileWriter(Writer):
    def __init__(self, file: AtomicFile, renderer: Renderer, packer: Any) -> None:
        self._file, self._renderer, self._packer = file, renderer, packer
        self._outbox = Outbox(file.descriptor, file.path)

    @property
    def bytes_out(self) -> int:  # type: ignore[override]  # it is counted elsewhere
        return self._outbox.sent

    def write(self, batch: Batch) -> None:
        self._put(self._renderer.bytes(batch))

    def _put(self, data: bytes) -> None:
        self._outbox.put(self._packer.compress(data) if self._packer else data)

    def close(self, accounts: list[Ledger]) -> None:
        self._put(self._renderer.rest())
        if self._packer:
            self._outbox.put(self._packer.flush())
        self._outbox.close()
        self._file.commit()

    def abandon(self) -> None:
        self._file.discard()


class PartsWriter(Writer):
    """A part per checkpoint; a packed one is packed by itself, and members that follow each other are one packed file."""

    def __init__(self, path: str, parts: Parts, renderer: Renderer) -> None:
        self._path, self._parts, self._renderer = path, parts, renderer
        self._file: StagedFile | None = None
        self._packer: Any = None
        self._begun = not renderer.is_first

    def write(self, batch: Batch) -> None:
        self._put(self._renderer.bytes(batch))

    def _put(self, data: bytes) -> None:
        if not data:
            return
        if self._file is None:
            self._file, self._packer, self._begun = self._parts.stage(), _packer(self._path), True
        data = self._packer.compress(data) if self._packer else data
        self._file.write(data)
        self.bytes_out += len(data)

    def prepare(self, epoch: int, *, ended: bool) -> Staged:
        if ended:
            self._put(self._renderer.rest())
        file, self._file = self._file, None
        if file and self._packer:
            file.write(self._packer.flush())
        said = self._parts.said(epoch, has_rows=file is not None, begun=self._begun, ended=ended)
        if file is None:
            return Staged(said, lambda: None)
        return Staged(said, lambda: self._parts.durable(file, epoch), self._parts.hidden(epoch))

    def abandon(self) -> None:
        if self._file:
            self._file.discard()


class FileCommits(Commits):
    _parts: Parts | None = None

    def commit(self, said: Mapping[str, Any]) -> None:
        self._parts = self._parts or Parts(said["to"], self._directory.patience(said["to"]))
        self._parts.commit(said)

    def check_rewind(self, said: Mapping[str, Any]) -> None:
        Parts(said["to"]).check_rewind(said)

    def rewind(self, said: Mapping[str, Any]) -> str:
        return Parts(said["to"]).rewind(said)


def _packer(path: str) -> Any:
    if path.endswith(".zst"):
        import zstandard

        return zstandard.ZstdCompressor(level=3).compressobj()
    if path.endswith(".gz"):
        return zlib.compressobj(wbits=31)
    return None
