"""Runs `clickpipe …` with a clock around the parts of a checkpoint, and writes how long each took to a file.

    timed.py OUT.json run --restart no …

`stall`: seconds for which the thread that computes is held up by a checkpoint; `commit`: seconds that writing a manifest
takes; `bytes`: of state in each checkpoint.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

TAKEN: dict[str, list[float]] = defaultdict(list)


def timed(name: str, owner: type, method: str) -> None:
    inner: Callable[..., Any] = getattr(owner, method)

    def outer(*args: Any, **more: Any) -> Any:
        begun = time.perf_counter()
        try:
            return inner(*args, **more)
        finally:
            TAKEN[name].append(time.perf_counter() - begun)

    setattr(owner, method, outer)


def main() -> None:
    out = sys.argv.pop(1)
    from clickpipe.lazy import polars_on_demand

    polars_on_demand()
    from clickpipe.cli import main as cli
    from clickpipe.engine.local import _Run
    from clickpipe.state.epochs import Epochs

    timed("stall", _Run, "_barrier")
    save = Epochs.save

    def counted(self: Epochs, epoch: int, name: str, data: bytes) -> None:
        TAKEN["bytes"] += [float(len(data))] if name.endswith(".state") else []
        save(self, epoch, name, data)

    Epochs.save = counted  # type: ignore[method-assign]  # as timed does it
    timed("commit", Epochs, "commit")
    leave = cli.leave

    def told(code: int) -> None:
        with open(out, "w", encoding="ascii") as file:
            json.dump(TAKEN, file)
        leave(code)

    cli.leave = told  # type: ignore[assignment]  # the process ends in it
    cli.main()


main()
