"""Samples of processes -> pipelines as a person looks at them. Pure: no clock, no disk.

    samples of one life ── by hop ──> steps: rates, busy / idle / backpressured; which one the others wait for
                        └─ splits ──> watermarks; which one holds them back

Times that are spent add up: a process is busy, idle or backpressured, 1,000 milliseconds of each second together. A step that
shares its process with others is busy for a part of that; it is idle and backpressured as its process is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clickpipe.state.samples import CheckpointSample, Sample, SplitSample, StepSample

SILENT = 5.0  # seconds after which a process that lives should have said something
_WAITS = 50.0  # milliseconds per second from which a process is held up
_MUCH = 500.0  # and from which it is that most of the time
_ENDS = {"failed": "failed", "": "killed", "stopped": "stopped"}  # how one of its processes has ended, and so the whole


@dataclass(frozen=True)
class Spending:
    """Milliseconds of each second. They add up to 1,000."""

    busy: float
    idle: float
    backpressured: float


@dataclass(frozen=True)
class Step:
    """A step in all processes that run it. `workers`: how many; rates: records per second; `spending`: of its processes, on
    average, and `busy` what it has itself of that."""

    hop: int
    name: str
    says: str
    workers: int
    records_in: int
    records_out: int
    batches: int
    rate_in: float
    rate_out: float
    busy: float
    spending: Spending
    state_rows: int
    state_bytes: int
    processes: tuple[int, ...]


@dataclass(frozen=True)
class Bottleneck:
    """What the others wait for: a step, or who reads what it writes."""

    step: str
    hop: int
    why: str


@dataclass(frozen=True)
class Told:
    """What is known of a pipeline besides what its processes say: by its supervisor, and in its state directory."""

    state: str = ""
    restarts: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Pipeline:
    """`state`: as `clickpipe status` has it, `silent` for one whose processes live and say nothing, `killed` for one whose
    processes are gone and have not said how they ended. Times: epoch milliseconds; lags: milliseconds; ages: seconds."""

    name: str
    life: str
    state: str
    run: int | None = None
    when: float = 0.0  # the newest sample's, in seconds since 1970
    reason: str = ""
    restarts: int = 0
    records: int = 0
    rate: float = 0.0
    rates: tuple[int, ...] = ()
    written: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_rate: float = 0.0
    watermark: int | None = None
    lag: int | None = None
    moved: float | None = None  # when the watermark did, in seconds since 1970
    greatest: int | None = None
    event_lag: int | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)
    state_rows: int = 0
    state_bytes: int = 0
    checkpoint: CheckpointSample | None = None
    checkpoint_age: float | None = None
    interval: float | None = None
    extent: tuple[int, int] | None = None  # how much of the input was read, and how much there is
    left: float | None = None  # seconds until it was, as fast as now
    steps: tuple[Step, ...] = ()
    splits: tuple[SplitSample, ...] = ()
    splits_in_all: int = 0
    bottleneck: Bottleneck | None = None
    processes: tuple[int, ...] = ()

    @property
    def is_running(self) -> bool:
        return bool(self.processes)

    @property
    def held_by(self) -> SplitSample | None:
        """The split that holds the watermark back, where others are ahead of it."""
        waited = [split for split in self.splits if split.silent is None]
        behind = min(waited, key=_reached, default=None)
        return behind if behind and any(_reached(split) > _reached(behind) for split in waited) else None


def _reached(split: SplitSample) -> float:
    return float("-inf") if split.watermark is None else split.watermark


def pipelines(found: Sequence[tuple[str, Sample, bool]], told: Mapping[str, Told], when: float, at: float) -> list[Pipeline]:
    """By name, those that run first. `found`: a pipeline's name, what a process of it says, and whether that lives; `told`: by
    names; `when`: seconds since 1970; `at`: seconds of the monotonic clock."""
    lives: dict[tuple[str, str], list[tuple[Sample, bool]]] = {}
    for name, sample, lives_on in found:
        lives.setdefault((name, _life(sample)), []).append((sample, lives_on))
    made = [_pipeline(name, life, some, told.get(name, Told()), when, at) for (name, life), some in lives.items()]
    known = {one.name for one in made}
    made += [
        Pipeline(name, "", one.state, reason=one.reason, restarts=one.restarts) for name, one in told.items() if name not in known
    ]
    return sorted(made, key=lambda one: (not one.is_running, one.name, one.life))


def _life(sample: Sample) -> str:
    """Processes of a run with checkpoints belong together by its number, also where a link has lost the life."""
    return f"run {sample.run}" if sample.run else sample.life


def _pipeline(name: str, life: str, found: Sequence[tuple[Sample, bool]], told: Told, when: float, at: float) -> Pipeline:
    ordered = sorted(found, key=lambda one: (one[0].hop, -1 if one[0].worker is None else one[0].worker))
    samples = [sample for sample, _ in ordered]
    living = [sample for sample, lives in ordered if lives]
    first = [sample for sample in samples if sample.hop == samples[0].hop]
    steps = _steps(samples, at)
    watermark = _least([sample.watermark for sample in samples if sample.hop == samples[-1].hop])
    greatest = max((sample.greatest for sample in samples if sample.greatest is not None), default=None)
    outcomes: dict[str, int] = {}
    for sample in samples:
        for outcome, count in (sample.outcomes or {}).items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    newest = next((sample.checkpoint for sample in reversed(samples) if sample.checkpoint), None)
    return Pipeline(
        name,
        life,
        _state(ordered, told, at),
        run=samples[0].run,
        when=max(sample.when for sample in samples),
        reason=told.reason,
        restarts=told.restarts,
        records=sum(sample.records for sample in first),
        rate=sum(_rate(sample, at) for sample in first),
        rates=first[0].rates,
        written=outcomes.get("written", 0),
        bytes_in=sum(sample.bytes_in for sample in first),
        bytes_out=sum(sample.bytes_out for sample in samples if sample.hop == samples[-1].hop),
        bytes_rate=sum(_of_bytes(sample, at) for sample in first),
        watermark=watermark,
        lag=None if watermark is None else round(1_000 * when) - watermark,
        moved=max((sample.moved for sample in samples if sample.hop == samples[-1].hop and sample.moved), default=None),
        greatest=greatest,
        event_lag=None if greatest is None else round(1_000 * when) - greatest,
        outcomes=outcomes,
        state_rows=sum(step.state_rows for step in steps),
        state_bytes=sum(step.state_bytes for step in steps),
        checkpoint=newest,
        checkpoint_age=None if newest is None else max(0.0, when - newest.completed),
        interval=first[0].interval,
        extent=first[0].extent,
        left=_left(first[0], at),
        steps=tuple(steps),
        splits=tuple(split for sample in samples for split in sample.splits),
        splits_in_all=sum(sample.splits_in_all for sample in samples),
        bottleneck=_bottleneck(steps) if living else None,
        processes=tuple(sample.process for sample in living),
    )


def _state(found: Sequence[tuple[Sample, bool]], told: Told, at: float) -> str:
    if any(lives for _, lives in found):
        is_silent = any(lives and at - sample.at > SILENT for sample, lives in found)
        is_moving = told.state in ("", "running", "ended", "failed", "stopped", "waiting")
        return told.state if not is_moving else "silent" if is_silent else "running"
    if told.state and told.state != "running":
        return told.state
    ends = {sample.ended for sample, _ in found}
    return next((state for end, state in _ENDS.items() if end in ends), "ended")


def _least(watermarks: Sequence[int | None]) -> int | None:
    found = [one for one in watermarks if one is not None]
    return min(found) if found and len(found) == len(watermarks) else None


# How fast.


def _left(sample: Sample, at: float) -> float | None:
    """As fast as since it began."""
    seconds = sample.busy + sample.idle + sample.backpressured
    if sample.extent is None or not sample.extent[0] or sample.ended or not seconds:
        return None
    read, whole = sample.extent
    return max(0.0, (whole - read) * seconds / read - (at - sample.at))


def _seconds(sample: Sample, at: float) -> float:
    """That its newest numbers are about; 0 for one that has ended, or has said nothing for long."""
    if sample.before is None or sample.ended or at - sample.at > SILENT:
        return 0.0
    return max(0.0, sample.at - sample.before.at)


def _rate(sample: Sample, at: float) -> float:
    seconds = _seconds(sample, at)
    return (sample.records - sample.before.records) / seconds if seconds and sample.before else 0.0


def _of_bytes(sample: Sample, at: float) -> float:
    seconds = _seconds(sample, at)
    return (sample.bytes_in - sample.before.bytes_in) / seconds if seconds and sample.before else 0.0


def spending(sample: Sample, at: float) -> Spending:
    """Of a process."""
    seconds = _seconds(sample, at)
    if not seconds or sample.before is None:
        return Spending(0.0, 1_000.0, 0.0)
    idle = min(1_000.0, 1_000 * (sample.idle - sample.before.idle) / seconds)
    backpressured = min(1_000.0 - idle, 1_000 * (sample.backpressured - sample.before.backpressured) / seconds)
    return Spending(1_000.0 - idle - backpressured, idle, backpressured)


def _steps(samples: Sequence[Sample], at: float) -> list[Step]:
    """In their order, each once."""
    shares: dict[int, list[tuple[Sample, StepSample, tuple[float, float, float], Spending]]] = {}
    for sample in samples:
        spent = spending(sample, at)
        for number, step in enumerate(sample.steps):
            shares.setdefault(step.hop, []).append((sample, step, _rates(sample, number, at), spent))
    return [_step(some) for _, some in sorted(shares.items())]


def _rates(sample: Sample, number: int, at: float) -> tuple[float, float, float]:
    """Of one of its steps: records per second in and out, and milliseconds per second busy."""
    seconds, before, now = _seconds(sample, at), sample.before, sample.steps[number]
    if not seconds or before is None or len(before.steps) != len(sample.steps):
        return 0.0, 0.0, 0.0
    came, went, busy = before.steps[number]
    return (now.records_in - came) / seconds, (now.records_out - went) / seconds, 1_000 * max(0.0, now.busy - busy) / seconds


def _step(some: Sequence[tuple[Sample, StepSample, tuple[float, float, float], Spending]]) -> Step:
    first, count = some[0][1], len(some)
    spent = [one for *_, one in some]
    return Step(
        first.hop,
        first.name,
        first.says,
        count,
        sum(step.records_in for _, step, _, _ in some),
        sum(step.records_out for _, step, _, _ in some),
        sum(step.batches for _, step, _, _ in some),
        sum(rates[0] for _, _, rates, _ in some),
        sum(rates[1] for _, _, rates, _ in some),
        min(1_000.0, sum(rates[2] for _, _, rates, _ in some) / count),
        Spending(*(sum(getattr(one, name) for one in spent) / count for name in ("busy", "idle", "backpressured"))),
        sum(step.state_rows for _, step, _, _ in some),
        sum(step.state_bytes for _, step, _, _ in some),
        tuple(sample.process for sample, *_ in some),
    )


def _bottleneck(steps: Sequence[Step]) -> Bottleneck | None:
    """Source: Flink's rule: the first step that is not held up, behind one that is."""
    if not steps:
        return None
    groups = _by_process(steps)
    last = groups[-1][-1]
    if last.spending.backpressured >= _MUCH:
        return Bottleneck(last.name, last.hop, "what it writes is not taken")
    held = [number for number, group in enumerate(groups[:-1]) if group[0].spending.backpressured >= _WAITS]
    if held:
        slow = max(groups[held[-1] + 1], key=lambda step: step.busy)
        return Bottleneck(slow.name, slow.hop, "the steps before it wait for it")
    busiest = max(steps, key=lambda step: step.busy)
    return Bottleneck(busiest.name, busiest.hop, "it is the busiest") if busiest.busy >= _MUCH else None


