"""A pipeline as processes joined by pipes: one for all steps, or one per step, as a shell does it.

Each dies with the process that started it: nobody is left behind who writes to a state that a newer run has taken over.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from clickpipe.stopping import PARENT, RESCALE


class Group:
    """Started when it is made. Raises OSError when a process cannot be started; then none is left."""

    def __init__(self, commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._killed: set[int] = set()  # by us: that says nothing of why they had to end
        # What is told to a process before it can listen waits until it does.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1, RESCALE))
        try:
            for number, words in enumerate(commands):
                self._start(words, environment, is_last=number == len(commands) - 1)
        except BaseException:
            self.kill()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _start(self, words: Sequence[str], environment: Mapping[str, str], *, is_last: bool) -> None:
        before = self._processes[-1].stdout if self._processes else None
        process = subprocess.Popen(
            words,
            stdin=before,
            stdout=None if is_last else subprocess.PIPE,
            env={**environment, PARENT: str(os.getpid())},
            process_group=0,  # Ctrl-C is for us alone, who stop them one after the other
        )
        self._processes.append(process)
        if before:
            before.close()  # or the step before would never hear that its reader is gone

    def codes(self) -> list[int | None]:
        """Exit codes, None for those that live; 128 + n for signal n. Takes the dead out of the process table."""
        codes = [process.poll() for process in self._processes]
        told = [None if code is None else 128 - code if code < 0 else code for code in codes]
        return [75 if number in self._killed else code for number, code in enumerate(told)]

    def tell_source(self, number: signal.Signals) -> None:
        """Send a signal to the process that reads the input: the others end when the stream does."""
        with suppress(OSError):
            self._processes[0].send_signal(number)

    def kill(self) -> None:
        """At once, also those that have been stopped; none of them is a zombie after it."""
        for number, process in enumerate(self._processes):
            if process.poll() is None:
                self._killed.add(number)
            process.kill()
            if process.stdout:
                process.stdout.close()
        for process in self._processes:
            process.wait()


def verdict(codes: Sequence[int]) -> int:
    """The exit code of the whole. 75 says that the step before failed; any other code says more."""
    failed = [code for code in codes if code]
    return next((code for code in failed if code != 75), failed[0] if failed else 0)
