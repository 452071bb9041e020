"""The records of a test as its pipeline reads them, also in other orders that its watermark allows.

In another order none is late that was not: where s comes before r although it is later, then by --max-out-of-orderness at most.

    odd seeds     each moves by a chance of its own:   t(s) + d(s) <= t(r) + d(r), 0 <= d <= delay,   so   t(s) - t(r) <= delay
    even seeds    stretches no longer than the delay, the first one by chance, each backwards: far from the order that was given

What the clock says in between stays where it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from random import Random

import orjson

from clickpipe.batch import Batch
from clickpipe.cli.trials.arranged import Arranged
from clickpipe.columns import Columns
from clickpipe.core.eventtime import EventTime
from clickpipe.core.format import Wants
from clickpipe.errors import Unsupported
from clickpipe.lines import Block
from clickpipe.plan.cases import CLOCK, Moment

Line = str | Moment


def text_of(lines: Sequence[Line]) -> bytes:
    """As sources/given.py reads it; without moments, as any source does."""
    return b"".join(
        (orjson.dumps({CLOCK: line.at}) if isinstance(line, Moment) else line.encode("utf-8", "surrogatepass")) + b"\n"
        for line in lines
    )


def shuffled(arranged: Arranged, seed: int) -> list[Line]:
    """The lines in another order. The same seed gives the same order, with any version of Python."""
    chance = Random(seed)
    delay = int(arranged.ingest.max_out_of_orderness)
    times = iter(_times(arranged))
    ordered: list[Line] = []
    for is_moment, some in groupby(arranged.case.given, lambda line: isinstance(line, Moment)):
        lines = [*some]
        if is_moment:
            ordered += lines
            continue
        when = [next(times) for _ in lines]
        keys = _moved(when, delay, chance) if seed % 2 else _backwards(when, delay, chance)
        ordered += [line for _, line in sorted(zip(keys, lines, strict=True), key=lambda pair: pair[0])]
    return ordered


def _moved(times: Sequence[float], delay: int, chance: Random) -> list[tuple[float, ...]]:
    """By what to sort."""
    return [(time + chance.random() * delay, chance.random()) for time in times]


def _backwards(times: Sequence[float], delay: int, chance: Random) -> list[tuple[float, ...]]:
    begin: dict[float, float] = {}  # of the stretch that a time is in
    end = start = -math.inf
    for time in sorted(times):
        if time > end:
            start, end = time, time + delay * (1 if begin else (1 + chance.random()) / 2)
        begin[time] = start
    return [(begin[time], -time, chance.random()) for time in times]


def check_shuffle(arranged: Arranged) -> None:
    """Raises PlanError for records whose order says more than their times."""
    case = arranged.case
    if arranged.ingest.format == "csv":
        raise Unsupported("notimpl", "shuffle", "a record of CSV can have several lines", hint="give NDJSON records")
    delay, greatest = arranged.ingest.max_out_of_orderness, float("-inf")
    for number, time in enumerate(_times(arranged), 1):
        if time < greatest - delay:
            what = f"shuffle is for records of which none is late: record {number} is, and in another order it might not be"
            raise case.wrong(what, key="shuffle")
        greatest = max(greatest, time)


def _times(arranged: Arranged) -> Iterator[float]:
    """Of each record; of one that has none, that of the record before. Without event time all orders are allowed."""
    form, ingest = arranged.form(), arranged.ingest
    time = ingest.taking("given").event_time(form)
    lines = [line.encode("utf-8", "surrogatepass") + b"\n" for line in arranged.case.given if isinstance(line, str)]
    types = form.infer([Block(b"".join(lines), 0)])
    if time.field is None or time.field not in types:
        return iter([0.0] * len(lines))
    columns, wants = Columns(types), Wants([time.field], False, set())
    return _each_time(time, [form.read(Block(line, 0), columns, wants, "given")[0] for line in lines])


def _each_time(time: EventTime, batches: Sequence[Batch]) -> Iterator[float]:
    last = 0.0
    for batch in batches:
        found = time.instants(batch).drop_nulls()
        last = float(found[0]) if len(found) else last
        yield last