def _by_process(steps: Sequence[Step]) -> list[list[Step]]:
    groups: list[list[Step]] = []
    for step in steps:
        if groups and groups[-1][0].processes == step.processes:
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def troubles(one: Pipeline, when: float, patience: float) -> list[str]:
    """Why it is not healthy: none, if watermark and checkpoints make progress while records come. `patience`: seconds."""
    found = []
    if one.state in ("failed", "killed", "waiting"):
        found.append(f"{one.state}{': ' if one.reason else ''}{one.reason}")
    if one.state == "silent":
        found.append(f"its processes have said nothing for {when - one.when:.0f} s")
    if not one.is_running or not one.rate:
        return found
    if one.moved is not None and when - one.moved > patience:
        held = f": {one.held_by.name} holds it back" if one.held_by else ""
        found.append(f"records come, and the watermark has not moved for {when - one.moved:.0f} s{held}")
    age = one.checkpoint_age
    if one.interval and age is not None and age > patience + one.interval:
        found.append(f"records come, and the last checkpoint is {age:.0f} s old")
    return found


def standstill(one: Pipeline, when: float, patience: float) -> list[str]:
    """Why nothing is to be hoped for any more: its processes say nothing, or records come and move neither the watermark nor a
    checkpoint. One without checkpoints would lose all by being started again, which moves no watermark."""
    is_saved = one.checkpoint_age is not None and one.checkpoint_age <= patience + (one.interval or 0)
    if one.state != "silent" and (not one.is_running or not one.interval or is_saved):
        return []
    return troubles(one, when, patience)


def as_json(one: Pipeline) -> dict[str, Any]:
    """For programs."""
    from dataclasses import asdict

    held = one.held_by
    return {**asdict(one), "held_by": held and held.name, "is_running": one.is_running}
