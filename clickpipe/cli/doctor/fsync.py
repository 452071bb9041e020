"""How long it takes until something is durable: a checkpoint waits for that some ten times."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from statistics import median

from clickpipe.cli.doctor.trial import trial
from clickpipe.cli.doctor.verdict import Verdict, bad, note, ok
from clickpipe.core.units import format_duration
from clickpipe.state.files import GrowingFile

_WRITES, _PATIENCE = 20, 3.0  # and seconds, after which there are enough
_SLOW, _TOO_SLOW = 0.020, 0.500  # seconds
_PER_CHECKPOINT = 10  # of a few steps: two for each file, three for the manifest
_INTERVALS = (1, 5, 10, 30, 60)  # seconds, for --checkpoint


@dataclass(frozen=True)
class Found:
    """Unit: seconds. `is_disabled`: a library that is loaded into this process takes fsync away."""

    seconds: tuple[float, ...]
    is_disabled: bool


def look(home: str) -> Found:
    with trial(home) as folder:
        file, taken = GrowingFile(os.path.join(folder, "written"), 0), list[float]()
        while len(taken) < _WRITES and sum(taken) < _PATIENCE:
            taken.append(_one(file))
        file.close()
    return Found(tuple(taken), "eatmydata" in os.environ.get("LD_PRELOAD", ""))


def _one(file: GrowingFile) -> float:
    file.append(b"x" * 4096)
    begun = time.monotonic()
    file.sync()
    return time.monotonic() - begun


def verdict(found: Found) -> Verdict:
    typical = median(found.seconds)
    text = f"{_spelled(typical)}, at worst {_spelled(max(found.seconds))}, of {len(found.seconds)} small writes"
    if found.is_disabled:
        return bad(f"{text}: LD_PRELOAD takes it away, and nothing is durable", "unset LD_PRELOAD")
    if typical < _SLOW:
        return ok(text)
    said = f"{text}: a checkpoint of a few steps waits {_spelled(_PER_CHECKPOINT * typical)} for it"
    remedies = (f"--checkpoint {_interval(typical)} or longer", "a disk with less latency, for CLICKPIPE_HOME")
    return bad(said, *remedies) if typical >= _TOO_SLOW else note(said, *remedies)


def _interval(typical: float) -> str:
    """So long that writing takes a quarter of the time at most."""
    fitting = [seconds for seconds in _INTERVALS if seconds >= 4 * _PER_CHECKPOINT * typical]
    return format_duration(1_000 * (fitting or _INTERVALS[-1:])[0])


def _spelled(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1_000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1_000 * seconds:.1f} ms"
