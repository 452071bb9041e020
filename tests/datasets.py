"""Friendly and unfriendly numbers, for what is approximate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Data = Callable[[np.random.Generator, int], NDArray[np.float64]]
DATA: dict[str, Data] = {
    "uniform": lambda chance, n: chance.uniform(0, 1000, n),
    "lognormal": lambda chance, n: chance.lognormal(5, 2, n),
    "zipf": lambda chance, n: chance.zipf(1.3, n).astype(float),
    "sorted": lambda chance, n: np.sort(chance.exponential(100, n)),
    "constant": lambda chance, n: chance.choice([42.0], n),
    "few": lambda chance, n: chance.choice([1.0, 1.02, 1000.0], n),
    "ties": lambda chance, n: np.round(chance.normal(0, 3, n)),
    "negative": lambda chance, n: -chance.lognormal(0, 1, n),
    "zeros": lambda chance, n: chance.normal(0, 1, n) * chance.integers(0, 2, n),
    "huge": lambda chance, n: 10.0 ** chance.uniform(-300, 300, n),
}
