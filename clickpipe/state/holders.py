"""Which processes hold a lock on a file, as the kernel knows them."""

from __future__ import annotations

import os


def holders(path: str) -> list[int]:
    """The processes that hold a lock on this file, as far as they can be told."""
    try:
        inode = os.stat(path).st_ino
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            locks = [line.split() for line in file]
    except OSError:
        return []
    pids = {fields[4] for fields in locks if len(fields) > 5 and fields[5].endswith(f":{inode}") and fields[1] == "FLOCK"}
    return sorted(map(int, pids))


def command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()[:200]
    except OSError:
        return "(gone)"
