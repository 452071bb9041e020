"""Polars loads numpy at the first use; two of its threads that are first at once fail."""

from __future__ import annotations

import subprocess
import sys

# The proxy that stands for numpy has its names from the first use on, and is looked through no more.
FIRST = """
import polars as pl
from polars import _dependencies
from clickpipe.lazy import numpy_for_polars
proxy = _dependencies.numpy
assert "ndarray" not in vars(proxy)
numpy_for_polars()
assert "ndarray" in vars(proxy)
"""


def test_it_is_loaded_by_one_thread_before_others_need_it() -> None:
    subprocess.run([sys.executable, "-c", FIRST], check=True)
