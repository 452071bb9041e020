"""The checkpoint protocol as a model: a pipeline with a fork, a merge and a sink in the middle, its disk, and its faults.

             ┌─► left  ──┐ aligns
    source ──┤           ├──► merge ──► middle ──► last
             └─► right ─┘     --late    sink --pass  sink
       │        │   │           │         │         │
     position   state files    late    middle     results    staged, then committed by the manifest of `last`

Each arrow is a pipe: a queue of at most two messages. The source reads three records. The first goes left and moves
the watermark; the second is behind it, so it is late, and goes right; the third goes left. A worker holds one record
until the next comes or the input ends, as a window does; late records pass it at once. So `left` always has
state that a restart needs, and the three outputs of a run without faults are those of `EXPECTED`.

One step is what a process does between two moments at which a crash would leave different traces: read one message and
write what follows from it, or one durable act. What happens where, by the numbers of the design's protocol:

1. `_source_steps`             a barrier at any position; at the end forever (the watermark), a last barrier, `end`
2. `worker_reads`, `merge_reads`, `_writing_steps`    snapshot and pass on; align; the file appears later
3. `middle_reads`, `merge_reads`, `last_reads`        what is staged is named by the barrier
4. `_act_steps`                `last` waits for the files and writes the manifest
5. `_act_steps`                it commits every output, then forgets old checkpoints
6. `_start_steps`, `_lock_steps`, `_zombie_steps`     fencing and starting

When a process has died, those that live go on with what is in their pipes, until the next start kills them; at once is
one of the times. So the death of all at any moment is there too.
"""

from __future__ import annotations

from collections.abc import Iterator

from model import disk as disks
from model.checker import Step
from model.disk import Act, Disk, Manifest, Staged
from model.pipeline import (
    EXPECTED,
    PAUSABLE,
    PROCESSES,
    WORKERS,
    WRITER,
    Barrier,
    Last,
    Message,
    Source,
    State,
    Worker,
    Zombie,
    is_up,
    sent_to_both,
    taken,
    with_process,
)
from model.processes import (
    has_no_choice,
    is_blocked,
    last_reads,
    merge_reads,
    middle_reads,
    source_marks,
    source_reads_on,
    worker_reads,
)
from model.rules import AHEAD, HALTED, LOST, MISPLACED, PROMISES, TWICE, Faults, Rules
from model.starting import as_it_was, can_go_on, started


