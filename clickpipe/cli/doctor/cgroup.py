"""What the control groups of this process allow it: processors and memory, both versions of the kernel's interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

_ROOT = "/sys/fs/cgroup"
_NONE = 1 << 60  # bytes, from where on a limit says that there is none


@dataclass(frozen=True)
class Limits:
    """`cores`: as many as it gets the time of. `memory_bytes`: before it is killed. None: no limit."""

    cores: float | None = None
    memory_bytes: int | None = None


def limits(read: Callable[[str], str | None]) -> Limits:
    """`read`: gives the text of a file, None where there is none. Of several groups, one in another, the least counts."""
    cores, memory = list[float](), list[int]()
    for folder, controllers in _folders(read("/proc/self/cgroup") or ""):
        cores += _cores(read, folder) if not controllers or "cpu" in controllers else []
        memory += _memory(read, folder) if not controllers or "memory" in controllers else []
    return Limits(min(cores, default=None), min(memory, default=None))


def _folders(said: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Those of its groups, and of the groups around them; with the controllers of version 1."""
    for line in said.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        base = f"{_ROOT}/{names}" if names else _ROOT
        steps = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(steps), -1, -1):
            yield "/".join([base, *steps[:depth]]), tuple(filter(None, names.split(",")))


def _cores(read: Callable[[str], str | None], folder: str) -> list[float]:
    both = (read(f"{folder}/cpu.max") or "").split()
    if not both:
        both = [(read(f"{folder}/cpu.cfs_{one}_us") or "").strip() for one in ("quota", "period")]
    numbers = [_number(one) for one in both]
    return [numbers[0] / numbers[1]] if len(numbers) == 2 and numbers[0] > 0 and numbers[1] > 0 else []


def _memory(read: Callable[[str], str | None], folder: str) -> list[int]:
    said = [_number(read(f"{folder}/{name}") or "") for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
    return [number for number in said if 0 < number < _NONE]


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() else 0


def from_disk(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return None
