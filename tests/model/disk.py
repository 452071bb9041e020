"""What survives a crash in the model, and the only functions that change it.

    epochs     state files, each under (epoch, worker); manifests, oldest first, the newest two
    outputs    for each of the three outputs the committed records and the marker, in one place

Contents that are durable before anything names them (the source's position, what a sink has staged) travel in
the barrier and the manifest themselves. Only the workers' state files, written in the background, can be missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from model.rules import BEHIND, ORDER, Rules

OUTPUTS = ("middle", "results", "late")
KEPT = 2  # manifests


class StateFile(NamedTuple):
    """What a worker held at a barrier. A failed one will never be written; its worker says so."""

    epoch: int
    worker: str
    held: int
    condition: str = "whole"  # or torn, failed


class Staged(NamedTuple):
    """Records of one output and one epoch, durable and invisible."""

    output: str
    epoch: int
    records: tuple[int, ...]


class Manifest(NamedTuple):
    """The only commit point, and a redo log for the outputs."""

    epoch: int
    position: int
    watermark: int
    files: tuple[str, ...]  # the workers whose files of this epoch it names
    staged: tuple[Staged, ...]
    is_readable: bool = True


class Output(NamedTuple):
    records: tuple[int, ...] = ()  # sorted: the order of an output is not promised
    marker: int = 0


class Disk(NamedTuple):
    manifests: tuple[Manifest, ...] = ()
    files: frozenset[StateFile] = frozenset()
    outputs: tuple[Output, ...] = (Output(), Output(), Output())
    newest_epoch: int = 0  # any that a barrier was written for
    newest_manifest: int = 0  # any that was written, readable or not
    acknowledged: int = 0  # no start may go back behind it
    read_position: int = 0  # only where the source trusts this instead of the manifest
    broken: frozenset[str] = frozenset()  # promises about order that were broken on the way


NOTHING = Manifest(0, 0, 0, (), ())  # where the first run starts


class Act(NamedTuple):
    """One durable step of whoever commits."""

    verb: str  # manifest, forget, commit, data, marker, piece
    output: str = ""
    epoch: int = 0

    def __str__(self) -> str:
        return " ".join(str(part) for part in self if part)


def is_visible(disk: Disk, epoch: int, worker: str) -> bool:
    """Whether a file has its name: all that one can see without reading it."""
    return any(file.condition != "failed" for file in _files(disk, epoch, worker))


def has_failed(disk: Disk, epoch: int, workers: Iterable[str]) -> bool:
    return any(file.condition == "failed" for worker in workers for file in _files(disk, epoch, worker))


def held_in(disk: Disk, manifest: Manifest, worker: str) -> int:
    """A worker's state; nothing, if the file is missing or torn or the manifest cannot be read."""
    whole = [file.held for file in _files(disk, manifest.epoch, worker) if file.condition == "whole"]
    return whole[0] if whole and manifest.is_readable else 0


def with_file(disk: Disk, file: StateFile) -> Disk:
    """A rename puts the new file in the place of any of that name."""
    others = disk.files.difference(_files(disk, file.epoch, file.worker))
    return disk._replace(files=others | {file})


def with_manifest(disk: Disk, manifest: Manifest) -> Disk:
    broken = disk.broken if manifest.epoch > disk.newest_manifest else disk.broken | {ORDER}
    newest = max(manifest.epoch, disk.newest_manifest)
    manifests = (*disk.manifests, manifest)
    return disk._replace(manifests=manifests, newest_manifest=newest, acknowledged=newest, broken=broken)


def without_old(disk: Disk, kept: int = KEPT) -> Disk:
    """Retention: the newest manifests stay, with every file from the oldest of them on; what they had committed is done."""
    manifests = disk.manifests[len(disk.manifests) - min(kept, len(disk.manifests)) :]
    oldest = manifests[0].epoch if manifests else 0
    manifests = tuple(manifest._replace(staged=()) for manifest in manifests)
    return disk._replace(manifests=manifests, files=frozenset(file for file in disk.files if file.epoch >= oldest))


def damaged(disk: Disk) -> Disk:
    """The newest manifest cannot be read any more; what no output has seen of it is no promise any more."""
    *older, newest = disk.manifests
    return disk._replace(manifests=(*older, newest._replace(is_readable=False)), acknowledged=newest_marker(disk))


def newest_marker(disk: Disk) -> int:
    return max(output.marker for output in disk.outputs)


def chosen_manifest(disk: Disk, rules: Rules) -> Manifest:
    """The newest whole one."""
    for manifest in reversed(disk.manifests):
        if not rules.hashes_checked or _is_whole(disk, manifest):
            return manifest
    return NOTHING


def _is_whole(disk: Disk, manifest: Manifest) -> bool:
    files = [file for worker in manifest.files for file in _files(disk, manifest.epoch, worker) if file.condition == "whole"]
    return manifest.is_readable and len(files) == len(manifest.files)


def without_unnamed(disk: Disk) -> Disk:
    """Without the files of epochs that came to nothing. Where nobody can ever name them, this only saves states."""
    named = {manifest.epoch for manifest in disk.manifests}
    return disk._replace(files=frozenset(file for file in disk.files if file.epoch in named))


def with_start(disk: Disk, chosen: Manifest) -> Disk:
    return disk._replace(broken=disk.broken | {BEHIND}) if chosen.epoch < disk.acknowledged else disk


def commit_plan(disk: Disk, epoch: int, staged: tuple[Staged, ...], rules: Rules) -> tuple[Act, ...]:
    """What is left to do until every output has what is staged up to the epoch. An output's marker says if it has."""
    left = [name for name, output in zip(OUTPUTS, disk.outputs, strict=True) if output.marker < epoch]
    if not rules.marker_with_data:
        return tuple(Act(verb, name) for name in left for verb in ("data", "marker"))
    if not rules.one_unit:
        return tuple(Act("piece", piece.output, piece.epoch) for name in left for piece in staged if piece.output == name)
    return tuple(Act("commit", name) for name in left)


def committed(disk: Disk, act: Act, epoch: int, staged: tuple[Staged, ...]) -> Disk:
    """One transaction of one output. Doing the whole unit again does nothing, by the marker."""
    index = OUTPUTS.index(act.output)
    output = disk.outputs[index]
    if act.verb == "commit" and output.marker >= epoch:
        return disk
    records = _records(act, staged)
    marker = output.marker if act.verb == "data" else max(epoch, output.marker)
    outputs = list(disk.outputs)
    outputs[index] = Output(tuple(sorted(output.records + records)), marker)
    return disk._replace(outputs=tuple(outputs))


def _records(act: Act, staged: tuple[Staged, ...]) -> tuple[int, ...]:
    if act.verb == "marker":
        return ()
    pieces = [piece for piece in staged if piece.output == act.output and act.epoch in (0, piece.epoch)]
    return tuple(record for piece in pieces for record in piece.records)


def _files(disk: Disk, epoch: int, worker: str) -> list[StateFile]:
    return [file for file in disk.files if file.epoch == epoch and file.worker == worker]
