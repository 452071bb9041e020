"""Keep pipelines running: start their processes, start them again when they die, stop them when asked.

    running ──ended well──────────────► done
       │ died   ▲
       ▼        │ after a while
    waiting ────┴──no progress, or not worth trying──► failed

The supervisor touches no data and does not load Polars. SIGTERM and SIGINT stop: a last checkpoint, windows stay
open. A second one ends all at once. SIGUSR1 drains: the input ends, windows close.
"""

from __future__ import annotations

import random
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from clickpipe.core.step import PartitionStep
from clickpipe.engine.group import Group, verdict
from clickpipe.engine.restart import History, Over, Policy, after_end
from clickpipe.engine.scaling import Scaler
from clickpipe.errors import Caution, ClickpipeError, Failure
from clickpipe.state import samples
from clickpipe.state.directory import StateDirectory
from clickpipe.state.hunt import HUNT, SETS_ASIDE, forget, suspect
from clickpipe.stopping import AGAIN, RESCALE, RESCALED, WORKERS

_GRACE = 0.5  # seconds that the others have, to end by themselves and say why, when one has failed
_LOOK = """
  what its processes said stands above; clickpipe checkpoint show {} shows how far it came"""
_STOPS = {signal.SIGTERM: "stop", signal.SIGINT: "stop", signal.SIGUSR1: "drain"}


@dataclass(frozen=True)
class Pipeline:
    """What to supervise. `state`: its state directory; None for one that takes no checkpoints, and is never started again;
    `listens`: others send it what it reads, and its input ends when it is asked to."""

    name: str
    commands: Sequence[Sequence[str]]
    state: str | None
    partitions: Sequence[PartitionStep] = ()  # where the number of workers of one follows the load
    listens: bool = False


class Attendant:
    """Whoever looks at the supervisor's pipelines now and then: nobody, unless a subclass says so. `due`: when it looks next."""

    due = float("inf")

    def look(self, now: float, names: Sequence[str]) -> None:
        """`names`: of the pipelines that are not over."""

    def stopping(self) -> None:
        """All were asked to end."""

    def ended(self, code: int) -> None:
        """All are over."""


class Supervisor:
    """`say`: what a person should know meanwhile, a pipeline's name first. `policy` None: nothing is started again."""

    def __init__(
        self,
        pipelines: Sequence[Pipeline],
        environment: Mapping[str, str],
        say: Callable[[str], None],
        policy: Policy | None,
        attendant: Attendant | None = None,
    ) -> None:
        together = len(pipelines)
        self._attendant = attendant or Attendant()
        self._all = [_Supervised(one, environment, say, policy if one.state else None, together) for one in pipelines]
        self._asked = ""

    def run(self) -> int:
        """Until all are over. The exit code: 0, or that of the first that failed."""
        with _signals() as taken:
            try:
                for one in self._all:
                    one.claim()
                while self._turn():
                    for number in taken(min(self._attendant.due, *(one.next for one in self._all)) - time.monotonic()):
                        self._take(number)
            finally:
                for one in self._all:
                    one.kill()
        code = next((one.code for one in self._all if one.code), 0)
        self._attendant.ended(code)
        return code

    def _turn(self) -> bool:
        """Do what there is to do; whether there may be more."""
        for one in self._all:
            one.turn(time.monotonic())
        if (now := time.monotonic()) >= self._attendant.due:
            self._attendant.look(now, [one.pipeline.name for one in self._all if not one.is_over])
        return any(not one.is_over for one in self._all)

    def _take(self, number: int) -> None:
        wanted = _STOPS.get(signal.Signals(number))
        if wanted is None:
            return
        self._attendant.stopping()
        for one in self._all:
            if self._asked == "stop" and wanted == "stop":
                one.end_now(128 + number)
            else:
                one.ask(number)
        self._asked = wanted


