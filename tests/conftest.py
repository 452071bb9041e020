"""Options and fixtures of the test suite."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Start

from clickpipe.testing import environment


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write what the cases give now into them; the diff is the review")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With records in in.ndjson."""
    lines = [json.dumps({"ts": 1_767_225_600_000 + n * 20, "page": f"/p/{n % 7}"}) for n in range(6_000)]
    (tmp_path / "in.ndjson").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts `clickpipe …` in the folder; whatever still lives at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def go(*words: str, stdout: str = "printed", **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "clickpipe", *words]
        with open(folder / "errors", "a") as told, open(folder / stdout, "a") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=told,
                text=True,
                cwd=folder,
                env=environment(folder, **more),
            )
        started.append(process)
        return process

    yield go
    for process in started:
        process.kill()
        process.wait()
