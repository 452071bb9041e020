"""What the processes of a pipeline say of themselves once a second, and at their end, for whoever looks from outside.

    …/run/clicks/0.json              the process that begins with step 0, the source
    …/run/clicks/2.1.json            worker 1 of those that begin with step 2
    …/run/clicks/1@4711-90412.json   step 1 of a pipeline without checkpoints, of which there may be several of one name
    …/run/clicks/opening@4711-90412.json   a process that begins, until it has said more

Files are seen whole, and need not survive. One that a killed process has left says so: no process has that number and that
beginning any more. `$CLICKPIPE_METRICS=off`: nothing is written.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count

import orjson

from clickpipe.errors import ClickpipeError, ReaderGone
from clickpipe.spent import spent
from clickpipe.state.files import make_folder, write_fleeting
from clickpipe.state.home import is_name, run_directories, run_directory
from clickpipe.state.trust import check_folder, read_own

EVERY = 1.0  # seconds
_BEAT = 0.25  # seconds between two looks for whoever asks
STRETCH = 5.0  # seconds, of which each that has passed has a rate …
STRETCHES = 60  # … and how many are told of
SWITCH = "CLICKPIPE_METRICS"
VERSION = 1
_LIFE = re.compile(r"[0-9]{1,10}-[0-9]{1,19}")


@dataclass(frozen=True)
class StepSample:
    """Of one step: what has gone in and out, in records and batches; for how many seconds it was busy; what it holds."""

    hop: int
    name: str
    says: str = ""
    records_in: int = 0
    records_out: int = 0
    batches: int = 0
    busy: float = 0.0
    state_rows: int = 0
    state_bytes: int = 0


@dataclass(frozen=True)
class SplitSample:
    """Of a split that is not at its end. `position`: bytes of text; `watermark`: epoch milliseconds; `silent`: milliseconds for
    which it has given nothing, if it is idle."""

    name: str
    position: int | None = None
    watermark: int | None = None
    silent: int | None = None


@dataclass(frozen=True)
class Before:
    """Numbers of the sample before, so that one sample tells how fast things go. `steps`: records in, out, seconds busy."""

    at: float
    records: int
    idle: float
    backpressured: float
    bytes_in: int
    bytes_out: int
    steps: tuple[tuple[int, int, float], ...] = ()


@dataclass(frozen=True)
class CheckpointSample:
    """The newest that is complete: when it was, in seconds since 1970, how many seconds after it had begun, and its size."""

    epoch: int
    completed: float
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Sample:
    """Of one process, now. `born`: when it began, in the kernel's ticks, so that another of its number is told apart;
    `life`: of the pipeline: processes with the same one belong together; `run`: its number where there are checkpoints;
    `at`: seconds of the monotonic clock, which all processes of a machine share, and `when` since 1970; `ended`: how, or empty.

    `records`: how many it has been given; `busy`, `idle`, `backpressured`: seconds since it began; `outcomes`: what became of
    records that ended here; `watermark` and `greatest`, the latest event time: epoch milliseconds; `splits`: those furthest
    behind, of `splits_in_all`; `checkpoint`: in the last process; `interval`: seconds between two of them, in the first;
    `extent`: how much of the input was read, and how much there is, where that is known;
    `rates`: records per second of the stretches that have passed, the last one last; `moved`: when the watermark did, in seconds
    since 1970.
    """

    process: int
    hop: int
    worker: int | None
    records: int
    at: float
    busy: float
    idle: float
    backpressured: float
    born: int = 0
    life: str = ""
    run: int | None = None
    when: float = 0.0
    ended: str = ""
    version: int = VERSION
    bytes_in: int = 0
    bytes_out: int = 0
    steps: tuple[StepSample, ...] = ()
    outcomes: dict[str, int] | None = None
    watermark: int | None = None
    greatest: int | None = None
    splits: tuple[SplitSample, ...] = ()
    splits_in_all: int = 0
    checkpoint: CheckpointSample | None = None
    interval: float | None = None
    extent: tuple[int, int] | None = None
    before: Before | None = None
    rates: tuple[int, ...] = ()
    moved: float | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the process is there that has said this."""
        return not self.ended and born(self.process) == self.born


def born(process: int) -> int | None:
    """When a process began, in ticks since the machine did; None: there is none."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def new_life() -> str:
    """For a pipeline that begins in this process."""
    return f"{os.getpid()}-{born(os.getpid()) or 0}"


def is_life(text: str) -> bool:
    """Whether it can be one, and part of a file's name."""
    return _LIFE.fullmatch(text) is not None


