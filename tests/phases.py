"""A step run whole, or in two phases: by hand, over the wire, by as many workers as one likes, whichever of them is ahead."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns
from clickpipe.core.loop import Asides, Loop, Stage, Tail
from clickpipe.core.meter import Ledger, added, check, joined
from clickpipe.core.operator import FOREVER, Feed, Pull
from clickpipe.core.step import OperatorStep, SourceStep
from clickpipe.core.summarise import Summarise
from clickpipe.core.two_phase import in_two
from clickpipe.engine.feeds import StreamFeed
from clickpipe.plan.parse import parse
from clickpipe.testing import Collected, reopened
from clickpipe.wire.frames import StreamLine
from clickpipe.wire.pump import Inbox, Outbox
from clickpipe.wire.stream import StreamReader, StreamWriter


@dataclass(frozen=True)
class Manner:
    """How a step is run in two phases. `seed`: of the order in which the workers' frames come; `resumed`: all begin anew, from
    what they have saved, every so many pulls."""

    workers: int = 2
    seed: int = 0
    resumed: int = 0
    arrow: bool = True


class Given(Feed):
    """Pulls that are there already."""

    def __init__(self, columns: Columns, pulls: Sequence[Pull]) -> None:
        self.columns, self._pulls = columns, pulls
        self.inherited, self.floats = [], set()

    def pulls(self) -> Iterator[Pull]:
        return iter(self._pulls)


@dataclass
class Input:
    """What a source gives, and the steps behind it; the last one is the aggregate."""

    columns: Columns
    pulls: list[Pull]
    steps: list[OperatorStep]


def read(text: str, *, is_declared: bool = True) -> Input:
    """A pipeline without a sink. `is_declared`: integer columns stay what they were declared to be."""
    source, *steps = (node.step for node in parse(text).nodes)
    assert isinstance(source, SourceStep)
    feed = source.open()
    feed.want(None if is_declared else [], True)
    pulls = list(feed.pulls())
    columns = feed.columns if is_declared else _loosened(feed.columns)
    if not is_declared:
        for pull in pulls:
            pull.batches = [replace(batch, columns=_loosened(batch.columns)) for batch in pull.batches]
    return Input(columns, pulls, [step for step in steps if isinstance(step, OperatorStep)])


def _loosened(columns: Columns) -> Columns:
    return replace(columns, declared=frozenset())


def whole(given: Input) -> Collected:
    """The undivided step, in one process."""
    seen = Collected()
    stages, columns = _stages(given.steps, given.columns)
    seen.accounts = _run(Given(given.columns, given.pulls), stages, _collecting(seen, columns), seen)
    return seen


def in_phases(given: Input, by: str, manner: Manner, folder: Path) -> Collected:
    """Records go to workers by a column. The accounts are those of all processes."""
    *before, step = given.steps
    assert isinstance(step, Summarise)
    columns = _stages(before, given.columns)[1]
    partial, final = in_two(step, columns)
    seen, streams, accounts = Collected(), [], []
    for number, pulls in enumerate(_dealt(given.pulls, by, manner.workers)):
        path = folder / f"worker-{number}"
        accounts.append(_work(Given(given.columns, pulls), [*before, partial], path, manner, seen))
        streams.append(_frames(path))
    stages, results = _stages([final], partial.columns(columns))
    merged = list(_merged(streams, random.Random(manner.seed)))
    own = _run(Given(stages[0].given, merged), stages, _collecting(seen, results), seen, manner.resumed)
    inherited = [reduce(added, ledgers) for ledgers in zip(*accounts, strict=True)]
    every = joined(inherited, own)
    check([ledger for ledger in every if ledger.pieces])
    seen.accounts = [ledger for ledger in every if not ledger.pieces]
    return seen


def _stages(steps: Sequence[OperatorStep], columns: Columns) -> tuple[list[Stage], Columns]:
    stages = []
    for step in steps:
        after = step.columns(columns)
        stages.append(Stage("step", step, columns, step.open(columns, {}), step.needs(columns)))
        columns = after
    return stages, columns


def _run(feed: Feed, stages: list[Stage], tail: Tail, seen: Collected, resumed: int = 0) -> list[Ledger]:
    if resumed:
        feed.pulls = _resuming(feed.pulls, stages, resumed)  # type: ignore[method-assign]  # of this feed
    asides = Asides(lambda late: seen.late.extend(late.batch.frame.to_dicts()), lambda dead: seen.dead.extend(dead.raw))
    loop = Loop(feed, stages, tail, asides, feed.floats)
    loop.run()
    return loop.accounts


def _resuming(pulls: Callable[[], Iterator[Pull]], stages: list[Stage], every: int) -> Callable[[], Iterator[Pull]]:
    def resuming() -> Iterator[Pull]:
        for number, pull in enumerate(pulls(), 1):
            yield pull
            if number % every == 0:
                for stage in stages:
                    assert isinstance(stage.step, OperatorStep)
                    stage.operator = reopened(stage.step, stage.given, stage.operator)

    return resuming


def _collecting(seen: Collected, columns: Columns) -> Tail:
    return Tail(lambda batch: seen.rows.extend(batch.frame.select(columns.names()).to_dicts()), lambda _, __: None, ())


def _dealt(pulls: Sequence[Pull], by: str, workers: int) -> list[list[Pull]]:
    """Each worker's records, in order, with every watermark. The first one is given what is bad, too."""
    dealt: list[list[Pull]] = [[] for _ in range(workers)]
    for pull in pulls:
        for number, mine in enumerate(dealt):
            batches = [some for batch in pull.batches if (some := _of(batch, by, number, workers)).height]
            dead: list[Dead] = pull.dead if number == 0 else []
            count = sum(batch.height for batch in batches) + sum(map(len, dead))
            mine.append(Pull(batches, pull.watermark, dead, count, idle=pull.idle))
    return dealt


