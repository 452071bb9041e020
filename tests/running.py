"""Pipelines that run in the background of a test: started, watched, killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from clickpipe.testing import environment

Start = Callable[..., subprocess.Popen[str]]
PIPELINE = (
    "ingest {file} --time ts --name {name} --checkpoint 1ms --batch-bytes 2KiB | window tumble 5s"
    " | aggregate --by page n='count(*)' | sink {name}.ndjson"
)


def until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def epoch(folder: Path, name: str = "c") -> int:
    epochs = folder / ".home" / "pipelines" / name / "epochs"
    return max((int(path.parent.name) for path in epochs.glob("*/MANIFEST.json") if path.parent.name.isdigit()), default=0)


def has_ended_before(process: subprocess.Popen[str], number: int, folder: Path) -> bool:
    """Waits for a checkpoint, or the end."""
    until(lambda: epoch(folder) >= number or process.poll() is not None, "no checkpoint comes")
    return process.poll() is not None


def expected(folder: Path) -> list[str]:
    line = "ingest in.ndjson --time ts --name plain | window tumble 5s | aggregate --by page n='count(*)' | sink plain.ndjson"
    subprocess.run([sys.executable, "-m", "clickpipe", "run", "-q", "-c", line], cwd=folder, env=environment(folder), check=True)
    return sorted((folder / "plain.ndjson").read_text().splitlines())


def rows(folder: Path, name: str = "c") -> list[str]:
    return sorted((folder / f"{name}.ndjson").read_text().splitlines())


def errors(folder: Path) -> str:
    return (folder / "errors").read_text()


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def status(folder: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "clickpipe", "status", "--json"]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=True)
    told: dict[str, object] = json.loads(done.stdout or "{}")
    return told
