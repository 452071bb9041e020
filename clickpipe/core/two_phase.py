"""One aggregate as two steps: a partial in each of several workers, and a final behind their merge.

    worker 1   records --partial--> pieces ---\\
                                               merge ---> pieces --final--> results
    worker 2   records --partial--> pieces ---/

A partial keeps nothing beyond the next watermark: what came since the last one is handed on as pieces, a row per group, however
many records the group had. The final puts them together and is the aggregate in all else. Lateness is judged by the partial,
which has the records: whether a record's windows are gone follows from its own mark, and needs nobody else.

Guarantee: results are those of the undivided aggregate, whichever worker a record goes to, and whichever worker is ahead; rows
that are not final may come at other moments. Where of equal records the first to come would decide (first, last, arg_max,
arg_min, list, string_agg), nobody knows which that was: the value decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns, WindowInfo
from clickpipe.core.fixed import with_ends
from clickpipe.core.kept import Kept
from clickpipe.core.operator import Late, Operator
from clickpipe.core.pieces import COLUMNS, packed, unpacked
from clickpipe.core.step import OperatorStep, Tables
from clickpipe.core.summarise import Summarise
from clickpipe.core.summarising import Summarising
from clickpipe.core.windows import FIXED
from clickpipe.errors import Unsupported


def in_two(step: Summarise, given: Columns) -> tuple[Partial, Final]:
    """The step for workers, and the one behind their merge. `given`: the columns before the step. Raises PlanError.

    Both sides must be made from the same columns.
    """
    step.columns(given)
    _check(step, given)
    settled = replace(step, is_settled=True)
    return Partial(settled), Final(settled, given)


def _check(step: Summarise, given: Columns) -> None:
    """Raises Unsupported for what would depend on the order in which records come, or need all of them in one place."""
    window = step.grouping(given).window
    if window is not None and window.kind not in FIXED:
        raise _scattered(window)
    if step.overflow == "other":
        reason = "which groups were the first to come is not known of several workers"
        raise Unsupported("never", "--overflow other behind partition", reason, hint="--overflow stop can be", word="--overflow")
    if step.max_groups is not None and window is not None and window.lateness:
        reason = "which groups are too many would depend on which worker is ahead"
        raise Unsupported("notimpl", "--max-groups with --allowed-lateness behind partition", reason, word="--max-groups")
    for call in step.named_calls(given):
        if call.function.ordered_by == "time" and given.time is None:
            reason = "without event time the first to come decides, and of several workers nobody knows which that was"
            hint = "name the field that holds the time: ingest --time ts"
            raise Unsupported("never", f"{call.named.function}() behind partition", reason, hint=hint, word=call.named.text)


def _scattered(window: WindowInfo) -> Unsupported:
    """Of windows that are made of all records of their key."""
    by = ",".join(window.by)
    if not by:
        reason = "a window holds the next records to come, and of several workers nobody knows which those are"
        return Unsupported("never", f"window {window.kind} behind partition", reason, hint="put it behind merge")
    reason = f"records of one {window.kind} window would be in several workers"
    return Unsupported("never", f"window {window.kind} behind partition by something else", reason, hint=f"partition --by {by}")


@dataclass(frozen=True)
class _Half(OperatorStep):
    """What both phases have in common. `phase`: what this one is called."""

    whole: Summarise

    phase: ClassVar[str]
    outcome: ClassVar[str] = "aggregated"

    def says(self) -> str:
        return f"{self.phase} {self.whole.says()}"

    def words(self, *, harmless: bool = False) -> tuple[str, ...]:
        return self.whole.words(harmless=harmless)

    def passes(self) -> bool:
        return False


@dataclass(frozen=True)
class Partial(_Half):
    """The first phase. Shape: pieces, see core/pieces.py."""

    phase: ClassVar[str] = "partial"
    gives_pieces: ClassVar[bool] = True

    def columns(self, given: Columns) -> Columns:
        self.whole.columns(given)
        return replace(COLUMNS, idles=given.idles)

    def needs(self, given: Columns) -> tuple[str, ...]:
        return self.whole.needs(given)

    def refuses(self, given: Columns) -> bool:
        return self.whole.refuses(given)

    def open(self, given: Columns, saved: Tables) -> Operator:
        # What is said of groups that are many, of several sets of them and of rows before their time is the final's.
        said = replace(self.whole, emit="final", also=(), max_groups=None, overflow="stop")
        return PartialOperator(said, given, saved)

    def describe(self, given: Columns) -> str:
        return f"pieces of {self.whole.describe(given)}"

    def memory(self) -> str:
        return "one row per window and key that has come since the last watermark"

    def groups_by(self, given: Columns) -> tuple[str, ...]:
        return self.whole.groups_by(given)

    def keeps(self, given: Columns | None, window: WindowInfo | None) -> Kept:
        return replace(self.whole.keeps(given, window), until="handed on with each watermark", grows_with="")


@dataclass(frozen=True)
class Final(_Half):
    """The second phase. `given`: the columns that the partials are given."""

    given: Columns

    phase: ClassVar[str] = "final"

    def columns(self, given: Columns) -> Columns:
        given.need(COLUMNS.types, " with the pieces of an aggregate")
        return self.whole.columns(self.given)

    def needs(self, given: Columns) -> tuple[str, ...]:
        return tuple(COLUMNS.types)

    def keys(self, given: Columns) -> tuple[str, ...] | None:
        return ()

    def groups_by(self, given: Columns) -> tuple[str, ...]:
        return self.whole.groups_by(self.given)

    def open(self, given: Columns, saved: Tables) -> Operator:
        return FinalOperator(self.whole, self.given, saved)

    def describe(self, given: Columns) -> str:
        return self.whole.describe(self.given)

    def memory(self) -> str:
        return self.whole.memory()

    def keeps(self, given: Columns | None, window: WindowInfo | None) -> Kept:
        window = self.given.window
        return self.whole.keeps(self.given, window if window and set(window.columns()) <= set(self.given.types) else None)


class _Phase(Summarising):
    def take_in(self, batch: Batch) -> None:
        """Pieces. Where one side has seen floats, those of the other become pieces of floats too."""
        for part in unpacked(batch.frame):
            for name in sorted(part.floats - self._widened):
                self._widen(name)
            if self._capped:
                self._capped.admit(self._with_ends(part.rows))
            self._is_empty = False
            self._groups.add_pieces({part.table: part.rows}, self._widened - part.floats)

    def _with_ends(self, rows: pl.DataFrame) -> pl.DataFrame:
        return rows if self._window is None else with_ends(rows, self._window)


class PartialOperator(_Phase):
    """What is handed on goes with the watermark, as results do, and so is no record of the stream before."""

    def on_watermark(self, time: int) -> Iterable[Batch]:
        self._is_idle = False
        return self._handed_on(time)

    def on_update(self) -> Iterable[Batch]:
        return self._handed_on(None)

    def _handed_on(self, time: int | None) -> Iterator[Batch]:
        pieces = self._groups.take_pieces(time)
        if pieces:
            yield Batch(packed(pieces, self._widened), replace(COLUMNS, idles=self._given.idles))


class FinalOperator(_Phase):
    def on_batch(self, batch: Batch) -> Iterable[Batch | Late | Dead]:
        self.take_in(batch)
        return ()


__all__ = ["Final", "Partial", "in_two"]
