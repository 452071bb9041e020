"""How a run starts from the disk, and what a process of an earlier run may still be."""

from __future__ import annotations

from model import disk as disks
from model.disk import Disk, Manifest
from model.pipeline import WORKERS, Pipes, Source, State, Worker, Zombie, with_process
from model.rules import Rules


def started(rules: Rules, before: State, chosen: Manifest, zombie: Zombie | None, barriers: int) -> State:
    """A run that goes on from the manifest, all its processes new; beside them at most one that is old."""
    disk = disks.with_start(before.disk, chosen)
    zombie = zombie or before.zombie
    if rules.fresh_epochs and not zombie:
        disk = disks.without_unnamed(disk)
    return State(
        disk,
        before.faults,
        _source(rules, disk, chosen, barriers),
        left=_worker(rules, disk, chosen, "left"),
        right=_worker(rules, disk, chosen, "right"),
        zombie=zombie,
    )


def _source(rules: Rules, disk: Disk, chosen: Manifest, barriers: int) -> Source:
    plan = disks.commit_plan(disk, chosen.epoch, chosen.staged, rules) if rules.redo_on_start else ()
    position = chosen.position if rules.position_restored else disk.read_position
    return Source(
        phase="redoing" if plan else "reading",
        position=position,
        watermark=chosen.watermark if rules.watermark_restored else 0,
        epoch=disk.newest_epoch if rules.fresh_epochs else chosen.epoch,
        barrier_at=position,
        barriers=barriers,
        plan=plan,
        manifest=chosen if plan else disks.NOTHING,
    )


def _worker(rules: Rules, disk: Disk, chosen: Manifest, name: str) -> Worker:
    return Worker(disks.held_in(disk, chosen, name) if rules.held_restored else 0)


def can_go_on(zombie: Zombie) -> bool:
    """Whether there is anything it could still do. A worker's next message finds nobody to send to."""
    if zombie.name in WORKERS:
        return zombie.process.writing is not None
    return not zombie.process.is_done and bool(zombie.pipe or zombie.process.barrier)


def as_it_was(state: State, zombie: Zombie) -> State:
    """The disk of today and the zombie in its own place, its neighbours gone."""
    pipes = Pipes()._replace(**{zombie.name: zombie.pipe})
    return with_process(State(state.disk, state.faults._replace(aborts=0), Source(), pipes=pipes), zombie.name, zombie.process)
