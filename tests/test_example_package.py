"""An aggregate from another package: found by its entry point, and all that the README says of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from clickpipe.testing import environment

HERE = Path(__file__).parent
PACKAGE = HERE / "example_package"


def _installed(folder: Path) -> Path:
    """What an installer leaves: the module, and the entry points that the project file names."""
    shutil.copy(PACKAGE / "spread.py", folder)
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    about = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()) for group, points in groups]
    (about / "entry_points.txt").write_text("".join(lines))
    return folder


def _run(home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    line = "ingest - | aggregate --by page s='spread(x)' p=\"spread(x * 2) FILTER (WHERE x > 3)\" | sink -"
    records = "".join(json.dumps({"page": page, "x": x}) + "\n" for page, x in [("/a", 2), ("/a", 8), ("/b", 0), ("/a", None)])
    words = [sys.executable, "-m", "clickpipe", "run", "--quiet", "-c", line]
    return subprocess.run(words, input=records, capture_output=True, text=True, env=environment(home, **more), check=False)


def test_its_entry_point_is_enough(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    path = os.pathsep.join(filter(None, [str(_installed(tmp_path / "site")), os.environ.get("PYTHONPATH", "")]))
    done = _run(tmp_path, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["page"], row["s"], row["p"]) for row in rows] == [("/a", 6, 0), ("/b", 0, None)]


def test_without_it_there_is_no_such_aggregate(tmp_path: Path) -> None:
    done = _run(tmp_path)
    assert done.returncode == 2
    assert 'no aggregate "spread"' in done.stderr


def test_the_readme_shows_this_file() -> None:
    assert (PACKAGE / "spread.py").read_text() in (HERE.parent / "README.md").read_text()
