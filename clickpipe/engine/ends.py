"""Where a process's records end: a stream to the next one, a sink, or a sink that commits checkpoints."""

from __future__ import annotations

from clickpipe.core.meter import OUTCOMES, Ledger, check
from clickpipe.core.operator import Writer
from clickpipe.engine.checkpoints import Checkpoints, Committer, Place
from clickpipe.wire.frames import Barrier
from clickpipe.wire.stream import StreamWriter


class End:
    def barrier(self, barrier: Barrier, accounts: list[Ledger]) -> None:
        """All that came before the barrier was written."""

    def finish(self, accounts: list[Ledger], last: Barrier | None) -> list[Ledger]:
        """The stream ended as it should; `last`: the end as a barrier. The accounts of all runs of this pipeline."""
        raise NotImplementedError

    def abandon(self) -> None:
        """The stream failed. One that is not ended is seen to be so by its reader."""


class StreamEnd(End):
    def __init__(self, stream: StreamWriter) -> None:
        self._stream = stream

    def barrier(self, barrier: Barrier, accounts: list[Ledger]) -> None:
        self._stream.barrier(Barrier(barrier.epoch, barrier.state, tuple(ledger.to_json() for ledger in accounts)))

    def finish(self, accounts: list[Ledger], last: Barrier | None) -> list[Ledger]:
        check(accounts[:-1])
        said = [ledger.to_json() for ledger in accounts]
        self._stream.end(said, *((last.epoch, last.state) if last else ()))
        return accounts


class SinkEnd(End):
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def finish(self, accounts: list[Ledger], last: Barrier | None) -> list[Ledger]:
        check(accounts)
        self._writer.close(accounts)
        return accounts

    def abandon(self) -> None:
        self._writer.abandon()


class CommittedEnd(End):
    """The last process of a pipeline with checkpoints."""

    def __init__(self, pipeline: str, checkpoints: Checkpoints, writer: Writer, place: Place) -> None:
        restore = checkpoints.restore
        self._before = [Ledger.from_json(dict(said)) for said in restore.accounts] if restore else []
        self._writer, self._place = writer, place
        Committer.redo(checkpoints, writer, place)
        self._committer = Committer(pipeline, checkpoints, writer)

    def barrier(self, barrier: Barrier, accounts: list[Ledger]) -> None:
        self._committer.put(barrier.epoch, list(barrier.state), self._all(accounts), self._place, ended=False)

    def finish(self, accounts: list[Ledger], last: Barrier | None) -> list[Ledger]:
        accounts = self._all(accounts)
        check(accounts)
        if last:
            self._committer.put(last.epoch, list(last.state), accounts, self._place, ended=True)
        self._committer.close()
        self._writer.close(accounts)
        return accounts

    def _all(self, accounts: list[Ledger]) -> list[Ledger]:
        """These accounts and those of the runs before, up to the checkpoint that this one goes on from."""
        if not self._before:
            return accounts
        return [_sum(before, now) for before, now in zip(self._before, accounts, strict=True)]

    def abandon(self) -> None:
        self._writer.abandon()


def _sum(one: Ledger, other: Ledger) -> Ledger:
    names = ("read", *OUTCOMES, "partly_late")
    return Ledger(**{name: getattr(one, name) + getattr(other, name) for name in names})
