"""`clickpipe explain` in this process: what it prints, and its exit code."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from clickpipe.cli import catalog

START = 1_767_225_600_000


def explain(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    """Raises what the command does."""
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="utf-8"))
    command = catalog.find("explain")
    assert command is not None
    code = command.main(list(words), standalone_mode=False)
    sys.stdout.flush()
    return int(code or 0), printed.getvalue().decode()


def explained(monkeypatch: pytest.MonkeyPatch, pipeline: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(explain(monkeypatch, "-c", pipeline, "--format", "json")[1])
    return said


def records(path: Path, *times: int) -> None:
    """A record for each time, in seconds from START."""
    lines = [json.dumps({"ts": START + 1_000 * at, "who": f"u{at % 5}", "page": f"/p/{at % 3}", "ms": at}) for at in times]
    path.write_text("\n".join(lines) + "\n")
