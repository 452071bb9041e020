"""A log: a durable queue that other pipelines read, in their own time and as often as they like.

Guarantee: exactly once with checkpoints: readers see what whole checkpoints have brought; without, records are durable and seen
as they come, at least once. Memory: 1 MiB of text for each partition, and 16 MiB of packed batches.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import Any, BinaryIO, ClassVar

from clickpipe.batch import Batch
from clickpipe.columns import Columns
from clickpipe.core.guarantee import AT_LEAST_ONCE, EXACTLY_ONCE, Guarantee
from clickpipe.core.keygroups import worker_of
from clickpipe.core.meter import Ledger
from clickpipe.core.operator import Staged, Writer
from clickpipe.core.render import as_ndjson
from clickpipe.core.sink import Commits, Destination
from clickpipe.core.time import instants
from clickpipe.errors import PlanError, StateError
from clickpipe.faults import kill_point
from clickpipe.state.directory import StateDirectory
from clickpipe.state.files import StagedFile
from clickpipe.store.logappend import Appending, Piece
from clickpipe.store.logends import Place
from clickpipe.store.logmeta import made
from clickpipe.store.logs import Log
from clickpipe.store.logwriter import Batches, LogWriter, rolled
from clickpipe.store.segments import Head, Packer

_BEHIND = 4  # batches that wait to be packed
_MOST = 16 << 20  # bytes of packed batches that are held before they go to a file


class LogSink(Destination):
    takes: ClassVar[frozenset[str]] = frozenset({"partitions", "by"})
    shows_all = True

    def needs(self, given: Columns) -> tuple[str, ...]:
        return (*self.form.by, *([given.time.name] if given.time else []))

    def open(self, given: Columns) -> Writer:
        self._check(given)
        return LogSinkWriter(LogWriter(self.address, self.form.partitions, self.form.by), _Divided(self, given))

    def open_staged(self, given: Columns, restored: int, saved: Mapping[str, Any] | None, directory: StateDirectory) -> Writer:
        self._check(given)
        patience = directory.patience(f"log {self.address}")
        meta = made(self.address, self.form.partitions, self.form.by, patience)
        log = Log(self.address)
        if saved and saved["id"] != meta.id:
            raise StateError(
                f"log {self.address} is not the one that checkpoint {restored} of {directory.name} wrote to",
                notes=["either put it back from a copy,", "or start anew with --reset at ingest"],
            )
        now = [log.place(number) for number in range(log.partitions)]
        places = [Place(**place) for place in saved["ends"]] if saved else now
        for number, (place, there) in enumerate(zip(places, now, strict=True)):
            if saved and there.offset < (least := _least(saved, number)):
                raise StateError(
                    f"{log.title(number)} has records up to {there.offset:,} only, and those up to {least:,} had been given",
                    notes=["either put it back from a copy,", "or start anew with --reset at ingest"],
                )
            if there.offset > place.offset:
                raise StateError(
                    f"{log.title(number)} has records up to {there.offset:,}, and checkpoint {restored} of {directory.name} "
                    f"knows of {place.offset:,}",
                    notes=["another pipeline writes to it, or newer checkpoints are gone", "--reset at ingest begins anew"],
                )
        return StagedLogWriter(log, _Divided(self, given), places, directory)

    @classmethod
    def commits(cls, directory: StateDirectory) -> Commits:
        return LogCommits(directory)

    def guarantee(self, *, has_checkpoints: bool) -> Guarantee:
        if has_checkpoints:
            return Guarantee(EXACTLY_ONCE, "what checkpoints have brought is appended at its place, and nowhere else")
        return Guarantee(AT_LEAST_ONCE, "records are durable as they come; a run that is done again appends them again")

    def _check(self, given: Columns) -> None:
        if self.form.format not in (None, "ndjson"):
            raise PlanError("a log holds NDJSON", word="--format")
        if self.form.partitions is not None and self.form.partitions < 1:
            raise PlanError("--partitions must be at least 1", word="--partitions")
        if (self.form.partitions or 1) > 1 and not self.form.by:
            raise PlanError("by which columns are records divided?", hint="--by COL,…", word="--partitions")
        given.need(self.form.by, " for --by")


def _least(saved: Mapping[str, Any], number: int) -> int:
    """The end of a partition before this checkpoint, whose rows may be appended at this moment."""
    began = [part["place"]["offset"] for part in saved["parts"] if part["partition"] == number]
    return int(began[0] if began else saved["ends"][number]["offset"])


class _Divided:
    """Batches -> lines of each partition, and their times."""

    def __init__(self, sink: LogSink, given: Columns) -> None:
        self._spell, self._given = sink.form.spell_times, given
        meta = made(sink.address, sink.form.partitions, sink.form.by)
        self._partitions, self._by = meta.partitions, tuple(meta.by)
        given.need(self._by, f", by which log:{sink.address} is divided")

    def parts(self, batch: Batch) -> Iterator[tuple[int, bytes, tuple[int, int] | None]]:
        if self._partitions == 1:
            yield 0, as_ndjson(batch, self._spell), self._times(batch)
            return
        numbers = batch.frame.select(worker_of(self._by, self._partitions).alias("worker")).to_series()
        for number in range(self._partitions):
            some = batch.keep(numbers == number)
            if some.height:
                yield number, as_ndjson(some, self._spell), self._times(some)

    def _times(self, batch: Batch) -> tuple[int, int] | None:
        time = self._given.time
        if time is None or time.name not in batch.frame.columns:
            return None
        found = instants(batch.frame[time.name], batch.columns.types[time.name], time.unit)
        least, greatest = found.min(), found.max()
        return (least, greatest) if isinstance(least, int) and isinstance(greatest, int) and not found.null_count() else None


class _Behind:
    """Work done in a thread, in the order in which it was put; it may be behind by a few pieces."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._pending: deque[Future[None]] = deque()

    def put(self, work: Callable[[], None]) -> None:
        """Raises what an earlier one raised."""
        while self._pending and (self._pending[0].done() or len(self._pending) > _BEHIND):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(work))

    def wait(self) -> None:
        """Until all is done. Raises what it raised."""
        while self._pending:
            self._pending.popleft().result()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class LogSinkWriter(Writer):
    """Records are durable as they come."""

    def __init__(self, writer: LogWriter, divided: _Divided) -> None:
        self._writer, self._divided, self._behind = writer, divided, _Behind()

    def write(self, batch: Batch) -> None:
        for part in self._divided.parts(batch):
            self._behind.put(partial(self._writer.append, *part))

    def advance(self, watermark: int | None) -> None:
        self._behind.put(self._writer.commit)

    def close(self, accounts: list[Ledger]) -> None:
        self._behind.put(self._writer.commit)
        self._behind.wait()
        self._behind.close()
        self._writer.close()

    def abandon(self) -> None:
        self._behind.close()
        self._writer.close()


