"""A pipeline as its newest checkpoint tells of it: its steps, and how far its input had been read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clickpipe.columns import Columns
from clickpipe.core.eventtime import streamed
from clickpipe.core.format import FORMATS, Format
from clickpipe.core.intake import Taking
from clickpipe.core.loop import Stage
from clickpipe.core.operator import Operator
from clickpipe.core.step import FlowStep, OperatorStep
from clickpipe.engine.checkpoints import PARTIAL
from clickpipe.engine.opening import open_stages
from clickpipe.errors import StateError
from clickpipe.operators.ingest import Ingest
from clickpipe.plan.flags import parse_step
from clickpipe.plan.plan import Node, Plan, Written
from clickpipe.state.epochs import Epochs
from clickpipe.state.manifest import Manifest


@dataclass(frozen=True)
class Rebuilt:
    """`raw`: the columns of the input; `floats`: integer columns in which a float has turned up."""

    epochs: Epochs
    manifest: Manifest
    plan: Plan
    ingest: Ingest
    raw: Columns
    floats: frozenset[str]
    position: Mapping[str, Any]

    @property
    def splits(self) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = self.position["splits"]
        return found

    @property
    def taking(self) -> Taking:
        return self.ingest.taking(self.splits[0]["name"] if self.splits else "")

    def format(self) -> Format:
        """A new one, that knows what the input's header had said."""
        form: Format = FORMATS.find(self.taking.format, Format)()
        form.restore(self.position["format"])
        return form

    def stages(self) -> list[Stage]:
        """Its steps between source and sink, opened as on a first start; sinks in the middle hand on, and write nothing."""
        return open_stages(self.plan, streamed(self.raw), _opened)[0]


def rebuilt(epochs: Epochs) -> Rebuilt:
    """Raises StateError where the checkpoint does not tell enough."""
    manifest = next(epochs.manifests(), None)
    if manifest is None:
        raise StateError(
            f"{epochs.name} has no checkpoint, so it is not known what it did", hint="ingest --checkpoint 1s keeps one"
        )
    entries = [entry for entry in manifest.steps if "step" in entry]
    entries = [entry for entry in entries if entry["step"] != PARTIAL]  # behind merge the aggregate is said again
    steps = [one for _, one in sorted({int(entry["hop"]): entry for entry in entries}.items())]  # workers say the same
    position = manifest.entry(0, "source")
    if position is None or not all("words" in entry for entry in steps):
        raise StateError(
            f"{epochs.name}: checkpoint {manifest.epoch} is of an earlier clickpipe, which did not note all that is asked for"
        )
    nodes = [Node(parse_step(one["step"], one["words"]), Written(one["step"], tuple(one["words"]))) for one in steps]
    ingest = nodes[0].step
    assert isinstance(ingest, Ingest), "checkpoints begin with an ingest"
    floats = frozenset({*position["floats"], *(name for entry in entries for name in entry["floats"])})
    return Rebuilt(epochs, manifest, Plan(tuple(nodes)), ingest, Columns.from_json(position["columns"]), floats, position)


def _opened(_number: int, step: FlowStep, _name: str, given: Columns) -> Operator:
    return step.open(given, {}) if isinstance(step, OperatorStep) else Operator()
