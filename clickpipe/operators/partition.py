"""Run the steps up to merge in several processes at once, each with the keys that are its own.

Shape: as given. Order: of each key as it comes; merge says which of all. In a recipe the steps follow, and merge ends them
(without one, the last sink does); in a shell they stand in quotes, and the merged stream is written to standard output.
Records equal in the --by columns meet in one worker, and so must those that a step between brings together: its --by
columns include these. An aggregate by other columns is run in two phases: a partial one in each worker, which hands on a row
per group and batch, however many records a key has, and a final one behind merge. How many workers there are changes no
result, and may be changed between runs. With --workers auto, run changes it while a pipeline with checkpoints runs, by how busy
the workers are; elsewhere, and for input that cannot be read again, there are as many as --max-workers allows.
Memory: one batch, what stands in pipes, and counters of the hottest keys, which explain --live shows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from clickpipe.batch import Batch
from clickpipe.columns import Columns
from clickpipe.core.cores import cores
from clickpipe.core.keygroups import GROUPS
from clickpipe.core.lint import Advice, Situation
from clickpipe.core.operator import Operator
from clickpipe.core.option import Duration, Names, Workers, argument, option
from clickpipe.core.skew import Skew
from clickpipe.core.step import OperatorStep, PartitionStep, Tables
from clickpipe.errors import PlanError

_OF_AUTO = ("min_workers", "max_workers", "cool_down")
_SHORTEST = 3_000  # milliseconds: processes say once a second what they do


@dataclass(frozen=True)
class Partition(PartitionStep):
    by: Names = option("records equal in these columns go to the same worker", metavar="COL,…", example="user_id")
    steps: str | None = argument("in a shell: the steps of each worker, in quotes", default=None, metavar="[STEPS]")
    workers: Workers = option(
        "how many processes run the steps; auto: as many as the load takes", default=Workers(2), metavar="N|auto"
    )
    min_workers: int = option("with --workers auto: not fewer", default=1, metavar="N")
    max_workers: int | None = option(
        "with --workers auto: not more  [default one per core]", default=None, metavar="N", example="4"
    )
    cool_down: Duration = option("with --workers auto: at least so long between two changes", default=Duration(30_000))
    salt: int | None = option(
        "spread each key over so many workers, where one is too much for one; only aggregates can put it together again",
        default=None,
        metavar="N",
        example="4",
    )

    harmless = frozenset({"steps", "workers", *_OF_AUTO, "salt"})
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
        if not self.is_auto and not 1 <= self.workers <= GROUPS:
            raise PlanError(f"--workers can be auto, or 1 to {GROUPS}, and not {self.workers}", word="--workers")
        self._check_auto()
        if self.salt is not None and not 1 <= self.salt <= GROUPS:
            raise PlanError(f"--salt can be 1 to {GROUPS}, and not {self.salt}", word="--salt")

    def _check_auto(self) -> None:
        for name in _OF_AUTO:
            flag, value = "--" + name.replace("_", "-"), getattr(self, name)
            if not self.is_auto and value != getattr(Partition, name):
                raise PlanError(f"{flag} is for --workers auto", word=flag)
            if name != "cool_down" and value is not None and not 1 <= value <= GROUPS:
                raise PlanError(f"{flag} can be 1 to {GROUPS}, and not {value}", word=flag)
        if self.cool_down < _SHORTEST:
            raise PlanError(f"--cool-down is at least {_SHORTEST // 1_000}s: less tells nothing", word="--cool-down")
        if self.max_workers is not None and self.max_workers < self.min_workers:
            raise PlanError(
                f"--max-workers {self.max_workers} is less than --min-workers {self.min_workers}", word="--max-workers"
            )

    @property
    def least(self) -> int:
        return self.min_workers if self.is_auto else self.workers

    @property
    def most(self) -> int:
        if not self.is_auto:
            return self.workers
        return max(self.min_workers, min(cores(), GROUPS)) if self.max_workers is None else self.max_workers

    def with_workers(self, workers: int) -> Partition:
        return replace(self, workers=Workers(workers), **{name: getattr(Partition, name) for name in _OF_AUTO})

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

    def groups_by(self, given: Columns) -> tuple[str, ...]:
        return self.needs(given)

    def advice(self, where: Situation) -> Iterable[Advice]:
        if not self.is_auto and self.workers > cores():
            many = f"{cores()} core{'s' if cores() > 1 else ''}"
            what = f"this machine has {many}: {self.workers} workers take turns on them, and cost more than they bring"
            yield Advice("workers", what, f"--workers {cores()}, or --workers auto")

    def describe(self, given: Columns) -> str:
        spread = f", each key over {self.salt} of them" if self.salt else ""
        many = f"{self.least} to {self.most}" if self.is_auto and self.least < self.most else f"{self.most}"
        return f"by {', '.join(self.by)}, {many} worker{'s' if self.most > 1 else ''}{spread}"


class PartitionOperator(Operator):
    """Hands everything on, and watches how unequal the parts are."""

    def __init__(self, step: Partition, saved: Tables) -> None:
        self._skew = Skew(list(dict.fromkeys(step.by)), saved)

    def on_batch(self, batch: Batch) -> Iterable[Batch]:
        self._skew.add(batch.frame)
        yield batch

    def snapshot(self) -> Tables:
        return self._skew.snapshot()
