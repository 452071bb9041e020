"""How much a pipe between two steps holds: the more, the less often they wait for each other."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass

from clickpipe.cli.doctor.cgroup import from_disk
from clickpipe.cli.doctor.verdict import Verdict, megabytes, note, ok

_WANTED = 1 << 20  # bytes


@dataclass(frozen=True)
class Found:
    """`granted_bytes`: of a pipe that was asked to be large. `largest_bytes`, `pages`: what the system allows, of one pipe and of
    all that a user has; None where it does not say."""

    granted_bytes: int
    largest_bytes: int | None
    pages: int | None
    page_bytes: int


def look(_: str) -> Found:
    largest, pages = (_number(f"/proc/sys/fs/pipe-{name}") for name in ("max-size", "user-pages-soft"))
    return Found(_granted(), largest, pages, os.sysconf("SC_PAGE_SIZE"))


def _granted() -> int:
    ends = os.pipe()
    try:
        return fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _WANTED)
    except PermissionError:
        return fcntl.fcntl(ends[1], fcntl.F_GETPIPE_SZ)
    finally:
        for end in ends:
            os.close(end)


def _number(path: str) -> int | None:
    text = (from_disk(path) or "").strip()
    return int(text) if text.isdigit() else None


def verdict(found: Found) -> Verdict:
    if found.granted_bytes >= _WANTED:
        return ok(f"{megabytes(found.granted_bytes)} each{_together(found)}")
    text = (
        f"{found.granted_bytes >> 10} KiB each, of {megabytes(_WANTED)} that were asked for: steps wait for each other more often"
    )
    if found.largest_bytes is not None and found.largest_bytes < _WANTED:
        return note(text, f"as root: sysctl fs.pipe-max-size={_WANTED}")
    return note(text, f"as root: sysctl fs.pipe-user-pages-soft={4 * (found.pages or 16_384)}, or close what has many pipes")


def _together(found: Found) -> str:
    if not found.pages:  # no limit
        return ""
    return f", for {found.pages * found.page_bytes // _WANTED} pipes of a user who is not root"
