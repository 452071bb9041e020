"""What each process does with a message: its own next state, and what it writes.

None means that it cannot go on: its pipe is full, or it waits for something else.
"""

from __future__ import annotations

from model import disk as disks
from model.disk import Act, Disk, Staged, StateFile
from model.pipeline import (
    RECORDS,
    WORKERS,
    Barrier,
    Last,
    Merge,
    Message,
    Middle,
    State,
    Worker,
    sent,
    sent_to_both,
    with_process,
)
from model.rules import Rules


def source_reads_on(state: State) -> State | None:
    """The next record, late or not by the watermark just before it; after the last, the end of time."""
    source = state.source
    if source.position == len(RECORDS):
        return sent_to_both(state._replace(source=source._replace(phase="closing")), Message("forever"))
    record = RECORDS[source.position]
    message = Message("late" if record.time < source.watermark else "record", record.number)
    source = source._replace(position=source.position + 1, watermark=max(source.watermark, record.time))
    return sent(state._replace(source=source), record.worker, message)


def source_marks(rules: Rules, state: State, phase: str, barriers: int) -> State | None:
    """Position and watermark are saved before the barrier is written, to all outputs back to back."""
    source = state.source
    barrier = Barrier(source.epoch + 1, source.position, source.watermark)
    disk = state.disk._replace(newest_epoch=max(barrier.epoch, state.disk.newest_epoch))
    if not rules.position_restored:
        disk = disk._replace(read_position=source.position)
    source = source._replace(phase=phase, epoch=barrier.epoch, barrier_at=source.position, barriers=barriers)
    return sent_to_both(state._replace(source=source, disk=disk), Message("barrier", barrier))


def worker_reads(_: Rules, state: State, name: str, message: Message) -> State | None:
    worker: Worker = getattr(state, name)
    held = Message("record", worker.held) if worker.held else None
    out = f"merge_{name}"
    if message.kind == "record":
        return sent(with_process(state, name, worker._replace(held=message.value)), out, held)
    if message.kind == "forever" or (message.kind == "cut" and held):
        return sent(with_process(state, name, worker._replace(held=0)), out, held)
    if message.kind == "barrier":
        return _worker_prepares(state, name, worker, message.value)
    return None if message.kind == "cut" else sent(state, out, message)


def _worker_prepares(state: State, name: str, worker: Worker, barrier: Barrier) -> State | None:
    """The snapshot is taken and named; the file is written later, one at a time."""
    if worker.writing:
        return None
    file = StateFile(barrier.epoch, name, worker.held)
    passed = Message("barrier", barrier._replace(files=(name,)))
    return sent(with_process(state, name, worker._replace(writing=file)), f"merge_{name}", passed)


def is_blocked(rules: Rules, merge: Merge, side: int, message: Message) -> bool:
    """After the barrier; with that rule broken, only until the next barrier."""
    return merge.arrived[side] is not None and (rules.merge_aligns or message.kind == "barrier")


def has_no_choice(rules: Rules, merge: Merge, message: Message) -> bool:
    """Whether nothing depends on which input is read first. While the merge aligns and waits for all, nothing ever does."""
    is_before = message.kind != "barrier" and merge.arrived == (None, None)
    return rules.merge_waits_for_all and (rules.merge_aligns or is_before)


def merge_reads(rules: Rules, state: State, side: int, message: Message) -> State | None:
    merge = state.merge
    if message.kind == "record":
        return sent(state, "middle", message)
    if message.kind == "late":
        return state._replace(merge=merge._replace(late=(*merge.late, message.value)))
    if message.kind == "end":
        state = state._replace(merge=merge._replace(ended=merge.ended + 1))
        return sent(state, "middle", message if state.merge.ended == 2 else None)
    arrived = (message.value, merge.arrived[1]) if side == 0 else (merge.arrived[0], message.value)
    has_all = None not in arrived
    state = state._replace(merge=merge._replace(arrived=(None, None) if has_all else arrived))
    is_time = has_all if rules.merge_waits_for_all else not has_all
    return _merge_passes(rules, state, message.value) if is_time else state


def _merge_passes(rules: Rules, state: State, barrier: Barrier) -> State | None:
    """The barrier with the files of all inputs and the late records since the one before."""
    late = Staged("late", barrier.epoch, state.merge.late)
    staged = (late,) if rules.late_waits else ()
    disk = state.disk if staged else disks.committed(state.disk, Act("commit", "late"), barrier.epoch, (late,))
    state = state._replace(merge=state.merge._replace(late=()), disk=disk)
    return sent(state, "middle", Message("barrier", barrier._replace(files=WORKERS, staged=staged)))


def middle_reads(rules: Rules, state: State, _: str, message: Message) -> State | None:
    since = state.middle.since
    if message.kind == "cut":
        return None
    if message.kind == "record":
        return sent(state._replace(middle=Middle((*since, message.value))), "last", message)
    if message.kind != "barrier":
        return sent(state, "last", message)
    barrier: Barrier = message.value
    staged = Staged("middle", barrier.epoch, since)
    if rules.middle_waits:
        barrier = barrier._replace(staged=(*barrier.staged, staged))
    else:
        state = state._replace(disk=disks.committed(state.disk, Act("commit", "middle"), barrier.epoch, (staged,)))
    return sent(state._replace(middle=Middle()), "last", Message("barrier", barrier))


def last_reads(rules: Rules, state: State, _: str, message: Message) -> State | None:
    last = state.last
    if last.barrier:
        return None
    if message.kind == "record":
        return state._replace(last=last._replace(since=(*last.since, message.value)))
    if message.kind == "barrier":
        return state._replace(last=_last_prepares(rules, state.disk, last, message.value))
    if message.kind == "cut":
        return _last_flushes(state)
    if last.pending and rules.end_is_covered:
        return state._replace(dead=state.dead | {"last"})
    return state._replace(last=last._replace(is_done=True))


def _last_prepares(rules: Rules, disk: Disk, last: Last, barrier: Barrier) -> Last:
    staged = Staged("results", barrier.epoch, last.since)
    pending = (*last.pending, *barrier.staged, staged)
    commits = disks.commit_plan(disk, barrier.epoch, pending, rules)
    plan = (Act("manifest"), *commits) if rules.manifest_first else (*commits, Act("manifest"))
    return Last(
        pending=tuple(piece for piece in pending if piece.records),
        barrier=barrier,
        plan=plan if rules.old_is_kept else (Act("forget"), *plan),
    )


def _last_flushes(state: State) -> State | None:
    """What a sink without checkpoints does at the end of a file."""
    last = state.last
    if not last.since:
        return None
    results = Staged("results", 0, last.since)
    disk = disks.committed(state.disk, Act("piece", "results"), 0, (results,))
    return state._replace(last=last._replace(since=()), disk=disk)
