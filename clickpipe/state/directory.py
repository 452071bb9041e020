"""A pipeline's state directory: who may write to it, and which checkpoint to go on from.

    pipelines/clicks/
        identity.json      run number and epoch, both only ever raised, and the process that reads the input
        lock               shared by all processes of a run; exclusive for the moment in which a run begins; holds
                           the number of the run whose last process has come
        start.lock         held while a run begins
        spool.json         from which record on a log holds what was spooled for it (--spool), until there is a checkpoint
        supervisor.lock    held by the supervisor that starts its runs; supervisor.json is what it says
        epochs/42/         the files of a checkpoint (epochs.py), whole once MANIFEST.json is there
        late.ndjson  dead.ndjson

A run begins in its source process: it waits until no process of an earlier run holds the lock, raises the
run number durably, and keeps the lock shared. Every other process of the run takes the lock shared and checks
the run number. So nobody of an older run, however slow, can write beside a newer one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from clickpipe.errors import OutsideError, PlanError, StateError
from clickpipe.faults import kill_point
from clickpipe.state.epochs import Epochs
from clickpipe.state.files import make_folder, outside, remove, rename, sync_folder, sync_way, write_whole
from clickpipe.state.holders import command_line, holders
from clickpipe.state.manifest import Manifest, sealed, unsealed
from clickpipe.state.space import Space
from clickpipe.state.trust import check_file_system, check_folder, check_no_links, read_own

_RESTORING = "restoring.json"
_SPOOL = "spool.json"
_PATIENCE = 3.0  # seconds that a start waits for the processes of the run before
_ANEW = "--reset at ingest starts anew, and keeps what there is aside"


@dataclass(frozen=True)
class Run:
    """One life of a pipeline. `restore`: the checkpoint it goes on from; `epoch`: the first number that it may use."""

    number: int
    epoch: int
    restore: Manifest | None


class StateDirectory(Epochs):
    """Holds the pipeline's lock from `begin` or `join` until the process ends."""

    def __init__(self, path: str, space: Space | None = None) -> None:
        super().__init__(path, space)
        self._locks: list[int] = []

    # Who may write.

    def begin(self, *, anew: bool = False, anywhere: bool = False) -> Run:
        """Start a run. Raises StateError, OutsideError, PlanError.

        `anew`: what earlier ones saved is put aside. `anywhere`: on a network file system too.
        """
        if not anywhere:
            check_file_system(self.path)
        self._make()
        self._lock("start.lock", fcntl.LOCK_EX)
        held = self._lock("lock", fcntl.LOCK_EX)
        self._check_restored(anew=anew)
        epochs = self._epochs()
        identity = self._identity(anew=anew, is_new=not epochs)
        run, epoch = identity["run"] + 1, max([identity["epoch"], *epochs]) + 1
        if anew and epochs:
            self._put_aside(run)
        if anew:
            remove(os.path.join(self.path, _SPOOL))
        restore = self.newest()
        if restore:
            self.sync(restore.epoch)  # it may have been found before it was durable, and is redone now
        self._write_identity(run, epoch)
        kill_point("after-identity")
        self._tidy()
        fcntl.flock(held, fcntl.LOCK_SH)
        os.close(self._locks.pop(0))  # start.lock: the next start may try, and wait for ours
        kill_point("after-begin")
        return Run(run, epoch, restore)

    def _check_restored(self, *, anew: bool) -> None:
        said = self.restoring()
        if said and not anew:
            name = said["savepoint"]
            hint = f"clickpipe savepoint restore {self.name} {name}"
            raise StateError(f"{self.name}: going back to savepoint {name} was cut short: do it again", hint=hint)
        if said:
            self.end_restoring()

    def join(self, run: int) -> None:
        """Belong to a run. Raises OutsideError when a newer one has begun."""
        self._check()
        self._lock("lock", fcntl.LOCK_SH)
        newest = self._identity()["run"]
        if newest != run:
            raise OutsideError(f"{self.name}: a newer run has begun ({newest}, this is {run})")
        kill_point("after-join")

    def supervise(self) -> None:
        """Be the one who starts its runs. Raises OutsideError when somebody is."""
        self._make()
        self._lock("supervisor.lock", fcntl.LOCK_EX, "it has a supervisor already")

    def lead(self, run: int) -> None:
        """Say that this process completes the run's checkpoints. For others to see while both live: it need not survive."""
        path = os.path.join(self.path, "lock")
        self.patience(self.name)(path, lambda: os.pwrite(self._locks[0], _spelled(run), 0))

    def is_led(self, run: int) -> bool:
        """Whether a process has come to complete this run's checkpoints; it may have died since."""
        with open(os.path.join(self.path, "lock"), "rb") as file:
            return file.read() == _spelled(run)

    def leave(self) -> None:
        """Let the locks go before the process ends."""
        while self._locks:
            os.close(self._locks.pop())

    def is_deserted(self) -> bool:
        """Whether no process belongs to a run; for one that has left."""
        descriptor = os.open(os.path.join(self.path, "lock"), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _make(self) -> None:
        epochs = os.path.join(self.path, "epochs")
        check_folder(self.path)
        if not os.path.islink(epochs):
            make_folder(epochs, self.patience(self.name))
        os.chmod(self.path, 0o700)
        self._check()
        sync_way(epochs)

    def _check(self) -> None:
        """Nothing of ours leads elsewhere."""
        epochs = os.path.join(self.path, "epochs")
        for folder in (self.path, epochs):
            check_folder(folder)
        for folder in (self.path, epochs):
            check_no_links(folder)

    def _lock(self, name: str, kind: int, trouble: str = "an earlier run still lives") -> int:
        path = os.path.join(self.path, name)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = self.patience(self.name)(path, lambda: os.open(path, flags, 0o600))
        except (PermissionError, IsADirectoryError) as error:
            raise PlanError(f"{path}: {error.strerror}") from None
        except OSError as error:
            raise outside(error, path) from None
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OutsideError(
                        f"{self.name}: {trouble}", notes=[f"process {pid}: {command_line(pid)}" for pid in holders(path)]
                    ) from None
                time.sleep(0.02)
            else:
                self._locks.append(descriptor)
                return descriptor

    def _tidy(self) -> None:
        """Take away what runs that died have left behind: nobody of them lives."""
        for number in self._epochs():
            if self.manifest(number) is None:
                self._remove(number)
        epochs = os.path.join(self.path, "epochs")
        for name in os.listdir(epochs):
            if name.endswith(".old"):
                shutil.rmtree(os.path.join(epochs, name), ignore_errors=True)
        for name in os.listdir(self.path):
            if name.endswith(".part") and not name.startswith("supervisor."):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.path, name))

    def _identity(self, *, anew: bool = False, is_new: bool = False) -> dict[str, int]:
        """`is_new`: there is no checkpoint, so it need not be there."""
        path = os.path.join(self.path, "identity.json")
        try:
            line = unsealed(read_own(path))
        except FileNotFoundError:
            if is_new:
                return {"run": 0, "epoch": 0}
            if anew:
                return {"run": int(time.time()), "epoch": 0}
            raise StateError(f"{path} is gone, and checkpoints are there", hint=_ANEW) from None
        if line is None:
            if anew:
                rename(path, f"{path}.damaged-{int(time.time())}")
                return {"run": int(time.time()), "epoch": 0}  # beyond all runs that there can have been
            raise StateError(f"{path} is damaged", hint=_ANEW)
        said: dict[str, int] = orjson.loads(line)
        return said

    def _write_identity(self, run: int, epoch: int) -> None:
        said = {"clickpipe": "identity", "v": 1, "run": run, "epoch": epoch, "process": os.getpid()}
        data = sealed(orjson.dumps(said) + b"\n")
        write_whole(os.path.join(self.path, "identity.json"), data, "identity", self.patience(self.name))

    def take_over(self) -> None:
        """Nobody runs or supervises it from here on. Raises OutsideError while somebody does."""
        self._make()
        for name in ("supervisor.lock", "start.lock", "lock"):
            self._lock(name, fcntl.LOCK_EX)

    def restoring(self) -> dict[str, Any] | None:
        """What a restore was about that has not come to its end."""
        try:
            said: dict[str, Any] = orjson.loads(read_own(os.path.join(self.path, _RESTORING)))
        except FileNotFoundError:
            return None
        except ValueError:
            raise StateError(f"{os.path.join(self.path, _RESTORING)} is damaged", hint=_ANEW) from None
        return said

    def begin_restoring(self, said: Mapping[str, Any]) -> None:
        """No run begins from here on until it has come to its end."""
        write_whole(os.path.join(self.path, _RESTORING), orjson.dumps(said), "restoring")

    def end_restoring(self) -> None:
        remove(os.path.join(self.path, _RESTORING))
        sync_folder(self.path)

    def put_aside(self) -> None:
        """For a savepoint to take its place: what was saved is renamed, and numbers go on."""
        identity, epochs = self._identity(), self._epochs()
        self._write_identity(identity["run"] + 1, max([identity["epoch"], *epochs]))
        self._put_aside(identity["run"] + 1)

    def _put_aside(self, run: int) -> None:
        """What was saved gets another name; nothing is deleted. Run and epoch numbers go on."""
        epochs = os.path.join(self.path, "epochs")
        rename(epochs, f"{epochs}.before-run-{run}")
        make_folder(epochs, self.patience(self.name))

    # What was spooled.

    def spooled(self, log: str, first: int) -> int:
        """The first record of what was spooled for this pipeline to the log with this id: that which was said first. For runs
        that have no checkpoint to go on from. Raises StateError, DiskError."""
        if (known := self.spool()) and known[0] == log:
            return known[1]
        data = sealed(orjson.dumps({"clickpipe": "spool", "v": 1, "log": log, "first": first}) + b"\n")
        write_whole(os.path.join(self.path, _SPOOL), data, "spool", self.patience(self.name))
        return first

    def spool(self) -> tuple[str, int] | None:
        """The id of the log that it spools to, and the first record; None where it does not. Raises StateError."""
        path = os.path.join(self.path, _SPOOL)
        try:
            data = read_own(path)
        except FileNotFoundError:
            return None
        if (line := unsealed(data)) is None:
            raise StateError(f"{path} is damaged", hint=_ANEW)
        said = orjson.loads(line)
        return str(said["log"]), int(said["first"])

    # Who lives.

    def run(self) -> int:
        """The number of the newest run, 0 before the first. Raises StateError."""
        return int(self._identity(is_new=not self._epochs())["run"])

    def last_run(self) -> int:
        """The same; 0 where there is none, or none that can be read."""
        try:
            return self.run()
        except StateError:
            return 0

    def processes(self) -> list[int]:
        """Of the run that lives, if one does."""
        return holders(os.path.join(self.path, "lock"))

    def source(self) -> int | None:
        """The process that reads the input: the one to ask for an end."""
        process = self._identity(is_new=not self._epochs()).get("process")
        return process if process in self.processes() else None

    def supervisor(self) -> int | None:
        return next(iter(holders(os.path.join(self.path, "supervisor.lock"))), None)

    def tell_of_supervisor(self, said: Mapping[str, Any]) -> None:
        """What the supervisor knows, for `status`. Raises DiskError."""
        write_whole(os.path.join(self.path, "supervisor.json"), orjson.dumps(said) + b"\n", "supervisor")

    def told_by_supervisor(self) -> dict[str, Any]:
        """What the last one said; empty where there was none."""
        try:
            with open(os.path.join(self.path, "supervisor.json"), "rb") as file:
                said: dict[str, Any] = orjson.loads(file.read())
        except (OSError, ValueError):
            return {}
        return said


def _spelled(run: int) -> bytes:
    return b"%020d\n" % run
