"""A file of NDJSON or CSV, packed when its name ends in .zst or .gz.

Guarantee: whole or not there. The file gets its name when the stream has ended as it should.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

from clickpipe.batch import Batch
from clickpipe.columns import Columns
from clickpipe.core.meter import Ledger
from clickpipe.core.operator import Writer
from clickpipe.core.sink import Destination, Renderer
from clickpipe.errors import PlanError
from clickpipe.state.files import AtomicFile
from clickpipe.wire.pump import Outbox


class File(Destination):
    def open(self, given: Columns) -> Writer:
        if self.format() == "table":
            raise PlanError("a table is for standard output: sink - --format table")
        if os.path.isdir(self.address):
            raise PlanError(f"{self.address} is a directory", word=self.address)
        return FileWriter(AtomicFile(self.address), Renderer(self.form, self.format(), given), _packer(self.address))

    def guarantee(self) -> str:
        return "whole or not there: the file gets its name at the end; a killed run is run again from the start"


class FileWriter(Writer):
    def __init__(self, file: AtomicFile, renderer: Renderer, packer: Any) -> None:
        self._file, self._renderer, self._packer = file, renderer, packer
        self._outbox = Outbox(file.descriptor, file.path)

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


def _packer(path: str) -> Any:
    if path.endswith(".zst"):
        import zstandard

        return zstandard.ZstdCompressor(level=3).compressobj()
    if path.endswith(".gz"):
        return zlib.compressobj(wbits=31)
    return None