class Checkpoints:
    """The model. `watched` are the promises it complains about."""

    def __init__(self, faults: Faults, rules: Rules | None = None, watched: frozenset[str] = PROMISES, barriers: int = 1) -> None:
        self._faults, self._rules, self._watched, self._barriers = faults, rules or Rules(), watched, barriers

    def first(self) -> State:
        return State(Disk(), self._faults, Source(barriers=self._barriers), waiting=_waiting(self._faults))

    def end(self, state: State) -> str | None:
        if state.is_halted:
            return "halted"
        return "done" if state.last.is_done else None

    def complaint(self, state: State) -> str | None:
        return next((kind for kind in self._complaints(state) if kind in self._watched), None)

    def steps(self, state: State) -> Iterator[Step]:
        """Private ones first: reading a message, when nothing durable follows and the reader has no choice."""
        if self.end(state):
            return
        # The last sink's reading of `end` is no private step: that the run has ended is what a complaint looks at.
        shared = []
        for step in (*self._reading_steps(state), *self._merge_steps(state)):
            if step.is_private:
                yield step
            else:
                shared.append(step)
        yield from shared
        yield from self._file_steps(state)
        if is_up(state, "last"):
            yield from self._act_steps(state)
        yield from self._lock_steps(state)
        yield from self._zombie_steps(state)
        yield from self._fault_steps(state)
        if state.dead:
            yield from self._start_steps(state)

    # What must hold.

    def _complaints(self, state: State) -> Iterator[str]:
        disk = state.disk
        yield from sorted(disk.broken)
        for name, output in zip(disks.OUTPUTS, disk.outputs, strict=True):
            if len(set(output.records)) < len(output.records):
                yield TWICE
            if not set(output.records) <= set(EXPECTED[name]):
                yield MISPLACED
            if state.last.is_done and not set(output.records) >= set(EXPECTED[name]):
                yield LOST
        if disks.newest_marker(disk) > disk.newest_manifest:
            yield AHEAD
        if state.is_halted and state.faults.damages == self._faults.damages:
            yield HALTED

    # 1 to 3. Who reads what, and the background writes.

    def _reading_steps(self, state: State) -> Iterator[Step]:
        if is_up(state, "source"):
            yield from self._source_steps(state)
        for name, read in (("left", worker_reads), ("right", worker_reads), ("middle", middle_reads), ("last", last_reads)):
            if is_up(state, name) and (message := self._next_message(state, name)):
                after = read(self._rules, taken(state, name, message), name, message)
                if after:
                    is_private = after.disk is state.disk and not (name == "last" and message.kind == "end")
                    yield Step(f"{name} reads {message.kind}", after, is_private)

    def _source_steps(self, state: State) -> Iterator[Step]:
        source = state.source
        if source.phase == "redoing":
            yield self._redo_step(state)
        if source.phase == "reading":
            can_mark = source.barriers > 0 and source.position > source.barrier_at
            if can_mark:
                yield from _step_if(
                    "source starts a checkpoint", source_marks(self._rules, state, "reading", source.barriers - 1)
                )
            yield from _step_if("source reads on", source_reads_on(state), is_private=not can_mark)
        if source.phase == "closing":
            yield from _step_if("source starts the last checkpoint", source_marks(self._rules, state, "sealed", 0))
        if source.phase == "sealed":
            ended = state._replace(source=source._replace(phase="ended"))
            yield from _step_if("source ends", sent_to_both(ended, Message("end")), is_private=True)

    def _redo_step(self, state: State) -> Step:
        source = state.source
        act, *plan = source.plan
        disk = disks.committed(state.disk, act, source.manifest.epoch, source.manifest.staged)
        source = source._replace(plan=tuple(plan), phase="redoing" if plan else "reading")
        return Step(f"source does again: {act}", state._replace(source=source, disk=disk))

    def _next_message(self, state: State, pipe: str) -> Message | None:
        """The head of a pipe. End of file is nothing to act on, unless that rule is broken."""
        queue = getattr(state.pipes, pipe)
        if queue:
            return queue[0]
        is_cut = WRITER[pipe] in state.dead and not self._rules.end_is_said
        return Message("cut") if is_cut else None

    def _file_steps(self, state: State) -> Iterator[Step]:
        for name in WORKERS:
            if is_up(state, name):
                yield from self._writing_steps(state, name)

    def _writing_steps(self, state: State, name: str) -> Iterator[Step]:
        worker: Worker = getattr(state, name)
        file = worker.writing
        if not file:
            return
        written = with_process(state, name, worker._replace(writing=None))
        torn = file._replace(condition="torn")
        if not self._rules.durable_before_visible and torn not in state.disk.files:
            yield Step(f"{name} names its unfinished file", state._replace(disk=disks.with_file(state.disk, torn)))
        else:
            yield Step(f"{name} has written its file", written._replace(disk=disks.with_file(state.disk, file)))
        if state.faults.aborts:
            failed = disks.with_file(state.disk, file._replace(condition="failed"))
            faults = state.faults._replace(aborts=state.faults.aborts - 1)
            yield Step(f"{name} cannot write its file", written._replace(disk=failed, faults=faults))

    def _merge_steps(self, state: State) -> Iterator[Step]:
        if not is_up(state, "merge"):
            return
        for side, pipe in enumerate(("merge_left", "merge_right")):
            message = self._next_message(state, pipe)
            if message and message.kind != "cut" and not is_blocked(self._rules, state.merge, side, message):
                after = merge_reads(self._rules, taken(state, pipe, message), side, message)
                is_private = bool(after) and after.disk is state.disk and has_no_choice(self._rules, state.merge, message)
                yield from _step_if(f"merge reads {message.kind} from {WRITER[pipe]}", after, is_private=is_private)

    # 4 and 5. The manifest, the commits, retention.

    def _act_steps(self, state: State) -> Iterator[Step]:
        last = state.last
        if not last.barrier:
            return
        act, *plan = last.plan
        if act.verb != "manifest" or self._can_write_manifest(state.disk, last.barrier):
            yield Step(f"last: {act}", _acted(state, act, tuple(plan)))
        if act.verb == "manifest" and disks.has_failed(state.disk, last.barrier.epoch, last.barrier.files):
            pending = last.pending if self._rules.aborted_is_kept else ()
            yield Step("last gives this checkpoint up", state._replace(last=Last(pending=pending)))

    def _can_write_manifest(self, disk: Disk, barrier: Barrier) -> bool:
        return not self._rules.files_waited_for or all(disks.is_visible(disk, barrier.epoch, name) for name in barrier.files)

    # 6. Faults, fencing, starting.

    def _fault_steps(self, state: State) -> Iterator[Step]:
        faults = state.faults
        if faults.crashes:
            for name in PROCESSES:
                if name not in state.dead and not (name == "source" and state.source.phase == "ended"):
                    after = state._replace(dead=state.dead | {name}, faults=faults._replace(crashes=faults.crashes - 1))
                    yield Step(f"crash of {name}", after)
        if faults.damages and state.dead and state.disk.manifests and state.disk.manifests[-1].is_readable:
            after = state._replace(disk=disks.damaged(state.disk), faults=faults._replace(damages=faults.damages - 1))
            yield Step("the newest manifest is damaged", after)

    def _lock_steps(self, state: State) -> Iterator[Step]:
        for name in sorted(state.waiting - state.dead):
            yield Step(f"{name} reads its stream line", state._replace(waiting=state.waiting - {name}))

    def _start_steps(self, state: State) -> Iterator[Step]:
        """What still lives is killed, but for one process that has stopped: while that holds the lock, no run starts."""
        yield self._start_step(state, None)
        for name in PAUSABLE if state.faults.pauses else ():
            zombie = Zombie(name, getattr(state, name), getattr(state.pipes, name), has_lock=name not in state.waiting)
            is_shut_out = zombie.has_lock and self._rules.start_waits_for_lock
            if name not in state.dead and can_go_on(zombie) and not is_shut_out:
                yield self._start_step(state, zombie)

    def _start_step(self, state: State, zombie: Zombie | None) -> Step:
        chosen = disks.chosen_manifest(state.disk, self._rules)
        if disks.newest_marker(state.disk) > chosen.epoch and self._rules.halts_when_behind:
            return Step("start halts", State(state.disk, state.faults, Source(), is_halted=True))
        faults = state.faults._replace(pauses=state.faults.pauses - 1) if zombie else state.faults
        after = started(self._rules, state, chosen, zombie, self._barriers)._replace(faults=faults, waiting=_waiting(faults))
        return Step(f"start from manifest {chosen.epoch}" + (f" beside the stopped {zombie.name}" if zombie else ""), after)

    def _zombie_steps(self, state: State) -> Iterator[Step]:
        """It goes on by itself, its neighbours gone. Without the lock it first takes it, shared, and reads the run number."""
        zombie = state.zombie
        if not zombie:
            return
        if not zombie.has_lock and self._rules.run_is_checked:
            yield Step(f"old {zombie.name} sees another run's number", state._replace(zombie=None))
            return
        for step in self._old_steps(as_it_was(state, zombie), zombie.name):
            after: State = step.after
            process, pipe = getattr(after, zombie.name), getattr(after.pipes, zombie.name)
            after_zombie = Zombie(zombie.name, process, pipe, has_lock=True)
            left = after_zombie if can_go_on(after_zombie) else None
            yield Step(f"old {step.name}", state._replace(disk=after.disk, zombie=left))

    def _old_steps(self, state: State, name: str) -> Iterator[Step]:
        if name in WORKERS:
            yield from self._writing_steps(state, name)
            return
        yield from self._act_steps(state)
        message = self._next_message(state, name)
        if message:
            yield from _step_if(f"last reads {message.kind}", last_reads(self._rules, taken(state, name, message), name, message))


def _waiting(faults: Faults) -> frozenset[str]:
    """Only where something may stop is it of interest who has the lock already, and only for the process that commits."""
    return frozenset({"last"}) if faults.pauses else frozenset()


def _step_if(name: str, after: State | None, *, is_private: bool = False) -> Iterator[Step]:
    if after:
        yield Step(name, after, is_private)


def _acted(state: State, act: Act, plan: tuple[Act, ...]) -> State:
    """One durable act of the last sink. After the last one it reads on, and old checkpoints may go."""
    last = state.last
    disk = _act(state.disk, act, last.barrier, last.pending)
    if plan:
        return state._replace(disk=disk, last=last._replace(plan=plan))
    return state._replace(disk=disks.without_old(disk), last=Last())


def _act(disk: Disk, act: Act, barrier: Barrier, pending: tuple[Staged, ...]) -> Disk:
    if act.verb == "forget":
        return disks.without_old(disk, kept=0)
    if act.verb == "manifest":
        return disks.with_manifest(disk, Manifest(*barrier[:4], pending))
    return disks.committed(disk, act, barrier.epoch, pending)