@dataclass
class _Supervised:
    """One pipeline and what became of it."""

    pipeline: Pipeline
    environment: Mapping[str, str]
    say: Callable[[str], None]
    policy: Policy | None
    together: int = 1  # pipelines of the same supervisor
    due: float = 0.0  # when there is something to do even if no process ends
    code: int = 0
    is_over: bool = False
    restarts: int = 0
    _asked: int = 0  # the signal by which it was asked to end
    _first: int = 0  # the run before the first that we start
    _before: int = 0  # the run before the one that we have started
    _hunt: Mapping[str, str] = field(default_factory=dict)
    _history: History = field(default_factory=History)
    _group: Group | None = None
    _directory: StateDirectory | None = None
    _scaler: Scaler | None = None
    _is_rescaling: bool = False  # it has been stopped to go on with another number of workers

    @property
    def next(self) -> float:
        """When it has its next turn, even if no process ends."""
        return min(self.due, self._scaler.due) if self._scaler and self._may_rescale else self.due

    @property
    def _may_rescale(self) -> bool:
        return self._group is not None and not self._asked and not self._is_rescaling

    def claim(self) -> None:
        """Nobody else supervises it. Raises OutsideError that says who does."""
        if self.pipeline.state:
            self._directory = StateDirectory(self.pipeline.state)
            self._directory.supervise()
            self._history, self._first = History(self._directory.newest_epoch()), self._directory.last_run()
            forget(self._directory)
            if self.pipeline.partitions:
                newest = next(self._directory.manifests(), None)
                begun_with = [workers for _, workers in newest.partitions()] if newest else []
                self._scaler = Scaler(self.pipeline.name, self.pipeline.partitions, begun_with)

    def turn(self, now: float) -> None:
        """Do what there is to do."""
        if self.is_over:
            return
        if self._group is None:
            if now >= self.due:
                self._start()
            return
        codes = self._group.codes()
        if None not in codes:
            self._ended(verdict([code for code in codes if code is not None]), now)
        elif any(codes):
            self._hurry(now)
        elif self._scaler and self._may_rescale and now >= self._scaler.due:
            self._is_rescaling = self._scaler.look(now, self.say)
            if self._is_rescaling:
                self._group.tell_source(RESCALE)

    def _start(self) -> None:
        self._before = self._directory.last_run() if self._directory else 0
        more = {AGAIN: "1"} if self._before != self._first else {}
        if self._scaler:
            self._scaler.begin(time.monotonic())
            more[WORKERS] = ",".join(map(str, self._scaler.counts))
        try:
            self._group = Group(self.pipeline.commands, {**self.environment, **self._hunt, **more})
        except OSError as error:
            self.say(Failure(f"{self.pipeline.name}: its processes cannot be started: {error.strerror}"))
            self._ended(75, time.monotonic())
            return
        self.due = float("inf")
        self._tell("running")

    def _hurry(self, now: float) -> None:
        """One has failed. The others hear of it by their pipes; who does not is stuck."""
        if self.due == float("inf"):
            self.due = now + _GRACE
        elif now >= self.due and self._group:
            self._group.kill()

    def _ended(self, code: int, now: float) -> None:
        self._group = None
        epoch = self._directory.newest_epoch() if self._directory else 0
        self._is_rescaling = False
        if code == RESCALED and self._asked in (0, signal.SIGUSR1):
            self._start()
            if self._asked and self._group:
                self._drain()
            return
        code = 0 if code == RESCALED else code
        if self._asked:
            if code == 128 + signal.SIGTERM:  # at once: it had nothing to save yet, or could not
                code = 75 if self._has_begun() or self._asked == signal.SIGUSR1 else 0
            self._over(Over(code, f"ended at checkpoint {epoch} before it could write a last one" if code else ""))
            return
        if self.policy is None:
            self._over(Over(code))
            return
        if self._scaler and code:
            self._scaler.died(self.say)
        stretch = suspect(self._directory) if self._directory and self.policy.hunts else None
        found = after_end(self.policy, self._history, code, epoch, random.random(), stretch.lines if stretch else None)
        if isinstance(found, Over):
            self._over(found)
            return
        self._history, self.due, self.restarts = found.history, now + found.delay, self.restarts + 1
        self._hunt = {HUNT: found.hunt} if found.hunt else {}
        if found.hunt == SETS_ASIDE and stretch:
            dies = f"dies at byte {stretch.offset:,} of {stretch.split}"
            self.say(Caution(f"{self.pipeline.name}: {dies}; that record becomes a dead letter"))
        again = f", restart {found.history.without_progress} from there" if found.history.without_progress > 1 else ""
        pause = f"in {found.delay:.1f} s{again}"
        self.say(Caution(f"{self.pipeline.name}: {_died(code)}; goes on from checkpoint {epoch} {pause}"))
        self._tell("waiting", last=_died(code))

    def _has_begun(self) -> bool:
        """Whether the run may have handed on a record. One that waits for its first has not said yet how it fares."""
        run = self._directory.last_run() if self._directory else self._before
        is_told = self.environment.get(samples.SWITCH) != "off"
        return run != self._before and not (is_told and all(one.run != run for one in samples.read(self.pipeline.name)))

    def _over(self, over: Over) -> None:
        self.is_over, self.code, self.due = True, over.code, float("inf")
        if over.reason:
            text = f"{self.pipeline.name}: {over.reason}{_LOOK.format(self.pipeline.name) if over.code == 1 else ''}"
            self.say(Failure(text) if 0 < over.code < 128 else text)
        state = "ended" if not over.code else "failed" if over.code < 128 else "stopped"
        self._tell(state, code=over.code, reason=over.reason)
        if self._directory:
            self._directory.leave()

    def ask(self, number: int) -> None:
        """To end well. One that takes no checkpoints has nothing to save; one that waits is started, to close its windows."""
        if self.is_over:
            return
        self._asked = number
        if self._group is None and number == signal.SIGUSR1:
            self._start()
        if self.is_over:  # it could not be started
            return
        if self._group is None:
            self._over(Over(0))
        elif self.pipeline.state is None and not self.pipeline.listens:
            self.end_now(128 + number)
        elif number == signal.SIGUSR1:
            self._drain()
        else:
            self._group.tell_source(signal.SIGTERM)
            self._tell("stopping")

    def _drain(self) -> None:
        assert self._group is not None
        self._group.tell_source(signal.SIGUSR1)
        self._tell("draining")

    def end_now(self, code: int) -> None:
        if not self.is_over:
            self.kill()
            self._over(Over(code, "ended at once; the next run goes on from its last checkpoint" if self.pipeline.state else ""))

    def kill(self) -> None:
        if self._group:
            self._group.kill()
            self._group = None

    def _tell(self, state: str, **more: Any) -> None:
        """For `status`. That this cannot be written is no reason to stop."""
        if self._directory is None:
            return
        try:
            known = {"state": state, "restarts": self.restarts, "since": time.time(), "together": self.together}
            known |= {"workers": self._scaler.counts} if self._scaler else {}
            self._directory.tell_of_supervisor(known | more)
        except ClickpipeError as error:
            self.say(Caution(error))


def _died(code: int) -> str:
    return f"killed by {signal.Signals(code - 128).name}" if 128 < code < 193 else f"failed with exit code {code}"


@contextmanager
def _signals() -> Iterator[Callable[[float], list[int]]]:
    """Signals come out of a descriptor, so that waiting for a time, a death or a person is one wait, and none is missed.

    Gives a function that waits some seconds, or until a signal comes, and returns the signals taken.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    numbers = [signal.SIGCHLD, *_STOPS]
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    old = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)

    def taken(seconds: float) -> list[int]:
        select.select([ours], [], [], None if seconds == float("inf") else max(0.0, seconds))
        try:
            return list(ours.recv(4096))
        except BlockingIOError:
            return []

    try:
        yield taken
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        ours.close()
        theirs.close()
