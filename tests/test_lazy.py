"""Polars is loaded when it is used: importing all of clickpipe does not."""

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, sys
from clickpipe.lazy import polars_on_demand
polars_on_demand()
import clickpipe
for module in pkgutil.walk_packages(clickpipe.__path__, "clickpipe."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        assert "polars.dataframe" not in sys.modules, module.name
import polars as pl
from clickpipe.columns import Columns
assert Columns({"a": "int"}).schema() == {"a": pl.Int64}
assert pl is not sys.modules["polars"] and pl.DataFrame is sys.modules["polars"].DataFrame
"""


def test_importing_our_modules_loads_no_polars() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


def test_a_step_without_sockets_loads_no_tls() -> None:
    script = "import sys, clickpipe.cli.step, clickpipe.engine.local; assert 'ssl' not in sys.modules"
    begin = "from clickpipe.lazy import polars_on_demand; polars_on_demand()"
    subprocess.run([sys.executable, "-c", f"{begin}; {script}"], check=True)
