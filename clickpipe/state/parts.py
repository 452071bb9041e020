"""A file that grows by whole checkpoints, so that no reader ever sees half a row.

    out.ndjson.parts/000000000042.ndjson     the rows that checkpoint 42 made visible, whole
    out.ndjson.parts/.000000000043.part      being written: durable before the manifest, visible after it
    out.ndjson                               all parts in order, when the input has ended; then the parts go

A name is the epoch, so committing a part twice is committing it once.

The process that writes the parts and the one that commits them may be two (a sink in the middle of a pipeline):

    writes    begin, said, stage, durable         hidden names only, of its own epochs
    commits   commit                              hidden -> shown, of epochs that a manifest names

A run begins in both at once. What the first tidies away while the second commits the restored checkpoint r again:
    1. r's part, hidden: it stays, and is renamed now or in a moment.
    2. r's part, shown: as if it had been renamed before.
    3. Other hidden parts: of runs that died; no manifest names them, so nobody commits them. They go.
    4. r has ended: the commit may be putting the whole file together. Nothing more will be written: hands off.
    5. Shown parts beyond r: nobody of this run has written any yet, so they are of a checkpoint that is lost.
How many parts there are is counted by the process that commits, after its commit: the other could see too few.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Any

from clickpipe.errors import PlanError, StateError
from clickpipe.faults import kill_point
from clickpipe.state.files import StagedFile, make_folder, rename, sync_folder, write_whole
from clickpipe.state.manifest import sealed, unsealed
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.state.trust import check_folder, check_no_links, read_own

_CHUNK = 1 << 20
_OWNER = "owner"


class Parts:
    """The parts of one file."""

    def __init__(self, path: str, patience: Patience = NO_PATIENCE) -> None:
        self._patience = patience
        self._count, self._is_checked, self._owner = 0, False, ""
        self._typed, self._path = path, os.path.realpath(path)  # a person may have put a link there
        self._folder = f"{self._path}.parts"
        self._suffix = os.path.splitext(path)[1]

    # To write them.

    def begin(self, restored: int, saved: Mapping[str, Any] | None, owner: str = "") -> None:
        """`restored`: the checkpoint that the run goes on from, 0 for none; `saved`: what `said` had said for it; `owner`: who
        writes here, and nobody else until it has ended.

        Raises PlanError, and StateError where the parts are not those of that checkpoint.
        """
        if not os.path.isdir(os.path.dirname(self._path)):
            raise PlanError(f"{self._typed}: No such file or directory", word=self._typed)
        if not os.access(os.path.dirname(self._path), os.W_OK | os.X_OK):
            raise PlanError(f"{self._typed}: its directory is not writable", word=self._typed)
        if os.path.lexists(self._folder):
            check_folder(self._folder)
            check_no_links(self._folder)
        self._owner = owner
        self._check_owner()
        if saved and saved["to"] != self._path:
            raise StateError(f"checkpoint {restored} has its results in {saved['to']}, and these would go to {self._path}")
        self._count = saved["parts"] if saved else 0
        if not (saved and saved["ended"]):
            self._tidy(restored)

    def said(self, epoch: int, *, has_rows: bool, begun: bool, ended: bool) -> dict[str, Any]:
        """What a checkpoint says of the file: where it is, and how many parts there are then."""
        self._count += has_rows
        return {"epoch": epoch, "rows": has_rows, "begun": begun, "ended": ended, "to": self._path, "parts": self._count}

    def stage(self) -> StagedFile:
        """A new part, not yet to be seen."""
        make_folder(self._folder, self._patience)
        self._claim()
        return StagedFile(os.path.join(self._folder, f".{os.getpid()}-{time.monotonic_ns()}.part"), self._patience)

    def _claim(self) -> None:
        """The first to come owns the folder."""
        if self._owner and self._check_owner() is None:
            line = f"{self._owner}\n".encode()
            write_whole(os.path.join(self._folder, _OWNER), sealed(line), "owner", self._patience)
            self._check_owner()

    def _check_owner(self) -> str | None:
        """Whose results stand there; None: nobody's who could be told. Raises StateError where they are another pipeline's."""
        try:
            line = unsealed(read_own(os.path.join(self._folder, _OWNER)))
        except OSError:
            return None
        if line is None:
            return None
        owner = line.decode("utf-8", "replace")
        if self._owner and owner != self._owner:
            raise StateError(
                f"{self._path} is written by another pipeline, {os.path.basename(owner)}, whose input has not ended",
                notes=[
                    "either name another file,",
                    "or drain that pipeline first;",
                    f"if it is of no use any more, remove {self._folder}",
                ],
            )
        return owner

    def durable(self, file: StagedFile, epoch: int) -> None:
        """Under a name of its checkpoint, still hidden. That the folder survives is seen to by who completes the checkpoint."""
        file.publish(self.hidden(epoch), "part")

    def hidden(self, epoch: int) -> str:
        """Where the part of a checkpoint is before it is committed."""
        return os.path.join(self._folder, f".{epoch:012d}.part")

    def files(self) -> list[str]:
        """What is to be seen, in order: the whole file once it is put together."""
        shown = [self._shown(epoch) for epoch in self._visible()]
        return shown or [self._path] * os.path.exists(self._path)

    # To commit them.

    def commit(self, said: Mapping[str, Any]) -> None:
        """Show the part of a checkpoint, and at the end of the input the whole file."""
        if said["rows"]:
            if os.path.exists(self.hidden(said["epoch"])):
                rename(self.hidden(said["epoch"]), self._shown(said["epoch"]))
            kill_point("after-part-rename")
        if said["ended"] and said["begun"] and not os.path.isdir(self._folder) and os.path.exists(self._path):
            shutil.rmtree(f"{self._folder}.done", ignore_errors=True)
            return  # this has been done
        self._check_count(said)
        if said["ended"]:
            self._assemble()

    def check_rewind(self, said: Mapping[str, Any]) -> None:
        """Raises StateError when the parts of that checkpoint are not there any more."""
        there = [epoch for epoch in self._visible() if epoch <= said["epoch"]]
        if len(there) != said["parts"] and not said["ended"]:
            why = "was put together when the input ended" if os.path.exists(self._path) else "lacks some of its parts"
            raise StateError(f"{self._path} {why}: results after checkpoint {said['epoch']} cannot be taken out of it")

    def rewind(self, said: Mapping[str, Any]) -> str:
        """Put the parts of later checkpoints aside. Where they are."""
        later = [epoch for epoch in self._visible() if epoch > said["epoch"]]
        if not later:
            return ""
        aside = f"{self._folder}.after-{said['epoch']}-{int(time.time())}"
        make_folder(aside)
        for epoch in later:
            rename(self._shown(epoch), os.path.join(aside, os.path.basename(self._shown(epoch))))
        return f"parts of {self._path} that came later are kept in {aside}: {len(later)}"

    def _check_count(self, said: Mapping[str, Any]) -> None:
        """Nobody has taken parts away. Looked at once: what this run has shown, it knows of."""
        if self._is_checked:
            return
        if len(self._visible()) != said["parts"]:
            raise StateError(
                f"{self._folder} holds {len(self._visible())} parts, and checkpoint {said['epoch']} knows of {said['parts']}",
                notes=["either put what is missing back, or start anew with --reset at ingest"],
            )
        self._is_checked = True

    def _tidy(self, restored: int) -> None:
        """Take away what no manifest names. Raises StateError when there are parts that no checkpoint knows of."""
        shutil.rmtree(f"{self._folder}.done", ignore_errors=True)
        for name in self._names():
            if name.startswith(".") and name != os.path.basename(self.hidden(restored)):
                os.unlink(os.path.join(self._folder, name))
        ahead = [epoch for epoch in self._visible() if epoch > restored]
        if ahead and restored == 0:
            rename(self._folder, f"{self._folder}.before-{int(time.time())}")
        elif ahead:
            raise StateError(
                f"{self._folder} holds results up to checkpoint {ahead[-1]}, and the newest that can be read is {restored}",
                notes=[
                    "going on from there would give some results twice",
                    f"either put checkpoint {ahead[-1]} of the pipeline back from a copy,",
                    "or start anew with --reset at ingest",
                ],
            )

    def _assemble(self) -> None:
        """The whole file, then no parts. After a crash in between it is done again."""
        file = self.stage()
        for epoch in self._visible():
            for chunk in _chunks(self._shown(epoch)):
                file.write(chunk)
        file.publish(self._path, "whole")
        rename(self._folder, f"{self._folder}.done")
        kill_point("after-parts-renamed")
        shutil.rmtree(f"{self._folder}.done", ignore_errors=True)
        sync_folder(os.path.dirname(self._path))

    def _visible(self) -> list[int]:
        """The epochs of the parts that are to be seen, in order."""
        return sorted(int(name.split(".")[0]) for name in self._names() if name[:1].isdigit())

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._folder)
        except FileNotFoundError:
            return []

    def _shown(self, epoch: int) -> str:
        return os.path.join(self._folder, f"{epoch:012d}{self._suffix}")


def _chunks(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
