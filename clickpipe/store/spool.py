"""Input that cannot be read again, written to a log before anybody computes with it.

    standard input, sockets --thread--> log, durable --> the pipeline reads it there, and again after a crash

What had come and was not durable yet when the process died is lost: some milliseconds of input.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from clickpipe.errors import PlanError
from clickpipe.lines import Block
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.store.logwriter import LogWriter

_PATIENCE = 5.0  # seconds that the end waits for what has arrived


class Spool:
    """Writes blocks of lines to a log as they come. `first`: the number of the first record that will be there.

    Raises PlanError for a log of several partitions, OutsideError while somebody else writes to it.
    """

    def __init__(
        self, name: str, blocks: Callable[[], Iterator[Block]], stop: Callable[[], None], patience: Patience = NO_PATIENCE
    ) -> None:
        self._writer = LogWriter(name, patience=patience)
        if self._writer.meta.partitions > 1:
            self._writer.close()
            raise PlanError(
                f"--spool log:{name}: it has {self._writer.meta.partitions} partitions, and must have one", word="--spool"
            )
        self._blocks, self._stop = blocks, stop
        self.first = self._writer.ends()[0]
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="spool")

    @property
    def id(self) -> str:
        """Of the log."""
        return self._writer.meta.id

    def begin(self) -> None:
        """From now on what comes is written."""
        self._thread.start()

    def has_ended(self) -> bool:
        """Whether all input is in the log. Raises what writing it raised."""
        if self._thread.is_alive():
            return False
        if self._failure is not None:
            raise self._failure
        return True

    def _work(self) -> None:
        try:
            for block in self._blocks():
                for line in block.overlong:  # its beginning is no record, and becomes a dead letter
                    self._writer.append(0, line.beginning.rstrip(b"\n") + b"\n")
                if block.data:
                    self._writer.append(0, block.data if block.data.endswith(b"\n") else block.data + b"\n")
                self._writer.commit()
        except BaseException as error:
            self._failure = error

    def close(self) -> None:
        """What has arrived goes into the log; then no more."""
        self._stop()
        self._thread.join(_PATIENCE)
        if not self._thread.is_alive():
            self._writer.close()
