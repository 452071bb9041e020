"""What checkpoints cost, and how fast a pipeline that died is back."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENOUGH = 64.0  # MiB of state
STEPS = "window tumble 1d | aggregate --by event_id n='count(*)' mean='avg(latency_ms)'"  # a row of state for each record


def view_run(file: Path, more: str) -> str:
    """Benchmark A into a view."""
    line = f"ingest {file} --time ts --max-out-of-orderness 5s --name bench-a {more} | window tumble 5s"
    line += " | aggregate --by page n='count(*)' mean='avg(latency_ms)' slowest='max(latency_ms)' | sink view:bench_a"
    words = ["run", "--restart", "no", "--quiet", "-c", line]
    return f"{shlex.quote(sys.executable)} -m clickpipe {shlex.join(words)}"


def parts(file: Path, folder: Path, environment: dict[str, str]) -> dict[str, list[float]]:
    """Seconds of the stalls and of the manifests' commits while the state grows to its greatest; and its MiB then.

    The last two checkpoints do not count: they are of the end, when nothing flows any more.
    """
    out, name = folder / "timed.json", "bench-64"
    line = f"ingest {file} --time ts --name {name} --reset --checkpoint 200ms --batch-bytes 2MiB | {STEPS} | sink view:bench_64"
    words = [sys.executable, str(HERE / "timed.py"), str(out), "run", "--restart", "no", "--quiet", "-c", line]
    subprocess.run(words, check=True, env=environment)
    said = json.loads(out.read_text())
    return {"stall": said["stall"], "commit": said["commit"][:-2], "MiB": [max(said["bytes"]) / (1 << 20)]}


def restarts(file: Path, tries: int, environment: dict[str, str]) -> list[float]:
    """Seconds from the death of a supervised worker, with at least 64 MiB of state, to the next checkpoint that is complete."""
    state = Path(environment["CLICKPIPE_HOME"]) / "pipelines" / "bench-back"
    line = f"ingest {file} --time ts --name bench-back --checkpoint 200ms --batch-bytes 1MiB | {STEPS} | sink view:bench_back"
    taken: list[float] = []
    while len(taken) < tries:
        shutil.rmtree(state, ignore_errors=True)
        Path(environment["CLICKPIPE_HOME"], "views", "bench_back.sqlite").unlink(missing_ok=True)
        words = [sys.executable, "-m", "clickpipe", "run", "--quiet", "-c", line]
        with subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and len(taken) < tries:
                workers = _children(process.pid)
                if _mib(state) < ENOUGH or not workers:
                    time.sleep(0.01)
                    continue
                seconds = _back(process, workers[0], state)
                taken += [seconds] if seconds else []
            process.kill()
    return taken


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
    names = (path.parent.name for path in state.glob("epochs/*/MANIFEST.json"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def _mib(state: Path) -> float:
    try:
        return sum(path.stat().st_size for path in (state / "epochs" / str(_newest(state))).iterdir()) / (1 << 20)
    except OSError:
        return 0.0


def at(share: float, values: list[float]) -> float:
    """A quantile; of few values the greatest."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
