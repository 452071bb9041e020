"""Processors and memory, and what a container or a service may use of them."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass

from clickpipe.cli.doctor.cgroup import from_disk, limits
from clickpipe.cli.doctor.verdict import Verdict, bad, megabytes, note, ok
from clickpipe.core.cores import cores

_LITTLE, _TOO_LITTLE = 512 << 20, 128 << 20  # bytes of memory: a step takes some 100 MiB before its first record


@dataclass(frozen=True)
class Found:
    """`threads`: what $POLARS_MAX_THREADS says. Memory: of the machine, of it free, and what the control group allows."""

    cores: int
    cores_allowed: float | None
    threads: str
    memory_bytes: int | None
    free_bytes: int | None
    memory_allowed: int | None


def look(_: str) -> Found:
    allowed, told = limits(from_disk), from_disk("/proc/meminfo") or ""
    threads = os.environ.get("POLARS_MAX_THREADS", "")
    return Found(cores(), allowed.cores, threads, _bytes(told, "MemTotal"), _bytes(told, "MemAvailable"), allowed.memory_bytes)


def _bytes(told: str, name: str) -> int | None:
    match = re.search(rf"^{name}:\s+([0-9]+) kB", told, re.MULTILINE)
    return int(match[1]) << 10 if match else None


def verdict(found: Found) -> Verdict:
    text = f"{found.cores} core{'s' if found.cores > 1 else ''}"
    if found.cores_allowed is not None and found.cores_allowed < found.cores:
        text += f", of which the control group allows {found.cores_allowed:g}"
    known = [size for size in (found.free_bytes, found.memory_allowed) if size is not None]
    text += f"; {_memory(found)}" if known else ""
    if known and min(known) < _TOO_LITTLE:
        return bad(text, "give it 512 MiB and more: a process that gets no memory is killed by the kernel")
    if known and min(known) < _LITTLE:
        return note(text, "each step is a process of some 100 MiB: clickpipe run has all of them in one")
    if found.cores_allowed is not None and math.ceil(found.cores_allowed) < found.cores and not found.threads:
        return note(text, f"POLARS_MAX_THREADS={math.ceil(found.cores_allowed)}: more threads wait for each other")
    return ok(text)


def _memory(found: Found) -> str:
    said = [f"{megabytes(found.free_bytes)} of memory free"] if found.free_bytes is not None else []
    said += [f"{megabytes(found.memory_bytes)} in all"] if found.memory_bytes is not None else []
    said += [f"the control group allows {megabytes(found.memory_allowed)}"] if found.memory_allowed is not None else []
    return ", ".join(said)
