"""How much of what can be tried is tried: a part in every run, all of it in `make soak`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

IS_THOROUGH = bool(os.environ.get("CLICKPIPE_THOROUGH"))


def examples(count: int) -> int:
    """Of a property test: a tenth."""
    return count if IS_THOROUGH else max(6, count // 10)


def every(stride: int) -> int:
    """Of a count that goes up one by one, how much it goes up."""
    return 1 if IS_THOROUGH else stride


def some(params: Iterable[Any], stride: int = 2) -> list[Any]:
    """Of the parameters of a test: the first, and every so many after it."""
    return list(params)[:: every(stride)]
