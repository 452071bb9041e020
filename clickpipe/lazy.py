"""Load Polars when it is first used, not when it is first named.

Every module that works on columns says `import polars as pl` at its top, as it should.
A help text, a usage error and `sink -` on a plain stream need such modules and no Polars,
which costs 0.2 s to import. `polars_on_demand()` puts a module in place that loads itself
at the first look at one of its names.
"""

import importlib.util
import sys


def polars_on_demand() -> None:
    """Make `import polars` cost nothing until something in it is used."""
    if "polars" in sys.modules:
        return
    spec = importlib.util.find_spec("polars")
    if spec is None or spec.loader is None:
        return  # the import itself will say what is missing
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["polars"] = module
    spec.loader.exec_module(module)
