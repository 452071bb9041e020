"""Where the records of a process end that divides them among workers: a stream to each.

A watermark and a barrier go to all, back to back. What the steps before have saved and counted goes along with the first
worker's only; it hands that on, so that it arrives once.

Steps that make new records look at some columns only, and only these are parsed and sent:

    {"ts":…,"user":"a","page":"/b",…}    ->    ts, user, and the line itself of what may leave the stream as it came

That is what is late, or bad. What has a mark, and what is behind the watermark, may be late; what may be bad, steps say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from clickpipe.batch import LINES, Batch
from clickpipe.core.keygroups import worker_of
from clickpipe.core.meter import Ledger, check
from clickpipe.core.operator import FOREVER
from clickpipe.core.step import PartitionStep
from clickpipe.core.time import instants
from clickpipe.engine.ends import End
from clickpipe.plan.blocks import Looked
from clickpipe.text import Text
from clickpipe.wire.frames import Barrier, StreamLine, Worker
from clickpipe.wire.pump import Outbox
from clickpipe.wire.stream import StreamWriter


class DividedEnd(End):
    """`line`: that of the stream which is divided by `partition`; `looked`: what workers look at, None: at all."""

    def __init__(
        self,
        outboxes: Sequence[Outbox],
        line: StreamLine,
        partition: PartitionStep,
        looked: Looked | None = None,
        *,
        keeps_text: bool,
    ) -> None:
        self._looked, self._watermark = looked, -FOREVER
        self._by, self._salt = partition.by, partition.salt
        workers = [Worker(number, len(outboxes), self._by) for number in range(len(outboxes))]
        self._streams = [
            StreamWriter(outbox, replace(line, worker=worker), arrow=True, keeps_text=keeps_text)
            for outbox, worker in zip(outboxes, workers, strict=True)
        ]

    def write(self, batch: Batch) -> None:
        worker = worker_of(self._by, len(self._streams))
        if self._salt:
            worker = (worker + pl.int_range(pl.len(), dtype=pl.UInt32) % self._salt) % len(self._streams)
        workers = batch.frame.select(worker).to_series()
        if self._looked and batch.origin is not None:
            batch = self._narrow(batch, self._looked) if batch.is_in_order() else batch.with_text()
        for number, stream in enumerate(self._streams):
            stream.write(batch.keep(workers == number))

    def _narrow(self, batch: Batch, looked: Looked) -> Batch:
        rows = pl.int_range(batch.height, eager=True) if looked.refuses else self._may_be_late(batch)
        lines = pl.Series(LINES, [None], pl.String).new_from_index(0, batch.height)
        if rows.len():
            lines = lines.scatter(rows, Text(block=batch.repeat(rows).with_text().to_ndjson()).lines())
        names = [name for name in batch.frame.columns if name in looked.names or name == "_mark"]
        return replace(batch, frame=batch.frame.select(names).with_columns(lines.alias(LINES)), origin=None)

    def _may_be_late(self, batch: Batch) -> pl.Series:
        """The rows."""
        time = batch.columns.time
        if time is None:
            return pl.Series([], dtype=pl.Int64)
        may = instants(batch.frame[time.name], batch.columns.types[time.name], time.unit) < self._watermark
        if "_mark" in batch.frame.columns:
            may |= batch.frame["_mark"].is_not_null()
        return may.arg_true()

    @property
    def bytes_out(self) -> int:  # type: ignore[override]  # it is counted elsewhere
        return sum(stream.sent for stream in self._streams)

    def advance(self, watermark: int | None, *, idle: bool) -> None:
        self._watermark = self._watermark if watermark is None else watermark
        for stream in self._streams:
            stream.advance(watermark, idle=idle)

    def barrier(self, barrier: Barrier, accounts: list[Ledger]) -> None:
        said = tuple(ledger.to_json() for ledger in accounts)
        for number, stream in enumerate(self._streams):
            stream.barrier(_for(number, replace(barrier, accounts=(), before=said)))

    def finish(self, accounts: list[Ledger], last: Barrier | None, *, is_stopped: bool) -> list[Ledger]:
        check(accounts[:-1])
        end = replace(last or Barrier(0), before=tuple(ledger.to_json() for ledger in accounts))
        for number, stream in enumerate(self._streams):
            said = _for(number, end)
            stream.end([], said.epoch, said.state, is_stopped=is_stopped, before=said.before)
        return accounts


def _for(number: int, barrier: Barrier) -> Barrier:
    return replace(barrier, state=(), before=()) if number else barrier
