"""Pipelines as metrics: the text format of Prometheus. Names follow Prometheus (base units, `_total`), what is counted Flink.

Labels: the name of the pipeline; of a step its place and name too, of a split its name. `life` tells apart several of one name
that run at once; it is empty for the newest of them, so that it is the same from run to run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clickpipe import __version__
from clickpipe.state.samples import CheckpointSample, SplitSample
from clickpipe.top.model import Pipeline, Step

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_OUTCOMES = ("aggregated", "filtered", "duplicate", "late", "dead", "written")


@dataclass(frozen=True)
class _Family:
    """`value`: of a pipeline, a step or a split; None where there is none."""

    name: str
    kind: str  # counter or gauge
    text: str
    value: Callable[..., float | None]


def _of_pipeline(name: str, kind: str, text: str, value: Callable[[Pipeline], float | None]) -> _Family:
    return _Family(name, kind, text, value)


def _of_step(name: str, kind: str, text: str, value: Callable[[Step], float | None]) -> _Family:
    return _Family(name, kind, text, value)


def _of_split(name: str, kind: str, text: str, value: Callable[[SplitSample], float | None]) -> _Family:
    return _Family(name, kind, text, value)


def _of_checkpoint(value: Callable[[CheckpointSample], float]) -> Callable[[Pipeline], float | None]:
    return lambda one: None if one.checkpoint is None else value(one.checkpoint)


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1_000


PIPELINE = (
    _of_pipeline("up", "gauge", "Whether a process of the pipeline lives.", lambda one: float(one.is_running)),
    _of_pipeline("healthy_state", "gauge", "Whether it runs, or has ended as it should.", lambda one: float(_is_well(one))),
    _of_pipeline("last_seen_timestamp_seconds", "gauge", "When its processes last said something.", lambda one: one.when),
    _of_pipeline("processes", "gauge", "Processes that live.", lambda one: len(one.processes)),
    _of_pipeline("records_in", "counter", "Records read from the input.", lambda one: one.records),
    _of_pipeline("bytes_in", "counter", "Bytes read from the input, unpacked.", lambda one: one.bytes_in),
    _of_pipeline("bytes_out", "counter", "Bytes written by the last process.", lambda one: one.bytes_out),
    _of_pipeline(
        "watermark_timestamp_seconds", "gauge", "The watermark of the last process.", lambda one: _seconds(one.watermark)
    ),
    _of_pipeline("watermark_lag_seconds", "gauge", "How far the watermark is behind the clock.", lambda one: _seconds(one.lag)),
    _of_pipeline(
        "event_time_lag_seconds", "gauge", "How far the latest event is behind it.", lambda one: _seconds(one.event_lag)
    ),
    _of_pipeline("restarts", "counter", "How often its supervisor has started it again.", lambda one: one.restarts),
    _of_pipeline("checkpoint_epoch", "gauge", "The newest checkpoint.", _of_checkpoint(lambda one: one.epoch)),
    _of_pipeline(
        "checkpoint_completed_timestamp_seconds",
        "gauge",
        "When it was complete.",
        _of_checkpoint(lambda one: one.completed),
    ),
    _of_pipeline("checkpoint_age_seconds", "gauge", "How old it is.", lambda one: one.checkpoint_age),
    _of_pipeline("checkpoint_duration_seconds", "gauge", "How long it took.", _of_checkpoint(lambda one: one.seconds)),
    _of_pipeline("checkpoint_size_bytes", "gauge", "How large its files are.", _of_checkpoint(lambda one: one.bytes)),
)
STEP = (
    _of_step("step_records_in", "counter", "Records that came to the step.", lambda one: one.records_in),
    _of_step("step_records_out", "counter", "Records that left it.", lambda one: one.records_out),
    _of_step("step_batches", "counter", "Batches that came to it.", lambda one: one.batches),
    _of_step("step_workers", "gauge", "Processes that run it.", lambda one: one.workers),
    _of_step("step_state_rows", "gauge", "Rows of its state.", lambda one: one.state_rows),
    _of_step("step_state_bytes", "gauge", "Its state in memory.", lambda one: one.state_bytes),
    _of_step(
        "step_own_busy_milliseconds_per_second",
        "gauge",
        "What the step itself takes of its process's busy time.",
        lambda one: one.busy,
    ),
    _of_step("step_busy_milliseconds_per_second", "gauge", "Its process computes.", lambda one: one.spending.busy),
    _of_step("step_idle_milliseconds_per_second", "gauge", "Its process has nothing to read.", lambda one: one.spending.idle),
    _of_step(
        "step_backpressured_milliseconds_per_second",
        "gauge",
        "What its process writes is not taken.",
        lambda one: one.spending.backpressured,
    ),
)
SPLIT = (
    _of_split("split_position_bytes", "gauge", "Up to where the split was read.", lambda one: one.position),
    _of_split("split_watermark_timestamp_seconds", "gauge", "Its watermark.", lambda one: _seconds(one.watermark)),
    _of_split(
        "split_idle_seconds",
        "gauge",
        "For how long it has given nothing, where nobody waits for it.",
        lambda one: _seconds(one.silent or 0),
    ),
)


def _is_well(one: Pipeline) -> bool:
    return one.state not in ("failed", "killed", "silent", "waiting")


class Collector:
    """For a registry of prometheus_client. `look`: what there is."""

    def __init__(self, look: Callable[[], Sequence[Pipeline]]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        makes = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
        found = _labelled(self._look())
        yield InfoMetricFamily("clickpipe_build", "What writes this.", value={"version": __version__})
        for family in PIPELINE:
            yield from _filled(makes, family, ("pipeline", "life"), [((), one, one, life) for one, life in found])
        ended = makes["counter"]("clickpipe_records_ended", "What became of records.", labels=("pipeline", "life", "outcome"))
        for one, life in found:
            for outcome in _OUTCOMES:
                ended.add_metric((one.name, life, "dead_letter" if outcome == "dead" else outcome), one.outcomes.get(outcome, 0))
        yield ended
        for family in STEP:
            rows = [((str(step.hop), step.name), step, one, life) for one, life in found for step in one.steps]
            yield from _filled(makes, family, ("pipeline", "life", "hop", "step"), rows)
        for family in SPLIT:
            splits = [((split.name,), split, one, life) for one, life in found for split in one.splits]
            yield from _filled(makes, family, ("pipeline", "life", "split"), splits)


def _filled(
    makes: dict[str, type],
    family: _Family,
    labels: tuple[str, ...],
    rows: Sequence[tuple[tuple[str, ...], object, Pipeline, str]],
) -> Iterator[Metric]:
    metric = makes[family.kind](f"clickpipe_{family.name}", family.text, labels=labels)
    for more, thing, one, life in rows:
        if (value := family.value(thing)) is not None:
            metric.add_metric((one.name, life, *more), value)
    yield metric


def _labelled(found: Sequence[Pipeline]) -> list[tuple[Pipeline, str]]:
    """Each with its life: those that live, and of the others the newest where none of that name lives."""
    told: list[tuple[Pipeline, str]] = []
    for one in sorted(found, key=lambda one: (not one.is_running, -one.when)):
        is_first = all(other.name != one.name for other, _ in told)
        if is_first or one.is_running:
            told.append((one, "" if is_first else one.life))
    return told


def text(look: Callable[[], Sequence[Pipeline]], accept: str = "") -> tuple[bytes, str]:
    """What a scraper is given, and its type. `accept`: what it says it takes."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(look))
    encode, kind = choose_encoder(accept)
    return encode(registry), kind
