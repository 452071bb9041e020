"""What is in the modelled pipeline: messages, pipes, each process's own state; and how a message moves."""

from __future__ import annotations

from typing import Any, NamedTuple

from model import disk as disks
from model.disk import Act, Disk, Manifest, Staged, StateFile
from model.rules import Faults

PROCESSES = ("source", "left", "right", "merge", "middle", "last")
WORKERS = ("left", "right")
PAUSABLE = ("left", "right", "last")  # those that write something durable by themselves
WRITER = {"left": "source", "right": "source", "merge_left": "left", "merge_right": "right", "middle": "merge", "last": "middle"}
ROOM = 2  # messages in a pipe


class Record(NamedTuple):
    number: int
    time: int
    worker: str


RECORDS = (Record(1, 10, "left"), Record(2, 5, "right"), Record(3, 20, "left"))
EXPECTED = {"middle": (1, 3), "results": (1, 3), "late": (2,)}


class Barrier(NamedTuple):
    epoch: int
    position: int
    watermark: int
    files: tuple[str, ...] = ()
    staged: tuple[Staged, ...] = ()


class Message(NamedTuple):
    kind: str  # record, late, forever, barrier, end
    value: Any = None


class Source(NamedTuple):
    phase: str = "reading"  # redoing, reading, closing, sealed, ended
    position: int = 0
    watermark: int = 0
    epoch: int = 0  # of its last barrier
    barrier_at: int = 0  # position of its last barrier
    barriers: int = 0  # it may still start before the last one
    plan: tuple[Act, ...] = ()  # commits to redo
    manifest: Manifest = disks.NOTHING  # of the plan


class Worker(NamedTuple):
    held: int = 0
    writing: StateFile | None = None


class Merge(NamedTuple):
    arrived: tuple[Barrier | None, Barrier | None] = (None, None)
    late: tuple[int, ...] = ()
    ended: int = 0


class Middle(NamedTuple):
    since: tuple[int, ...] = ()  # records since the last barrier


class Last(NamedTuple):
    since: tuple[int, ...] = ()
    pending: tuple[Staged, ...] = ()  # named by barriers, not yet committed
    barrier: Barrier | None = None  # the one it works on; meanwhile it reads nothing
    plan: tuple[Act, ...] = ()
    is_done: bool = False


class Pipes(NamedTuple):
    """By who reads them."""

    left: tuple[Message, ...] = ()
    right: tuple[Message, ...] = ()
    merge_left: tuple[Message, ...] = ()
    merge_right: tuple[Message, ...] = ()
    middle: tuple[Message, ...] = ()
    last: tuple[Message, ...] = ()


class Zombie(NamedTuple):
    """A process of an earlier run that has not noticed yet, with what is in its pipe."""

    name: str
    process: Any
    pipe: tuple[Message, ...]
    has_lock: bool


class State(NamedTuple):
    disk: Disk
    faults: Faults
    source: Source
    left: Worker = Worker()
    right: Worker = Worker()
    merge: Merge = Merge()
    middle: Middle = Middle()
    last: Last = Last()
    pipes: Pipes = Pipes()
    dead: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()  # for the stream line: without the lock yet
    zombie: Zombie | None = None
    is_halted: bool = False


def is_up(state: State, name: str) -> bool:
    return name not in state.dead and name not in state.waiting


def with_process(state: State, name: str, process: Any) -> State:
    return state._replace(**{name: process})


def taken(state: State, pipe: str, message: Message) -> State:
    if message.kind == "cut":
        return state
    return state._replace(pipes=state.pipes._replace(**{pipe: getattr(state.pipes, pipe)[1:]}))


def sent(state: State, pipe: str, message: Message | None) -> State | None:
    """None when the pipe is full: the writer waits. Whether the reader lives is not known before a write fails."""
    queue = getattr(state.pipes, pipe)
    if message is None:
        return state
    if len(queue) == ROOM:
        return None
    return state._replace(pipes=state.pipes._replace(**{pipe: (*queue, message)}))


def sent_to_both(state: State, message: Message) -> State | None:
    state_left = sent(state, "left", message)
    return sent(state_left, "right", message) if state_left else None
