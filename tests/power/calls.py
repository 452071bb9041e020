"""The system calls that change files, as a real process made them: written down by strace, read back as values.

    20458 1795640295.766051 openat(AT_FDCWD, "\\x2f\\x74…", O_RDONLY|O_CLOEXEC <unfinished ...>
    20458 1795640295.766288 <... openat resumed>) = 3 <0.000210>

Each process of a pipeline has an strace of its own, so all that one file holds shares its descriptors.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TRACED = """open openat creat close dup dup2 dup3 fcntl lseek write pwrite64 writev pwritev pwritev2 fsync fdatasync
    sync_file_range truncate ftruncate fallocate copy_file_range sendfile rename renameat renameat2 link linkat symlink
    symlinkat unlink unlinkat mkdir mkdirat rmdir"""
_LINE = re.compile(r"(\d+) +(\d+\.\d+) (.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?).*?(?:<(\d+\.\d+)>)?$")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
_WORD = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


@dataclass(frozen=True)
class Call:
    """A call that succeeded. `words`: its strings, in order; `rest`: its arguments without them."""

    process: int
    begun: float
    ended: float
    name: str
    words: tuple[bytes, ...]
    rest: str
    result: int

    def number(self, at: int) -> int:
        """An argument that is a number."""
        return int(self.rest.split(", ")[at])


def missing() -> str:
    """Why nothing can be recorded here; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(["strace", "-f", "--seccomp-bpf", "-e", "trace=fsync", "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else f"strace cannot trace here: {done.stderr.decode()[-200:]}"


def record(
    steps: Sequence[Sequence[str]], directory: Path, environment: Mapping[str, str], traces: Path, kill: str = ""
) -> tuple[list[int], list[Call]]:
    """Run these processes, joined by pipes; their exit codes, and what they did. `kill`: a kill point of the last."""
    traces.mkdir()
    running: list[subprocess.Popen[bytes]] = []
    for number, words in enumerate(steps):
        is_last = number == len(steps) - 1
        before = running[-1].stdout if running else subprocess.DEVNULL
        with open(traces / f"{number}.stderr", "wb") as errors:
            process = subprocess.Popen(
                [*_strace(traces / str(number)), *words],
                stdin=before,
                stdout=subprocess.DEVNULL if is_last else subprocess.PIPE,
                stderr=errors,
                cwd=directory,
                env={**environment, "CLICKPIPE_KILL_POINT": kill if is_last else ""},
            )
        if before is not None and not isinstance(before, int):
            before.close()
        running.append(process)
    codes = [process.wait() for process in running]
    return codes, [call for number in range(len(steps)) for call in read(traces / str(number), number)]


def _strace(path: Path) -> list[str]:
    calls = ",".join(f"?{name}" for name in _TRACED.split())
    return ["strace", "-f", "--seccomp-bpf", "-ttt", "-T", "-xx", "-s", str(1 << 24), "-e", f"trace={calls}", "-o", str(path)]


def read(path: Path, process: int) -> Iterator[Call]:
    """What one strace has written. Raises ValueError for a line that it cannot read."""
    begun: dict[str, tuple[float, str]] = {}
    for line in path.read_text(encoding="ascii").splitlines():
        thread, time, text = _matched(_LINE, line)
        if text.startswith(("+++", "---")):
            continue
        if text.endswith(" <unfinished ...>"):
            begun[thread] = float(time), text.removesuffix(" <unfinished ...>")
            continue
        start = float(time)
        if text.startswith("<..."):
            start, first = begun.pop(thread)
            text = first + _matched(_RESUMED, text)[0]
        name, arguments, result, took = _matched(_CALL, text)
        if result == "?" or int(result) < 0:
            continue
        words = _WORD.findall(arguments)
        if any(cut for _, cut in words):
            raise ValueError(f"strace has cut a string: {line[:200]}")
        data = tuple(bytes.fromhex(word.replace("\\x", "")) for word, _ in words)
        yield Call(process, start, start + float(took or 0), name, data, _WORD.sub('""', arguments), int(result))


def _matched(pattern: re.Pattern[str], text: str) -> tuple[str, ...]:
    found = pattern.match(text)
    if found is None:
        raise ValueError(f"not a line of strace: {text[:200]}")
    return found.groups("")