@contextmanager
def written(
    pipeline: str,
    sample: Callable[[], Sample],
    beat: Callable[[], None] = lambda: None,
    end: Callable[[], str] = lambda: "done",
    first: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """While in here, a thread writes once a second what `sample` gives. That it cannot be written is no reason to stop.

    `beat`: what else it does, four times as often; `end`: how it has ended, where nothing has failed; `first`: is called when the
    first sample has been written.
    """
    if os.environ.get(SWITCH) == "off":
        yield
        return
    over = threading.Event()
    going = _Going(sample)

    def work() -> None:
        for number in count():
            if number % round(EVERY / _BEAT) == 0:
                _write(pipeline, going.next())
            if number == 0:
                first()
            beat()
            if over.wait(_BEAT):
                return

    thread = threading.Thread(target=work, daemon=True, name="samples")
    thread.start()
    ended = "failed"
    try:
        yield
        ended = end()
    except ReaderGone:
        ended = end()
        raise
    finally:
        over.set()
        thread.join()
        _write(pipeline, replace(going.next(), ended=ended))


@contextmanager
def opening(pipeline: str) -> Iterator[Callable[[], None]]:
    """While in here, a process that begins a pipeline says that it lives, although it computes nothing yet; until what this gives
    is called, when it says more."""
    if os.environ.get(SWITCH) == "off":
        yield lambda: None
        return
    over, pid = threading.Event(), os.getpid()
    began = Sample(pid, 0, None, 0, 0.0, 0.0, 0.0, 0.0, born=born(pid) or 0, life=new_life())
    name = f"opening@{began.life}.json"

    def work() -> None:
        while True:
            now = spent()
            told = replace(began, busy=now.busy, idle=now.idle, backpressured=now.backpressured)
            _write(pipeline, replace(told, at=time.monotonic(), when=time.time()), name)
            if over.wait(EVERY):
                return

    thread = threading.Thread(target=work, daemon=True, name="opening")
    thread.start()

    def end() -> None:
        over.set()
        thread.join()
        with suppress(OSError, ClickpipeError):
            os.unlink(os.path.join(run_directory(pipeline), name))

    try:
        yield end
    finally:
        end()


def reads(sample: Sample) -> bool:
    """Whether a source has its state again, and its input: it computes, or waits for the first records."""
    return bool(sample.steps) or sample.idle > 0


class _Going:
    """Samples, each with what was before it."""

    def __init__(self, sample: Callable[[], Sample]) -> None:
        self._sample = sample
        self._before: Sample | None = None
        self._rates: deque[int] = deque(maxlen=STRETCHES)
        self._since: Sample | None = None  # where the stretch began
        self._moved: float | None = None

    def next(self) -> Sample:
        now, before = self._sample(), self._before
        self._before, self._since = now, self._since or now
        if now.watermark is not None and (before is None or now.watermark != before.watermark):
            self._moved = now.when
        if (seconds := now.at - self._since.at) >= STRETCH:
            self._rates.append(round((now.records - self._since.records) / seconds))
            self._since = now
        return replace(now, before=_before(before) if before else None, rates=tuple(self._rates), moved=self._moved)


def _before(one: Sample) -> Before:
    steps = tuple((step.records_in, step.records_out, step.busy) for step in one.steps)
    return Before(one.at, one.records, one.idle, one.backpressured, one.bytes_in, one.bytes_out, steps)


def _write(pipeline: str, sample: Sample, name: str = "") -> None:
    with suppress(ClickpipeError, OSError):
        write(pipeline, sample, name)


def write(pipeline: str, sample: Sample, name: str = "") -> None:
    """Raises DiskError, PlanError. `name`: of its file, where it is not that of a process that computes."""
    folder = run_directory(pipeline)
    check_folder(folder)
    make_folder(folder)
    write_fleeting(os.path.join(folder, name or _name(sample)), orjson.dumps(sample) + b"\n")


def _name(sample: Sample) -> str:
    worker = "" if sample.worker is None else f".{sample.worker}"
    return f"{sample.hop}{worker}{'' if sample.run else f'@{sample.life}'}.json"


def read(pipeline: str) -> list[Sample]:
    """What there is, by hop and worker; of a process that has begun to compute, only that."""
    found, has_changed = _found(pipeline)
    if has_changed:
        found, _ = _found(pipeline)
    computing = {(one.process, one.born) for one in found if one.steps}
    found = [one for one in found if one.steps or (one.process, one.born) not in computing]
    return sorted(found, key=lambda one: (one.hop, -1 if one.worker is None else one.worker))


def _found(pipeline: str) -> tuple[list[Sample], bool]:
    """And whether one has gone meanwhile, which another may have followed."""
    import msgspec  # whoever writes only has no need of it

    found, has_changed = [], False
    for folder in filter(os.path.isdir, run_directories(pipeline)):
        for name in sorted(name for name in os.listdir(folder) if name.endswith(".json")):
            try:
                sample = msgspec.json.decode(read_own(os.path.join(folder, name)), type=Sample)
                found += [sample] if sample.version == VERSION else []
            except FileNotFoundError:
                has_changed = True
            except (OSError, ValueError, ClickpipeError):
                continue
    return found, has_changed


def pipelines() -> list[str]:
    """Those whose processes have said something."""
    roots = [os.path.dirname(folder) for folder in run_directories("x")]
    return sorted({name for root in roots if os.path.isdir(root) for name in os.listdir(root) if is_name(name)})


def begin(pipeline: str) -> None:
    """It begins: what those have left goes that live no more."""
    for folder in filter(os.path.isdir, run_directories(pipeline)):
        for path in (os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".json")):
            with suppress(OSError, ValueError, KeyError, TypeError, ClickpipeError):
                said = orjson.loads(read_own(path))
                if said["ended"] or born(int(said["process"])) != said["born"]:
                    os.unlink(path)


def clear(pipeline: str) -> None:
    """Nothing of it is left."""
    for folder in run_directories(pipeline):
        shutil.rmtree(folder, ignore_errors=True)
