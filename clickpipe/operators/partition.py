"""Run the steps up to merge in several processes at once, each with the keys that are its own.

Shape: as given. Order: of each key as it comes; merge says which of all. In a recipe the steps follow, and merge ends them
(without one, the last sink does); in a shell they stand in quotes, and the merged stream is written to standard output.
Records equal in the --by columns meet in one worker, and so must those that a step between brings together: its --by
columns include these. An aggregate by other columns is run in two phases: a partial one in each worker, which hands on a row
per group and batch, however many records a key has, and a final one behind merge. How many workers there are changes no
result, and may be changed between runs.
Memory: one batch, what stands in pipes, and counters of the hottest keys, which explain --live shows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from clickpipe.batch import Batch
from clickpipe.columns import Columns
from clickpipe.core.keygroups import GROUPS
from clickpipe.core.operator import Operator
from clickpipe.core.option import Names, argument, option
from clickpipe.core.skew import Skew
from clickpipe.core.step import OperatorStep, PartitionStep, Tables
from clickpipe.errors import PlanError


@dataclass(frozen=True)
class Partition(PartitionStep):
    by: Names = option("records equal in these columns go to the same worker", metavar="COL,…", example="user_id")
    steps: str | None = argument("in a shell: the steps of each worker, in quotes", default=None, metavar="[STEPS]")
    workers: int = option("how many processes run the steps", default=2, metavar="N")

    salt: int | None = option(
        "spread each key over so many workers, where one is too much for one; only aggregates can put it together again",
        default=None,
        metavar="N",
        example="4",
    )

    harmless = frozenset({"steps", "workers", "salt"})
    later = dict.fromkeys(
        ("--workers auto", "--min-workers", "--max-workers"),
        "workers are not added while a pipeline runs; stop it, and run it with another number of them",
    )
    epilog = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts |
    clickpipe partition --by user_id --workers 2 "window session 30m --by user_id | aggregate --by user_id n='count(*)'" |
    clickpipe limit 3 | clickpipe sink -
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst --time ts | partition --by user_id --workers 2 |
    window session 30m --by user_id | aggregate --by user_id n='count(*)' | merge | limit 3 | sink -\""""

    def __post_init__(self) -> None:
        if not self.by:
            raise PlanError("which records belong together? name columns", hint="as in: partition --by user_id")
        if not 1 <= self.workers <= GROUPS:
            raise PlanError(f"--workers can be 1 to {GROUPS}, and not {self.workers}", word="--workers")
        if self.salt is not None and not 1 <= self.salt <= GROUPS:
            raise PlanError(f"--salt can be 1 to {GROUPS}, and not {self.salt}", word="--salt")

    def columns(self, given: Columns) -> Columns:
        given.need(self.by, " to partition by")
        return given

    def covers(self, step: OperatorStep, given: Columns, kept: Collection[str]) -> bool:
        keys = step.keys(given)
        return keys is None or (self.salt is None and set(self.by) <= set(keys) & set(kept))

    def check(self, step: OperatorStep, given: Columns, kept: Collection[str]) -> None:
        if self.covers(step, given, kept):
            return
        if self.salt is not None:
            what = "--salt parts the records of a key, and only aggregates can put their results together again"
            raise PlanError(what, hint="put it behind merge, or leave --salt out")
        keys = step.keys(given)
        if not keys:
            raise PlanError("it needs all records, and each worker has some", hint="put it behind merge")
        if len(kept) < len(set(self.by)):
            changed = [name for name in self.by if name not in kept]
            raise PlanError(f'"{changed[0]}" is not what partition divided by: a step before has changed it', word=changed[0])
        raise PlanError(
            f"it brings together records equal in {', '.join(keys)}, and partition --by {','.join(self.by)} parts them",
            hint=f"partition --by {','.join(keys)}, or put it behind merge",
        )

    def needs(self, given: Columns) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.by))

    def open(self, given: Columns, saved: Tables) -> Operator:
        return PartitionOperator(self, saved)

    def describe(self, given: Columns) -> str:
        spread = f", each key over {self.salt} of them" if self.salt else ""
        return f"by {', '.join(self.by)}, {self.workers} worker{'s' if self.workers > 1 else ''}{spread}"


class PartitionOperator(Operator):
    """Hands everything on, and watches how unequal the parts are."""

    def __init__(self, step: Partition, saved: Tables) -> None:
        self._skew = Skew(list(dict.fromkeys(step.by)), saved)

    def on_batch(self, batch: Batch) -> Iterable[Batch]:
        self._skew.add(batch.frame)
        yield batch

    def snapshot(self) -> Tables:
        return self._skew.snapshot()
