"""What checkpoints cost, and how fast a pipeline is back: measured by `make bench`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
STEPS_64 = "window tumble 1d | aggregate --by event_id n='count(*)' mean='avg(latency_ms)'"  # an entry of state for each record


def view_run(file: Path, more: str) -> str:
    """Benchmark A into a view."""
    line = f"ingest {file} --time ts --max-out-of-orderness 5s --name bench-a {more} | window tumble 5s"
    line += " | aggregate --by page n='count(*)' mean='avg(latency_ms)' slowest='max(latency_ms)' | sink view:bench_a"
    words = ["run", "--restart", "no", "--quiet", "-c", line]
    return f"{shlex.quote(sys.executable)} -m clickpipe {shlex.join(words)}"


def parts(file: Path, folder: Path, environment: dict[str, str]) -> dict[str, list[float]]:
    """Seconds of the stalls and of the manifests' commits, with 64 MiB of state and more; and the state's MiB."""
    out = folder / "timed.json"
    line = f"ingest {file} --time ts --name bench-64 --reset --checkpoint 200ms | {STEPS_64} | sink view:bench_64"
    words = [sys.executable, str(HERE / "timed.py"), str(out), "run", "--restart", "no", "--quiet", "-c", line]
    taken: dict[str, list[float]] = {"stall": [], "commit": []}
    subprocess.run(words, check=True, env=environment)
    said = json.loads(out.read_text())
    for name in taken:
        taken[name] += said[name]
    return taken


def restarts(file: Path, tries: int, environment: dict[str, str]) -> tuple[list[float], float]:
    """Seconds from the death of the worker to the next checkpoint that is committed; and the MiB of state it came back with."""
    state = Path(environment["CLICKPIPE_HOME"]) / "pipelines" / "bench-back"
    line = f"ingest {file} --time ts --name bench-back --checkpoint 200ms --batch-bytes 1MiB | {STEPS_64} | sink view:bench_back"
    taken: list[float] = []
    size = 0.0
    while len(taken) < tries:
        shutil.rmtree(state, ignore_errors=True)
        Path(environment["CLICKPIPE_HOME"], "views", "bench_back.sqlite").unlink(missing_ok=True)
        words = [sys.executable, "-m", "clickpipe", "run", "--quiet", "-c", line]
        with subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and len(taken) < tries:
                if _size(state) < 64 or not (workers := _children(process.pid)):
                    time.sleep(0.01)
                    continue
                size = max(size, _size(state))
                seconds = _back(process, workers[0], state)
                taken += [seconds] if seconds else []
            process.kill()
    return taken, size


def _back(process: subprocess.Popen[bytes], worker: int, state: Path) -> float:
    """Kill it; seconds until the next checkpoint, 0 where the input had ended."""
    before = _newest(state)
    os.kill(worker, signal.SIGKILL)
    died = time.perf_counter()
    while _newest(state) <= before:
        if process.poll() is not None:
            return 0.0
        time.sleep(0.002)
    return time.perf_counter() - died


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _newest(state: Path) -> int:
    epochs = (path.parent.name for path in state.glob("epochs/*/MANIFEST.json"))
    return max((int(name) for name in epochs if name.isdigit()), default=0)


def _size(state: Path) -> float:
    folder = state / "epochs" / str(_newest(state))
    try:
        return sum(path.stat().st_size for path in folder.iterdir()) / (1 << 20)
    except OSError:
        return 0.0


def at(share: float, values: list[float]) -> float:
    """A quantile; of few values the greatest that it can be."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def median(values: list[float]) -> float:
    return statistics.median(values)
