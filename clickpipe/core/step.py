"""Steps: what a plan says. Subclasses are frozen dataclasses whose fields are the options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import polars as pl

from clickpipe.columns import Columns, WindowInfo
from clickpipe.core.guarantee import WHOLE, Guarantee
from clickpipe.core.kept import Kept
from clickpipe.core.lint import Advice, Input, Situation
from clickpipe.core.operator import Feed, Operator, Writer
from clickpipe.core.option import AUTO, Duration, Option, Workers, options
from clickpipe.core.units import format_duration
from clickpipe.errors import PlanError, Unsupported
from clickpipe.state.directory import StateDirectory

Tables = Mapping[str, "pl.DataFrame"]


class Step:
    """One line of a plan: immutable, says what; `open` makes what runs."""

    epilog: ClassVar[str] = ""  # for --help: examples and what else a person wants to know
    later: ClassVar[Mapping[str, str]] = {}  # options of the design that this version lacks, and why: "notyet: …", else notimpl

    gives_pieces: ClassVar[bool] = False  # what an aggregate gives are pieces of results, which another puts together
    harmless: ClassVar[frozenset[str]] = frozenset()  # options that change no result: saved state does not depend on them

    def says(self) -> str:
        """What was said, in one spelling: state that was saved under other words belongs to another step."""
        fields = [field for field in dataclasses.fields(self) if field.name not in self.harmless]  # type: ignore[arg-type]  # a dataclass
        given = [(field, getattr(self, field.name)) for field in fields]
        words = [_word(field, value) for field, value in given if value != field.default]
        return " ".join(words)

    def words(self, *, harmless: bool = False) -> tuple[str, ...]:
        """The same as words that are read back as an equal step; by default without the options that change no result."""
        left_out = frozenset() if harmless else self.harmless
        given = [(option, getattr(self, option.name)) for option in options(type(self)) if option.name not in left_out]
        flags = [word for option, value in given if not option.is_argument for word in _flagged(option, value)]
        arguments = [word for option, value in given if option.is_argument for word in _each(value)]
        return (*flags, "--", *arguments) if arguments else tuple(flags)

    def describe(self, given: Columns) -> str:
        """What the step does to records with these columns, for `explain`. One line."""
        return ""

    def memory(self) -> str:
        """Memory as a function of what, for `explain`."""
        return "one batch"

    def keeps(self, given: Columns | None, window: WindowInfo | None) -> Kept | None:
        """What it keeps between batches. `given`: None where columns are not known yet; `window`: in which its records are."""
        return None

    def advice(self, where: Situation) -> Iterable[Advice]:
        """What is wrong with it in a plan, though it can run."""
        return ()


def _word(field: dataclasses.Field[Any], value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, tuple) else _spelled(value)
    return text if field.metadata.get("is_argument") else f"--{field.name.replace('_', '-')} {text}"


def _flagged(option: Option, value: Any) -> list[str]:
    if value == option.default or value is False:
        return []
    return [option.flag] if value is True else [word for one in _each(value) for word in (option.flag, one)]


def _each(value: Any) -> list[str]:
    return [] if value is None else [_spelled(one) for one in (value if isinstance(value, tuple) else (value,))]


def _spelled(value: Any) -> str:
    return format_duration(value) if isinstance(value, Duration) else str(value)


class FlowStep(Step):
    """A step that records flow into, and mostly out of."""

    outcome: ClassVar[str] = "filtered"  # what became of a record that comes in and does not go out

    def columns(self, given: Columns) -> Columns:
        """The columns after the step. Raises PlanError for what cannot work."""
        return given

    def needs(self, given: Columns) -> tuple[str, ...]:
        """The columns whose values the step looks at."""
        return ()

    def passes(self) -> bool:
        """Whether columns that the step does not need pass through untouched."""
        return True

    def judges_lateness(self) -> bool:
        """Whether it sends records that come too late to the late stream."""
        return False

    def tolerates(self) -> int:
        """How late a record may be that it still takes, in milliseconds."""
        return 0


class OperatorStep(FlowStep):
    """A step between two streams. `chooses`: it does nothing but keep or drop each record by its own values; `ends`: the stream
    ends behind it, though the input may not."""

    chooses: ClassVar[bool] = False
    ends: ClassVar[bool] = False

    def keys(self, given: Columns) -> tuple[str, ...] | None:
        """Records equal in these must meet in one worker; (): all records; None: no matter."""
        return None

    def groups_by(self, given: Columns) -> tuple[str, ...] | None:
        """The columns by which it brings records together, for `explain`; (): all of them; None: each is by itself."""
        return self.keys(given)

    def assigns(self) -> WindowInfo | None:
        """The windows that it puts records into."""
        return None

    def choosable(self, given: Columns) -> frozenset[str]:
        """Columns by which records may as well be chosen before the step as behind it."""
        return frozenset()

    def changes(self, given: Columns) -> frozenset[str]:
        """Columns that it gives and that are not what they were before it, though they may be called so."""
        return frozenset()

    def refuses(self, given: Columns) -> bool:
        """Whether it may find a record bad whose columns hold what they should."""
        return True

    def open(self, given: Columns, saved: Tables) -> Operator:
        """A running operator, from the tables of its last snapshot ({} on a first start)."""
        raise NotImplementedError

    def flink(self, given: Any) -> str:
        raise Unsupported("notimpl", "Flink SQL", "this version runs plans on one machine only")


class PartitionStep(OperatorStep):
    """A step that divides records among workers, which run the steps up to the next MergeStep.

    `steps`: those, where they were quoted; `by`: records equal in these columns go to the same worker; `salt`: or are spread over
    so many.
    """

    steps: str | None
    by: tuple[str, ...]
    workers: Workers
    salt: int | None
    cool_down: Duration

    @property
    def is_auto(self) -> bool:
        """Whether the number of workers follows the load."""
        return self.workers == AUTO

    @property
    def least(self) -> int:
        """Workers that it has at any time; `most`: no more than these."""
        raise NotImplementedError

    @property
    def most(self) -> int:
        raise NotImplementedError

    def with_workers(self, workers: int) -> PartitionStep:
        """The same, with so many."""
        raise NotImplementedError

    def covers(self, step: OperatorStep, given: Columns, kept: Collection[str]) -> bool:
        """Whether workers can run the step apart. `kept`: our columns that are still what they were."""
        raise NotImplementedError

    def check(self, step: OperatorStep, given: Columns, kept: Collection[str]) -> None:
        """Raises PlanError unless they can."""
        raise NotImplementedError


class MergeStep(OperatorStep):
    """A step that makes one stream of several. `max_drift`: one that is further ahead in time than this waits."""

    ordered: bool
    max_drift: Duration | None

    def unordered(self) -> MergeStep:
        """The same, in any order."""
        raise NotImplementedError


class SourceStep(Step):
    """A step that begins a plan."""

    def open(self, *, say: Callable[[str], None] = lambda _: None) -> Feed:
        """A running feed: the columns are known, no record has been given out. Raises PlanError.

        `say`: what a person should know meanwhile.
        """
        raise NotImplementedError

    @property
    def takes_checkpoints(self) -> bool:
        """Whether the pipeline that it begins saves its state."""
        return False

    def input(self) -> Input:
        """What is known of its records before any is read."""
        return Input()

    def guarantee(self) -> Guarantee:
        """What becomes of its records when processes die, for `explain`."""
        raise NotImplementedError


class RawStep(SourceStep):
    """A step that makes raw NDJSON, for `ingest -` behind it."""

    def guarantee(self) -> Guarantee:
        return Guarantee(WHOLE, "it gives the same records again, from the first")

    def raw(self) -> Iterator[bytes]:
        """Blocks of whole lines."""
        raise NotImplementedError

    def open(self, *, say: Callable[[str], None] = lambda _: None) -> Feed:
        raise PlanError("its lines are raw: put ingest - behind it")


class SinkStep(FlowStep):
    """A step that writes what it is given: the last one, or one in the middle that passes it on."""

    def is_middle(self) -> bool:
        """Whether it passes on what it is given."""
        return False

    def destination_kind(self) -> str:
        """The part of clickpipe.sinks that commits what its writer has staged."""
        raise NotImplementedError

    def place(self) -> str:
        """Where it writes, in one spelling: two sinks of a pipeline must not write to one place."""
        return ""

    def open(self, given: Columns) -> Writer:
        """A writer for records with these columns."""
        raise NotImplementedError

    def open_staged(self, given: Columns, restored: int, saved: Mapping[str, Any] | None, directory: StateDirectory) -> Writer:
        """The same for a pipeline with checkpoints. Raises StateError where the destination is ahead of them.

        `restored`: the checkpoint that the run goes on from, 0 for none; `saved`: what this sink had staged for it;
        `directory`: where the pipeline's checkpoints are.
        """
        return self.open(given)

    def guarantee(self, *, has_checkpoints: bool) -> Guarantee:
        """What a reader of the sink may rely on, for `explain`."""
        raise NotImplementedError