class StagedLogWriter(Writer):
    """The batches between two checkpoints, with the numbers that they will have, in a file of the second one."""

    def __init__(self, log: Log, divided: _Divided, places: list[Place], directory: StateDirectory) -> None:
        packer = Packer()
        self._log, self._divided, self._directory = log, divided, directory
        self._places = places
        self._batches = [Batches(place, packer) for place in places]
        self._behind = _Behind()
        self._packed: list[list[bytes]] = [[] for _ in places]
        self._size = 0
        self._name = f"log-{log.name}-{secrets.token_hex(4)}.rows"
        self._files = count(1)
        self._file: StagedFile | None = None
        self._parts: list[dict[str, Any]] = []

    def write(self, batch: Batch) -> None:
        for part in self._divided.parts(batch):
            self._behind.put(partial(self._pack, *part))

    def _pack(self, number: int, text: bytes, times: tuple[int, int] | None) -> None:
        self._hold(number, self._batches[number].add(text, times))
        if self._size > _MOST:
            self._spill()

    def _hold(self, number: int, batches: list[tuple[Head, bytes]]) -> None:
        self._packed[number] += [data for _, data in batches]
        self._size += sum(len(data) for _, data in batches)

    def _spill(self) -> None:
        """What is held, to the file."""
        for number, packed in enumerate(self._packed):
            if not packed:
                continue
            self._file = self._file or self._begun()
            data, place = b"".join(packed), self._places[number].to_json()
            self._parts.append({"partition": number, "place": place, "from": self._file.bytes, "bytes": len(data)})
            self._file.write(data)
            self._batches[number].place = self._places[number] = rolled(self._batches[number].place)
        self._packed, self._size = [[] for _ in self._batches], 0

    def _begun(self) -> StagedFile:
        patience = self._directory.patience(f"log {self._log.name}")
        return StagedFile(f"{self._directory.path}/.{next(self._files)}-{self._name}.part", patience, mode=0o600)

    def prepare(self, epoch: int, *, ended: bool) -> Staged:
        self._behind.wait()
        for number, batches in enumerate(self._batches):
            if not batches.is_empty:
                self._hold(number, batches.rest())
        self._spill()
        file, self._file = self._file, None
        parts, self._parts = self._parts, []
        said = {"log": self._log.name, "id": self._log.id, "epoch": epoch, "parts": parts}
        said |= {"ends": [place.to_json() for place in self._places], "rows": None}
        if file is None:
            return Staged(said, lambda: None)
        said["rows"] = {"file": self._name, "bytes": file.bytes, "hash": file.hash}
        place = self._directory.place(epoch, self._name)
        return Staged(said, lambda: file.publish(place, "log-rows"), place)

    def close(self, accounts: list[Ledger]) -> None:
        """The batches are with the checkpoints."""
        self._behind.close()

    def abandon(self) -> None:
        self._behind.close()
        if self._file:
            self._file.discard()


class LogCommits(Commits):
    _appending: Appending | None = None

    def commit(self, said: Mapping[str, Any]) -> None:
        if not said["parts"]:
            return
        patience = self._directory.patience(f"log {said['log']}")
        self._appending = self._appending or Appending(said["log"], said["id"], patience)
        pieces: dict[int, list[Piece]] = {}
        for part in said["parts"]:
            pieces.setdefault(part["partition"], []).append(Piece(Place(**part["place"]), part["from"], part["bytes"]))
        with self._directory.opened(said["epoch"], said["rows"]) as file:
            for number, mine in pieces.items():
                self._appending.append(number, mine, partial(_read, file))
                kill_point("after-log-part")

    def check_rewind(self, said: Mapping[str, Any]) -> None:
        log = Log(said["log"])
        if log.id != said["id"]:
            raise StateError(f"log {said['log']} is not the one that checkpoint {said['epoch']} wrote to")
        for number, end in enumerate(said["ends"]):
            if log.place(number).offset > end["offset"]:
                raise StateError(
                    f"{log.title(number)} has records after {end['offset']:,}, which its readers may have read",
                    notes=["a log is never taken back: --reset at ingest goes on behind what is there"],
                )

    def rewind(self, said: Mapping[str, Any]) -> str:
        return ""

    def close(self) -> None:
        if self._appending:
            self._appending.close()


def _read(file: BinaryIO, piece: Piece) -> bytes:
    file.seek(piece.begin)
    return file.read(piece.size)
