"""What the processes of a pipeline say of themselves once a second, for whoever looks from outside.

    $CLICKPIPE_HOME/run/clicks/1.json      the process whose first step behind the source is at hop 1
    $CLICKPIPE_HOME/run/clicks/2.1.json    worker 1 of those that begin at hop 2

Files are seen whole, and need not survive. One that a killed process has left says so by its time, which stands still.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

import orjson

from clickpipe.errors import ClickpipeError
from clickpipe.spent import Spent
from clickpipe.state.files import make_folder, write_fleeting
from clickpipe.state.home import run_directory
from clickpipe.state.trust import check_folder, read_own

EVERY = 1.0  # seconds


@dataclass(frozen=True)
class Sample:
    """`records`: how many it has been given; `at`: seconds of the monotonic clock, which all processes of a machine share.
    `busy`, `idle`, `backpressured`: seconds since it began."""

    process: int
    hop: int
    worker: int | None
    records: int
    at: float
    busy: float
    idle: float
    backpressured: float


@contextmanager
def written(pipeline: str, sample: Callable[[], Sample]) -> Iterator[None]:
    """While in here, a thread writes once a second what `sample` gives. That it cannot be written is no reason to stop."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(EVERY):
            with suppress(ClickpipeError):
                write(pipeline, sample())

    threading.Thread(target=work, daemon=True, name="samples").start()
    try:
        yield
    finally:
        over.set()


def sampled(hop: int, worker: int | None, records: int, spent: Spent) -> Sample:
    """Of this process, now."""
    return Sample(os.getpid(), hop, worker, records, time.monotonic(), spent.busy, spent.idle, spent.backpressured)


def write(pipeline: str, sample: Sample) -> None:
    """Raises DiskError."""
    folder = run_directory(pipeline)
    check_folder(folder)
    make_folder(folder)
    name = f"{sample.hop}.json" if sample.worker is None else f"{sample.hop}.{sample.worker}.json"
    write_fleeting(os.path.join(folder, name), orjson.dumps(asdict(sample)) + b"\n")


def read(pipeline: str) -> list[Sample]:
    """What there is, by hop and worker."""
    found = []
    folder = run_directory(pipeline)
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.endswith(".json"):
            with suppress(OSError, ValueError, TypeError, ClickpipeError):
                found.append(_checked(Sample(**orjson.loads(read_own(os.path.join(folder, name))))))
    return sorted(found, key=lambda one: (one.hop, -1 if one.worker is None else one.worker))


def _checked(sample: Sample) -> Sample:
    """Raises ValueError for values of other types than they should have."""
    counts = (sample.process, sample.hop, sample.records, 0 if sample.worker is None else sample.worker)
    seconds = (sample.at, sample.busy, sample.idle, sample.backpressured)
    if not all(type(one) is int for one in counts) or not all(type(one) in (int, float) for one in seconds):
        raise ValueError(sample)
    return sample


def clear(pipeline: str) -> None:
    """Nothing of it is left."""
    shutil.rmtree(run_directory(pipeline), ignore_errors=True)
