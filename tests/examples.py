"""How many examples a property test tries: a third in every run, all in `make soak`."""

from __future__ import annotations

import os


def examples(count: int) -> int:
    return count if os.environ.get("CLICKPIPE_THOROUGH") else max(10, count // 3)
