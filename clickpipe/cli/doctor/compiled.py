"""Whether modules are compiled: without .pyc files start-up takes twice as long and more, at every step of a pipeline."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.util import cache_from_source, find_spec

from clickpipe.cli.doctor.verdict import Verdict, note, ok

_PACKAGES = ("clickpipe", "polars", "click")
_FEW = 0.02  # the share that may be missing: what somebody has just edited


@dataclass(frozen=True)
class Found:
    """Of the modules that this process has loaded. Loading compiles them, where that can be written: what is not there now will
    not be the next time either. `folders`: to compile. `is_switched_off`: by PYTHONDONTWRITEBYTECODE."""

    modules: int
    compiled: int
    folders: tuple[str, ...]
    is_switched_off: bool


def look(_: str) -> Found:
    __import__("polars")
    paths = [
        str(module.__file__) for module in list(sys.modules.values()) if str(getattr(module, "__file__", "")).endswith(".py")
    ]
    compiled = [path for path in paths if os.path.exists(cache_from_source(path))]
    return Found(len(paths), len(compiled), tuple(filter(None, map(_folder, _PACKAGES))), sys.dont_write_bytecode)


def _folder(package: str) -> str:
    spec = find_spec(package)
    return os.path.dirname(spec.origin) if spec and spec.origin else ""


def verdict(found: Found) -> Verdict:
    missing = found.modules - found.compiled
    if missing <= found.modules * _FEW:
        return ok(f"{found.compiled:,} modules of those that a step loads are compiled")
    why = "; PYTHONDONTWRITEBYTECODE is set" if found.is_switched_off else ""
    return note(
        f"{missing:,} of {found.modules:,} modules are not compiled, and every command begins with compiling them{why}",
        f"{sys.executable} -m compileall -q {' '.join(found.folders)}",
        "or install with: uv tool install --compile-bytecode, or pip, which compiles",
    )
