"""How many workers a partition should have, by how its processes spend their time: --workers auto. This decides; the
supervisor acts.

    records wait for workers, and these are busy    more: as many as would take all that comes, at most twice as many
    workers are idle for much of their time         fewer: as many as would be well used
    more workers have not brought more records,     the number before, and not so many again for a while
    or have died before they could

Source: "Three steps is all you need" (DS2, OSDI 2018), which Flink's autoscaler follows too: from the time that is spent
busy, not from queues or processor load, follows what a process could take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil

from clickpipe.core.step import PartitionStep
from clickpipe.state import samples
from clickpipe.state.samples import Sample

_BUSY = 0.8  # share of its time from which a worker is taken for busy, and to which it is to be used
_WAITED = 0.1  # share of time that records wait for workers, from which it matters
_USED = 0.6  # share to which workers are used where some are taken away: less, so that they do not come back at once
_GAIN = 1.1  # what more workers must bring
_DOUBTS = 2  # looks in a row that say they do not, before they are taken away: records are counted by batches
_FORGETS = 20  # looks after which so many are tried again
_SETTLING = 1 / 3  # share of the cool-down in which processes begin, and are not judged


@dataclass(frozen=True)
class Load:
    """Of a partition, between two moments. `busy`: shares of time, of each worker; `waited`: share of time that its records
    waited for workers; `rate`: how many came per second."""

    busy: Sequence[float]
    waited: float
    rate: float


def wanted(load: Load, least: int, most: int) -> int:
    """How many workers, given what those spent that there are."""
    now, used = len(load.busy), sum(load.busy)
    if load.waited >= _WAITED and max(load.busy) >= _BUSY:
        to_take_all = ceil(used / max(1 - load.waited, 0.01) / _BUSY)
        found = min(max(to_take_all, now + 1), 2 * now)
    elif load.waited < _WAITED and max(load.busy) < _BUSY:
        found = min(now, ceil(used / _USED))
    else:  # one of them has enough to do, or they wait themselves, for what is behind them
        found = now
    return max(least, min(found, most))


@dataclass
class _Partition:
    step: PartitionStep
    workers: int
    most: int
    before: tuple[int, float] | None = None  # how many there were before there were more, and how many records came then
    doubts: int = 0
    capped: int = 0  # looks for which `most` is less than a person allows

    def decide(self, load: Load) -> str:
        """Why it has another number of workers from here on; empty if it has not."""
        busy = f"busy for {100 * sum(load.busy) / len(load.busy):.0f} % of their time"
        now = self.workers
        self.capped = max(0, self.capped - 1)
        self.most = self.most if self.capped else self.step.most
        are_few = load.waited >= _WAITED and max(load.busy) >= _BUSY
        if self.before and are_few and load.rate < _GAIN * self.before[1]:
            self.doubts += 1
            return self._go_back(f"{now} workers take no more than {self.before[0]} did") if self.doubts >= _DOUBTS else ""
        self.before, self.doubts = None, 0
        self.workers = wanted(load, self.step.least, self.most)
        if self.workers > now:
            self.before = (now, load.rate)
            return f"records wait for the workers, which are {busy}"
        return f"the workers are {busy}" if self.workers < now else ""

    def _go_back(self, reason: str) -> str:
        """To the number before, for a while."""
        assert self.before is not None
        self.workers = self.most = self.before[0]
        self.before, self.doubts, self.capped = None, 0, _FORGETS
        return reason

    def died(self) -> str:
        """The same, if it has died with more workers than before."""
        return self._go_back(f"died with {self.workers} workers, and had not with {self.before[0]}") if self.before else ""


@dataclass
class Scaler:
    """Of one pipeline. `due`: when it is to look next; `counts`: the workers of each of its partitions."""

    name: str
    steps: Sequence[PartitionStep]
    begun_with: Sequence[int] = ()  # what the last run had
    due: float = float("inf")
    _partitions: list[_Partition] = field(default_factory=list)
    _since: list[Sample] | None = None

    def __post_init__(self) -> None:
        begun_with = self.begun_with if len(self.begun_with) == len(self.steps) else [0] * len(self.steps)
        for step, count in zip(self.steps, begun_with, strict=True):
            self._partitions.append(_Partition(step, max(step.least, min(count, step.most)), step.most))

    @property
    def counts(self) -> list[int]:
        return [one.workers for one in self._partitions]

    @property
    def _cool_down(self) -> float:
        return max(step.cool_down for step in self.steps if step.is_auto) / 1_000

    def begin(self, now: float) -> None:
        """Its processes are about to start."""
        samples.clear(self.name)
        self._since, self.due = None, now + self._cool_down * _SETTLING

    def look(self, now: float, say: Callable[[str], None]) -> bool:
        """Whether it is to go on with other numbers of workers, which stand in `counts` then."""
        found, since = samples.read(self.name), self._since
        self._since = found
        if since is None:
            self.due = now + self._cool_down * (1 - _SETTLING)
            return False
        self.due = now + self._cool_down
        is_new = False
        for one, load in zip(self._partitions, loads(since, found), strict=False):
            is_known = load is not None and len(load.busy) == one.workers
            if one.step.is_auto and load and is_known and (reason := one.decide(load)):
                say(f"{self.name}: {reason}; goes on with {one.workers}")
                is_new = True
        return is_new

    def died(self, say: Callable[[str], None]) -> None:
        """Its processes have, and are to be started again."""
        for one in self._partitions:
            if reason := one.died():
                say(f"{self.name}: {reason}; goes on with {one.workers}")


def loads(since: Sequence[Sample], found: Sequence[Sample]) -> list[Load | None]:
    """Of each partition, in their order; None where too little is known."""
    before = {(one.process, one.hop, one.worker): one for one in since}
    spans = [(before.get((one.process, one.hop, one.worker)), one) for one in found]
    result: list[Load | None] = []
    divides: tuple[Sample | None, Sample] | None = None
    for hop in dict.fromkeys(one.hop for one in found):
        here = [span for span in spans if span[1].hop == hop]
        if here[0][1].worker is None:
            divides = here[0]
        elif divides:
            result.append(_load(divides, here))
    return result


def _load(divides: tuple[Sample | None, Sample], workers: Sequence[tuple[Sample | None, Sample]]) -> Load | None:
    shares = [_shares(*span) for span in workers]
    own = _shares(*divides)
    if own is None or any(share is None for share in shares):
        return None
    return Load([share.busy for share in shares if share], own.backpressured, own.records)


@dataclass(frozen=True)
class _Shares:
    busy: float
    backpressured: float
    records: float  # per second


def _shares(since: Sample | None, now: Sample) -> _Shares | None:
    if since is None or now.at - since.at < samples.EVERY / 2:
        return None
    seconds = now.at - since.at
    return _Shares(
        (now.busy - since.busy) / seconds,
        (now.backpressured - since.backpressured) / seconds,
        (now.records - since.records) / seconds,
    )
