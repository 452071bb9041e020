"""Load Polars when it is first used, not when it is first named.

Every module that works on columns says `import polars as pl` at its top, as it should.
A help text, a usage error, a supervisor and `sink -` on a plain stream need such modules and no Polars,
which costs 0.2 s to import. `polars_on_demand()` puts a module in place that loads the real one
at the first look at one of its names. (importlib's LazyLoader is too eager: the import statement itself looks.)
"""

import functools
import importlib
import importlib.util
import sys
import types
from typing import Any


def polars_on_demand() -> None:
    """Make `import polars` cost nothing until something in it is used."""
    if "polars" in sys.modules:
        return
    spec = importlib.util.find_spec("polars")
    if spec is None:
        return  # the import itself will say what is missing
    module = _OnDemand("polars")
    module.__spec__ = spec
    sys.modules["polars"] = module


class _OnDemand(types.ModuleType):
    """Stands for a module until one of its names is wanted; from then on it has them all."""

    def __getattr__(self, name: str) -> Any:  # called for names that are not there yet
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        real = importlib.import_module(self.__name__)
        self.__dict__.update(real.__dict__)
        return getattr(real, name)


@functools.cache
def numpy_for_polars() -> None:
    """Let Polars load numpy now. It does at the first use, and two of its threads that are first at once fail: what stands for
    numpy until then looks for its own `_globals`, and numpy has a name like that. For whoever gives Polars a function of ours.
    """
    import numpy as np
    import polars as pl

    pl.Series(np.zeros(0))
