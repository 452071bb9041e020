"""Sinks in the middle of a plan: each writes all that it is given, and passes it on, like tee.

Without checkpoints     its file is complete before the end of the stream is passed on; a reader that leaves early
                        does not cut it short.
With checkpoints        at a barrier its output becomes durable, not visible, in the background; the barrier takes the
                        entry along, and the pipeline's last process makes it visible.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable

from clickpipe.batch import Batch, Dead
from clickpipe.core.loop import Tail
from clickpipe.core.operator import FOREVER, Late, Operator, Writer
from clickpipe.core.terminal import close_standard_output
from clickpipe.engine.checkpoints import Checkpoints, Place
from clickpipe.errors import OutsideError, PlanError, ReaderGone
from clickpipe.faults import kill_point
from clickpipe.state.manifest import Entry
from clickpipe.wire.links import Links

_PATIENCE = 20.0  # seconds for which a process that would complete checkpoints may be about to join
_COMPLETES = "with --checkpoint, a sink at the end of the pipeline completes what all sinks have written"


class MiddleSink(Operator):
    """One of them. `open` makes its writer, when the run begins."""

    def __init__(self, place: Place, kind: str, open_: Callable[[], Writer]) -> None:
        self._place, self._kind, self._open = place, kind, open_
        self._writer = Writer()

    def open(self) -> None:
        self._writer = self._open()

    def on_batch(self, batch: Batch) -> Iterable[Batch | Late | Dead]:
        batch, dead = self._writer.accept(batch)
        self._writer.write(batch)
        yield from dead
        yield batch

    def on_watermark(self, time: int) -> Iterable[Batch]:
        if time < FOREVER:
            self._writer.advance(time)
        return ()

    def stage(self, epoch: int, checkpoints: Checkpoints, *, ended: bool) -> Entry:
        """What goes into the barrier. It becomes durable in the background."""
        staged = self._writer.prepare(epoch, ended=ended)
        kill_point("after-prepare")
        checkpoints.in_background(staged.durable)
        return self._place.staged(self._kind, staged)

    def close(self) -> None:
        """The stream ended as it should."""
        self._writer.close([])

    def abandon(self) -> None:
        """The stream failed."""
        self._writer.abandon()


class Unheeding:
    """A tail whose reader may leave: nothing is written there any more, and the sinks before it get their records."""

    def __init__(self, tail: Tail) -> None:
        self.is_gone = False
        self.tail = Tail(self._deaf(tail.write), self._deaf(tail.advance), tail.needs, tail.barrier)

    def _deaf(self, call: Callable[..., None]) -> Callable[..., None]:
        def called(*given: object) -> None:
            if self.is_gone:
                return
            try:
                call(*given)
            except ReaderGone:
                self.is_gone = True

        return called


def refuse_without_pipe() -> None:
    """Raises PlanError where no step can be behind this one that would complete checkpoints."""
    if stat.S_ISREG(os.fstat(1).st_mode) or os.isatty(1):
        raise PlanError(f"--pass: {_COMPLETES}", hint="… | sink FILE --pass | sink FILE", word="--pass")


def refuse_remote_checkpoints(links: Links) -> None:
    """Raises PlanError where no step behind this one could complete checkpoints: who reads it does not follow our paths."""
    for address in (outbox.address for outbox in links.written if not outbox.address.is_unix):
        raise PlanError(
            f"--to {address}: checkpoints do not go over TCP: the last step completes them in this machine's files",
            hint="a unix: address, or no --checkpoint",
            word="--to",
        )


def wait_until_complete(checkpoints: Checkpoints, epoch: int) -> None:
    """Until the last process has completed the last checkpoint. Raises OutsideError when there is none that will.

    `sink FILE --pass | jq` would else leave its file invisible and say nothing. The last process may sit behind a grep
    that hands on nothing before it sees the end of its input, and so may not have joined yet: standard output is closed
    first, and a process that leads is waited for.
    """
    close_standard_output()
    directory, deadline = checkpoints.directory, time.monotonic() + _PATIENCE
    directory.leave()
    while not directory.is_complete(epoch):
        is_hopeless = directory.is_led(checkpoints.run) or time.monotonic() > deadline
        if is_hopeless and directory.is_deserted() and not directory.is_complete(epoch):
            raise OutsideError(
                f"checkpoint {epoch} was not completed, so not all results are visible",
                notes=[_COMPLETES, "if there was one, it failed: run the same line again"],
            )
        time.sleep(0.005)
