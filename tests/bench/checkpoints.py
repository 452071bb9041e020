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
    out, name = folder / "timed.json", "bench_64"
    _forget(name, environment)
    line = f"ingest {file} --time ts --name {name} --checkpoint 200ms --batch-bytes 2MiB | {STEPS} | sink view:{name}"
    words = [sys.executable, str(HERE / "timed.py"), str(out), "run", "--restart", "no", "--quiet", "-c", line]
    subprocess.run(words, check=True, env=environment)
    said = json.loads(out.read_text())
    return {"stall": said["stall"], "commit": said["commit"][:-2], "MiB": [max(said["bytes"]) / (1 << 20)]}


def restarts(file: Path, tries: int, environment: dict[str, str]) -> list[float]:
    """Seconds from the death of a supervised worker, with 64 MiB of state, to the next checkpoint that is complete."""
    line = f"ingest {file} --time ts --name bench_back --checkpoint 200ms --batch-bytes 1MiB | {STEPS} | sink view:bench_back"
    return [_back_once(line, environment) for _ in range(tries)]


def _back_once(line: str, environment: dict[str, str]) -> float:
    _forget("bench_back", environment)
    state = Path(environment["CLICKPIPE_HOME"]) / "pipelines" / "bench_back"
    words = [sys.executable, "-m", "clickpipe", "run", "--quiet", "-c", line]
    with subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            while _mib(state) < ENOUGH:
                time.sleep(0.002)
            before = _newest(state)
            os.kill(_children(process.pid)[0], signal.SIGKILL)
            died = time.perf_counter()
            while _newest(state) <= before:
                time.sleep(0.002)
            return time.perf_counter() - died
        finally:
            process.kill()


def _forget(name: str, environment: dict[str, str]) -> None:
    """What an earlier run has left takes time to be put aside."""
    home = Path(environment["CLICKPIPE_HOME"])
    shutil.rmtree(home / "pipelines" / name, ignore_errors=True)
    for end in ("", "-wal", "-shm"):
        (home / "views" / f"{name}.sqlite{end}").unlink(missing_ok=True)


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
