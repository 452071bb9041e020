"""Where a process's records end: a stream to the next one, a sink, or a sink that commits checkpoints."""

from __future__ import annotations

from dataclasses import replace

from clickpipe.core.meter import Ledger, added, check
from clickpipe.core.operator import Feed, Writer
from clickpipe.engine.checkpoints import Checkpoints
from clickpipe.engine.commit import Committer
from clickpipe.state.samples import CheckpointSample
from clickpipe.wire.frames import Barrier
from clickpipe.wire.stream import StreamWriter


class End:
    bytes_out = 0  # that were written, where records become bytes
    newest: CheckpointSample | None = None  # that was completed here

    def barrier(self, barrier: Barrier, accounts: list[Ledger]) -> None:
        """All that came before the barrier was written."""

    def finish(self, accounts: list[Ledger], last: Barrier | None, *, is_stopped: bool) -> list[Ledger]:
        """The stream ended as it should; `last`: the end as a barrier; `is_stopped`: the next run goes on from it.

        The accounts of all runs of this pipeline.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Raises what has failed in the background."""

    def abandon(self) -> None:
        """The stream failed. One that is not ended is seen to be so by its reader."""


class StreamEnd(End):
    def __init__(self, stream: StreamWriter, feed: Feed) -> None:
        self._stream, self._feed = stream, feed

    @property
    def bytes_out(self) -> int:  # type: ignore[override]  # it is counted elsewhere
        return self._stream.sent

    def barrier(self, barrier: Barrier, accounts: list[Ledger]) -> None:
        self._stream.barrier(replace(barrier, accounts=tuple(ledger.to_json() for ledger in accounts)))

    def finish(self, accounts: list[Ledger], last: Barrier | None, *, is_stopped: bool) -> list[Ledger]:
        check(accounts[:-1])
        said = [ledger.to_json() for ledger in accounts]
        self._stream.end(said, *((last.epoch, last.state) if last else ()), is_stopped=is_stopped, before=self._feed.before)
        return accounts


class SinkEnd(End):
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    @property
    def bytes_out(self) -> int:  # type: ignore[override]  # it is counted elsewhere
        return self._writer.bytes_out

    def finish(self, accounts: list[Ledger], last: Barrier | None, *, is_stopped: bool) -> list[Ledger]:
        check(accounts)
        self._writer.close(accounts)
        return accounts

    def abandon(self) -> None:
        self._writer.abandon()


class CommittedEnd(End):
    """The last process of a pipeline with checkpoints."""

    def __init__(self, committer: Committer, checkpoints: Checkpoints, writer: Writer, floats: set[str]) -> None:
        restore = checkpoints.restore
        self._before = [Ledger.from_json(dict(said)) for said in restore.accounts] if restore else []
        self._committer, self._writer, self._floats = committer, writer, floats

    @property
    def bytes_out(self) -> int:  # type: ignore[override]  # it is counted elsewhere
        return self._writer.bytes_out

    @property
    def newest(self) -> CheckpointSample | None:  # type: ignore[override]  # another thread completes them
        return self._committer.newest

    def barrier(self, barrier: Barrier, accounts: list[Ledger]) -> None:
        self._committer.put(barrier, self._all(accounts), self._floats, ended=False)

    def check(self) -> None:
        self._committer.check()

    def finish(self, accounts: list[Ledger], last: Barrier | None, *, is_stopped: bool) -> list[Ledger]:
        accounts = self._all(accounts)
        check(accounts)
        if last:
            self._committer.put(last, accounts, self._floats, ended=not is_stopped)
        self._committer.close()
        self._writer.close(accounts)
        return accounts

    def _all(self, accounts: list[Ledger]) -> list[Ledger]:
        """These accounts and those of the runs before, up to the checkpoint that this one goes on from."""
        if len(self._before) != len(accounts):  # the first run, or one that a limit has cut off from the steps before it
            return accounts
        return [added(before, now) for before, now in zip(self._before, accounts, strict=True)]

    def abandon(self) -> None:
        self._writer.abandon()
