"""Where the records of a process end that divides them among workers: a stream to each.

A watermark and a barrier go to all, back to back. What the steps before have saved and counted goes along with the first
worker's only; it hands that on, so that it arrives once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from clickpipe.batch import Batch
from clickpipe.core.keygroups import worker_of
from clickpipe.core.meter import Ledger, check
from clickpipe.core.step import PartitionStep
from clickpipe.engine.ends import End
from clickpipe.wire.frames import Barrier, StreamLine, Worker
from clickpipe.wire.pump import Outbox
from clickpipe.wire.stream import StreamWriter


class DividedEnd(End):
    """`line`: that of the stream which is divided by `partition`."""

    def __init__(self, outboxes: Sequence[Outbox], line: StreamLine, partition: PartitionStep, *, keeps_text: bool) -> None:
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
        for number, stream in enumerate(self._streams):
            stream.write(batch.keep(workers == number))

    def advance(self, watermark: int | None, *, idle: bool) -> None:
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
