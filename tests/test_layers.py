"""Imports only point down, and a part imports no other part of its folder (clickpipe-design.7)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "clickpipe"
BASE = (
    "columns",
    "ndjson",
    "lines",
    "text",
    "csvtext",
    "batch",
    "errors",
    "readable",
    "sql",
    "lazy",
    "stopping",
    "spent",
    "faults",
)
LAYERS: tuple[tuple[str, ...], ...] = (
    BASE,
    ("wire", "state"),
    ("core", "store"),
    ("aggregates", "sketches", "functions"),
    ("formats",),
    ("operators", "sources", "sinks"),
    ("plan",),
    ("engine", "flink", "query"),
    ("top",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
PARTS = ("operators", "sources", "sinks", "aggregates", "sketches", "functions", "formats")
OUTSIDE = ("__init__", "__main__", "testing")  # the program itself, and what tests it from above
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0].removesuffix(".py") not in OUTSIDE)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """To the same layer or one below; engines and query do not know each other."""
    mine = _folder(path)
    for name in _imports(path):
        theirs = name.split(".")[1] if "." in name else "__init__"
        if theirs in ("__init__", "__version__", "RELEASED", mine):
            continue
        assert LEVEL[theirs] <= LEVEL[mine], f"{path.relative_to(PACKAGE)} imports {name}"
        assert LEVEL[theirs] < LEVEL[mine] or theirs in BASE or {mine, theirs} <= {"wire", "state"}, f"{path} imports {name}"


@pytest.mark.parametrize("folder", PARTS)
def test_parts_do_not_know_each_other(folder: str) -> None:
    for path in (PACKAGE / folder).glob("*.py"):
        others = [name for name in _imports(path) if name.startswith(f"clickpipe.{folder}.")]
        assert not others, f"{path.name} imports {others}"


def test_only_files_syncs_and_renames() -> None:
    """Durability is decided in one module."""
    for path in MODULES:
        if path.relative_to(PACKAGE) != Path("state/files.py"):
            assert not {"fsync", "replace", "rename"} & _calls_of_os(path), path


def test_only_the_command_line_exits() -> None:
    for path in MODULES:
        if _folder(path) != "cli":
            assert "_exit" not in _calls_of_os(path), path
            assert "sys.exit" not in path.read_text(), path


def test_every_module_is_in_a_layer() -> None:
    assert {_folder(path) for path in MODULES} <= set(LEVEL)


def _folder(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> list[str]:
    """Modules of ours, those imported inside functions included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module] if node.module != "clickpipe" else [f"clickpipe.{alias.name}" for alias in node.names]
    return [name for name in found if name == "clickpipe" or name.startswith("clickpipe.")]


def _calls_of_os(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {
        node.func.attr
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "os"
    }