def _of(batch: Batch, by: str, number: int, workers: int) -> Batch:
    keys, _ = batch.need([by], set())
    place = [zlib.crc32(str(key).encode()) % workers for key in keys.frame[by]]
    return batch.keep(pl.Series(place, dtype=pl.Int64) == number)


def _work(feed: Feed, steps: list[OperatorStep], path: Path, manner: Manner, seen: Collected) -> list[Ledger]:
    """One worker, which writes a stream."""
    stages, columns = _stages(steps, feed.columns)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    stream = StreamWriter(Outbox(descriptor, path.name), StreamLine(columns, "test", 1, 1, None), arrow=manner.arrow)
    tail = Tail(stream.write, lambda watermark, is_idle: stream.advance(watermark, idle=is_idle), ())
    accounts = _run(feed, stages, tail, seen, manner.resumed)
    stream.end([ledger.to_json() for ledger in accounts])
    os.close(descriptor)
    return accounts


def _frames(path: Path) -> list[Pull]:
    descriptor = os.open(path, os.O_RDONLY)
    reader = StreamReader(Inbox(descriptor, path.name))
    assert reader.line is not None
    pulls = list(StreamFeed(reader, reader.line).pulls())
    os.close(descriptor)
    return pulls


def _merged(streams: Sequence[list[Pull]], chance: random.Random) -> Iterator[Pull]:
    """Any interleaving of them; the watermark is the least that all have said."""
    left = [[*stream, Pull(watermark=FOREVER)] for stream in streams]
    reached: list[int | None] = [None] * len(streams)
    while open_ := [number for number, stream in enumerate(left) if stream]:
        number = chance.choice(open_)
        pull = left[number].pop(0)
        reached[number] = pull.watermark if pull.watermark is not None else reached[number]
        known = [time for time in reached if time is not None]
        watermark = min(known) if len(known) == len(reached) and min(known) < FOREVER else None
        yield replace(pull, watermark=watermark)


def by_key(rows: Sequence[dict[str, Any]], key: Sequence[str]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Of rows that are given again the last one of each key."""
    return {tuple(row[name] for name in key): row for row in rows}
