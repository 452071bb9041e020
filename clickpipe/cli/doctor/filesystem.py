"""The file system where state lies: whether it keeps its promises, can be written to, and has room."""

from __future__ import annotations

import os
from dataclasses import dataclass

from clickpipe.cli.doctor.trial import standing, trial
from clickpipe.cli.doctor.verdict import Verdict, bad, megabytes, note, ok
from clickpipe.state.trust import ELSEWHERE, file_system_of, is_network

_MEMORY = ("tmpfs", "ramfs")
_LAYERS = ("overlay", "aufs", "fuse.fuse-overlayfs")
_FULL, _NEARLY = 16 << 20, 1 << 30  # bytes
_NO_NAMES, _FEW_NAMES = 100, 10_000  # inodes


@dataclass(frozen=True)
class Found:
    """`kind`: as mount shows it; empty where that cannot be told. `trouble`: why nothing can be written. `inodes`: 0 where there
    are as many as are needed."""

    path: str
    kind: str
    is_read_only: bool
    trouble: str
    free_bytes: int
    inodes: int
    free_inodes: int


def look(home: str) -> Found:
    room = os.statvfs(standing(home))
    is_read_only = bool(room.f_flag & os.ST_RDONLY)
    free = room.f_bavail * room.f_frsize
    return Found(home, _kind(home), is_read_only, _trouble(home), free, room.f_files, room.f_favail)


def _kind(home: str) -> str:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return file_system_of(standing(home), file.read())
    except OSError:
        return ""


def _trouble(home: str) -> str:
    if os.path.lexists(home) and not os.path.isdir(home):
        return "it is no directory"
    try:
        with trial(home):
            return ""
    except OSError as error:
        return error.strerror or type(error).__name__


def verdict(found: Found) -> Verdict:
    text = f"{found.path}{f' on {found.kind}' if found.kind else ''}, {megabytes(found.free_bytes)} free"
    if found.is_read_only:
        return bad(f"{text}; it is read-only", ELSEWHERE)
    if found.free_bytes < _FULL:
        return bad(f"{text}: the disk is full", "free some space: what runs waits for it, and goes on by itself")
    if found.inodes and found.free_inodes < _NO_NAMES:
        return bad(f"{text}, but {found.free_inodes:,} free inodes", "remove files: each takes one, however small")
    if found.trouble:
        return bad(f"{text}; nothing can be written there: {found.trouble}", ELSEWHERE)
    return _of_kind(found.kind, text) or _of_room(found, text)


def _of_kind(kind: str, text: str) -> Verdict | None:
    if is_network(kind):
        return bad(
            f"{text}: a network file system, whose locks and fsync promise less, is refused",
            f"{ELSEWHERE}; --allow-fs at ingest takes this one all the same",
        )
    if kind in _MEMORY:
        return note(f"{text}: this is memory, and checkpoints are gone after a restart of the machine", ELSEWHERE)
    if kind in _LAYERS:
        return note(f"{text}: a layer of a container, and checkpoints go with it", f"mount a volume; {ELSEWHERE}")
    return None


def _of_room(found: Found, text: str) -> Verdict:
    if found.free_bytes < _NEARLY:
        return note(text, "keep 1 GiB free: a checkpoint needs as much as the state of the pipeline, four times while it is made")
    if found.inodes and found.free_inodes < _FEW_NAMES:
        return note(f"{text}, and {found.free_inodes:,} free inodes", "remove files: each takes one, however small")
    return ok(text)
