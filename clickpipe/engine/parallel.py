"""A plan with partitions as processes: this one reads the input, its children are the workers and what comes behind them.

    this process ──┬─ worker 0 ─┬── the rest
                   └─ worker 1 ─┘                joined by pipes; each runs a segment of the plan

All are forked before anything is computed: a fork has none of the threads that Polars computes with. In a child the call
comes back as it does here, with what the child has come to. A child dies with this process; and this process ends last,
with the code of the one that failed, who has said why.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from clickpipe.engine.group import verdict
from clickpipe.errors import Failure, OutsideError, ReaderGone, StepBeforeFailed
from clickpipe.plan.blocks import Segment
from clickpipe.stopping import die_with_parent, on_ask
from clickpipe.wire.failing import pass_on_failure

_GRACE = 5.0  # seconds that the others have, to end by themselves, when one has failed
_LOOK = 0.01
_GONE = 0.1  # seconds after which a process that has closed its streams has ended too


@dataclass(frozen=True)
class Role:
    """What a process runs. `inputs`, `outputs`: descriptors; none: standard input and output. `name`: for messages."""

    segment: Segment
    name: str = ""
    inputs: Sequence[int] = ()
    outputs: Sequence[int] = ()
    following: Segment | None = None  # what the workers run that it writes to

    @property
    def is_worker(self) -> bool:
        return self.segment.partition is not None

    @property
    def workers(self) -> Segment | None:
        """What is run by the workers that it is one of, or that it writes to."""
        return self.segment if self.is_worker else self.following


ALONE = Role(Segment(()))


@contextmanager
def forked(segments: Sequence[Segment], say: Callable[[str], None], *, is_saved: bool) -> Iterator[Role]:
    """In each of the processes its role. `is_saved`: whether the pipeline takes checkpoints, and may be killed at any moment.

    Raises StepBeforeFailed when a child has failed.
    """
    first, *others = _roles(segments)
    everything = {one for role in (first, *others) for one in (*role.inputs, *role.outputs)}
    parent, children = os.getpid(), dict[int, str]()
    for role in others:
        process = os.fork()
        if not process:
            _die_with(parent, signal.SIGKILL if is_saved else signal.SIGTERM)
            if is_saved:
                on_ask(lambda _: True)  # we end when the stream does
            with _passing_on_failure(mine := _moved(role, everything)), _silent_without(parent):
                yield mine
            return
        children[process] = role.name
    _close(everything - {*first.inputs, *first.outputs})
    yield from _first(first, children, say)


def _first(role: Role, children: dict[int, str], say: Callable[[str], None]) -> Iterator[Role]:
    """The process that reads the input, and ends when its children have ended."""
    try:
        with _passing_on_failure(role):
            yield role
    except ReaderGone:
        _end(children, say)
        raise
    except BaseException:
        with suppress(StepBeforeFailed):
            _end(children, say, is_failed=True)
        raise
    _end(children, say)


def _roles(segments: Sequence[Segment]) -> list[Role]:
    roles = [Role(segments[0])]
    for workers, rest in zip(segments[1::2], segments[2::2], strict=True):
        to, back = ([os.pipe() for _ in range(workers.processes)] for _ in range(2))
        roles[-1] = replace(roles[-1], outputs=[into for _, into in to], following=workers)
        before = [
            Role(workers, f"worker {number}", [out], [into])
            for number, ((out, _), (_, into)) in enumerate(zip(to, back, strict=True))
        ]
        roles += [*before, Role(rest, "what merges", [out for out, _ in back])]
    return roles


def _moved(role: Role, everything: set[int]) -> Role:
    """A child's descriptors where it looks for them: a worker's are standard input and output, others read no standard input."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(role.inputs[0] if role.is_worker else nothing, 0)
    if role.is_worker:
        os.dup2(role.outputs[0], 1)
        role = replace(role, inputs=(), outputs=())
    os.close(nothing)
    _close(everything - {*role.inputs, *role.outputs})
    return role


def _close(descriptors: set[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _die_with(parent: int, number: signal.Signals) -> None:
    die_with_parent(number)
    if os.getppid() != parent:  # it had died before we said so
        os.kill(os.getpid(), number)


@contextmanager
def _passing_on_failure(role: Role) -> Iterator[None]:
    try:
        yield
    except ReaderGone:
        raise
    except BaseException:
        for descriptor in role.outputs or ((1,) if role.is_worker else ()):
            pass_on_failure(descriptor)
        raise


@contextmanager
def _silent_without(parent: int) -> Iterator[None]:
    """A stream that was cut short because the first process was ended is nothing to talk about."""
    try:
        yield
    except OutsideError:
        time.sleep(_GONE)
        if os.getppid() != parent:
            raise StepBeforeFailed from None
        raise


def _end(children: dict[int, str], say: Callable[[str], None], *, is_failed: bool = False) -> None:
    """Wait until all have ended; when one has failed, not for long. Raises StepBeforeFailed with its code."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + _GRACE if is_failed else float("inf")
    while len(codes) < len(children):
        for process in [process for process in children if process not in codes]:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                codes[process] = _code(status, children[process], say)
        if any(codes.values()):
            deadline = min(deadline, time.monotonic() + _GRACE)
        if time.monotonic() > deadline:
            for process in [process for process in reversed(children) if process not in codes]:  # nobody is left to wonder
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                codes[process] = 75
        time.sleep(_LOOK)
    if code := verdict([codes[process] for process in children]):
        raise StepBeforeFailed(code)


def _code(status: int, name: str, say: Callable[[str], None]) -> int:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    say(Failure(f"{name} was killed by {signal.Signals(-code).name}"))
    return 128 - code
