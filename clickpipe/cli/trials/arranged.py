"""A recipe's pipeline between given records and a place that is looked at; nothing else of it changes.

    ingest tcp://:9000 --time ts --spool log:in  | sink raw.csv --pass     | window tumble 1m … | sink -
    ingest given.ndjson --time ts                | sink middle-1.csv --pass | window tumble 1m … | sink rows.ndjson

Sinks that write below CLICKPIPE_HOME stay as they are, since that is another one. The new words stand where the old ones stood,
and end on the same lines, so that a message about a step names its line in the recipe.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clickpipe.core.format import FORMATS, Format
from clickpipe.core.option import Duration, Size
from clickpipe.core.source import is_direct
from clickpipe.core.step import PartitionStep, RawStep, SourceStep, Step
from clickpipe.errors import Unsupported
from clickpipe.operators.ingest import Ingest
from clickpipe.operators.sink import Sink
from clickpipe.operators.window import Window
from clickpipe.plan.cases import Case
from clickpipe.plan.parse import parse
from clickpipe.plan.plan import Node, Plan
from clickpipe.plan.recipe import Recipe, read_recipe

GIVEN, ROWS = "given.ndjson", "rows.ndjson"
_AT_HOME = ("view", "log", "archive")


@dataclass(frozen=True)
class Way:
    """How the pipeline is run. `checkpoint`: as the recipe has it, or milliseconds."""

    batch_bytes: int | None = None
    workers: int = 1
    checkpoint: int | None = None


@dataclass(frozen=True)
class Arranged:
    """`view`: the one that the results are in, if they are in one."""

    case: Case
    recipe: Recipe
    plan: Plan
    ingest: Ingest
    view: str | None

    @property
    def is_live(self) -> bool:
        """Whether its input is live, and the test says what time it is."""
        return self.case.has_clock and self.ingest.follow

    @property
    def has_partition(self) -> bool:
        return any(isinstance(node.step, PartitionStep) for node in self.plan.nodes)

    def form(self) -> Format:
        """Of the given records."""
        return _format(self.ingest)

    def taken(self) -> int:
        """How many of the given lines are records."""
        return self.case.records - (self.ingest.format == "csv")

    def text(self, way: Way) -> str:
        """The pipeline."""
        return _Arranger(self.ingest, way).text(self.recipe.pipeline, self.plan)


def arrange(case: Case) -> Arranged:
    """Raises PlanError for a recipe that is wrong, or that cannot be tested so."""
    recipe = read_recipe(case.recipe, case.values)
    plan = parse(recipe.pipeline, name=recipe.name, origin=recipe.path, first_line=recipe.first_line)
    sink = plan.sink.step if plan.sink else None
    view = sink.destination.partition(":")[2] if isinstance(sink, Sink) and sink.destination_kind() == "view" else None
    arranged = Arranged(case, recipe, plan, _given_to(case, plan), view)
    _check(arranged)
    return arranged


def _check(arranged: Arranged) -> None:
    case = arranged.case
    if not case.ends and not arranged.is_live:
        raise case.wrong("a file that is read ends; what goes on is live input with a clock", key="ends", hint="clock = …")
    if case.crash_after and not _ingest(arranged.plan).guarantee().is_exact:
        raise case.wrong(
            "crash_after: what was read before a crash is lost, for this input cannot be read again",
            key="crash_after",
            hint="ingest --spool log:NAME keeps it",
        )
    if case.is_ordered and arranged.view:
        raise case.wrong("the rows of a view have the order of its keys", key="ordered")


def _ingest(plan: Plan) -> Ingest:
    return next((node.step for node in plan.nodes if isinstance(node.step, Ingest)), Ingest(("-",)))


def _given_to(case: Case, plan: Plan) -> Ingest:
    """The source that gives the records of the test, with what was said of event time."""
    ingest = _ingest(plan)
    is_live = ingest.follow or not ingest.is_replayable
    arrives = ingest.source[0].startswith("log:")
    if is_direct(ingest.source) and ingest.time is None:
        what = f"a test of a recipe that reads {ingest.source[0]}"
        raise Unsupported("notimpl", what, "records in a test are text, and do not say which column is time", hint="--time ts")
    if case.has_clock and not (is_live or arrives):
        what = f"clock: {ingest.source[0]} is read to its end, at whatever time that is"
        raise case.wrong(what, key="clock", hint="it is for live input and logs")
    form = ingest.taking(ingest.source[0]).format
    return replace(
        ingest,
        source=(f"given:{GIVEN}" if case.has_clock else GIVEN,),
        follow=case.has_clock and is_live,
        format=None if form == "ndjson" else form,
        idle_timeout=ingest.idle_timeout if case.has_clock and is_live else None,
        on_idle=ingest.on_idle if case.has_clock and is_live else None,
        name=None,
        dead_letter=None,
        from_=None,
        spool=None,
        insecure=False,
        reset=False,
        client_timeout=None,
        max_clients=None,
        tls_cert=None,
        tls_key=None,
        tls_ca=None,
    )


def _format(ingest: Ingest) -> Format:
    form: Format = FORMATS.find(ingest.format or "ndjson", Format)()
    return form


class _Arranger:
    def __init__(self, ingest: Ingest, way: Way) -> None:
        checkpoint = ingest.checkpoint if way.checkpoint is None else Duration(way.checkpoint)
        size = ingest.batch_bytes if way.batch_bytes is None else Size(way.batch_bytes)
        self._ingest = replace(ingest, checkpoint=checkpoint, batch_bytes=size)
        self._way, self._middle = way, 0

    def text(self, text: str, plan: Plan) -> str:
        anew = self._anew(text, plan.nodes, plan.sink)
        if plan.source is None:
            anew = f"{_said('ingest', self._ingest)} | {anew}"
        return anew if plan.sink else f"{anew.rstrip()} | {_said('sink', Sink(ROWS))}"

    def _anew(self, text: str, nodes: Sequence[Node], sink: Node | None) -> str:
        """The text with the steps that have changed said anew, each on the lines where it stood."""
        for node in reversed([node for node in nodes if node.written.text == text]):
            said = self._step(node, nodes, node is sink)
            if said is not None:
                begin = nodes[0].written.start if isinstance(node.step, Ingest) else node.written.start  # what generate makes too
                stretch = text[begin : node.written.end]
                blank = "\n" * stretch.rstrip().count("\n") + stretch[len(stretch.rstrip()) :]
                text = text[:begin] + said + blank + text[node.written.end :]
        return text

    def _step(self, node: Node, nodes: Sequence[Node], is_last: bool) -> str | None:
        """What it is now; None: as it stands."""
        step = node.step
        if isinstance(step, Ingest):
            return _said("ingest", self._ingest)
        if isinstance(step, RawStep) and len(nodes) > 1 and isinstance(nodes[1].step, Ingest):
            return None
        if isinstance(step, SourceStep):
            raise Unsupported("notimpl", f"a test of what begins with {node.written.name}", "records are given to ingest")
        if isinstance(step, Window) and step.late:
            return _said("window", replace(step, late=None))
        if isinstance(step, PartitionStep):
            return self._partition(step, nodes)
        if isinstance(step, Sink):
            return self._sink(step, is_last)
        return None

    def _partition(self, step: PartitionStep, nodes: Sequence[Node]) -> str:
        """With so many workers. Steps of theirs that are quoted are looked at too."""
        words = [*step.with_workers(self._way.workers).words(harmless=True)]
        if step.steps is not None:
            words[-1] = self._anew(step.steps, [one for one in nodes if one.written.text == step.steps], None)
        return _said_so("partition", words)

    def _sink(self, step: Sink, is_last: bool) -> str | None:
        kind = step.destination_kind()
        if is_last:
            return None if kind == "view" else _said("sink", Sink(ROWS, time_format=step.time_format))
        self._middle += 1
        if kind in _AT_HOME or step.destination == "-":
            return None
        place = f"middle-{self._middle}"
        if kind == "file":
            place += re.sub(r"^[^.]*", "", os.path.basename(step.destination))
        else:
            place = f"{kind}:{place}"
        return _said("sink", replace(step, destination=place))


def _said(name: str, step: Step) -> str:
    return _said_so(name, step.words(harmless=True))


def _said_so(name: str, words: Sequence[str]) -> str:
    """Without a `--` that tells nothing: options may be added behind."""
    at = words.index("--") if "--" in words else len(words)
    is_needed = any(word.startswith("-") and word != "-" for word in words[at + 1 :])
    return shlex.join([name, *words[:at], *words[at if is_needed else at + 1 :]])
