"""What the README shows of a pipeline that is kept running is what happens, word for word but for numbers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from running import Start, errors, status, until

from clickpipe.testing import environment

ROOT = Path(__file__).parent.parent


def test_the_session_of_the_readme(folder: Path, start: Start) -> None:
    text = (ROOT / "README.md").read_text()
    shown = re.findall(r"```console\n(.*?)```", text, re.DOTALL)[0]
    shown = shown.replace("/home/you/.local/state/clickpipe", str(folder / ".home"))
    printed = ""
    for command in re.findall(r"^\$ clickpipe (.*)|^\$ (kill .*)", shown, re.MULTILINE):
        match command:
            case (run, "") if run.endswith(" &"):
                _, recipe, _ = run.split()
                process = start("run", str(ROOT / recipe), f"--set=log={ROOT}/sample_data/access.log")
                _wait_for_checkpoint(folder, 0)
            case ("", _):
                before = status(folder)["checkpoint"]
                os.kill(int(re.findall(r"process (\d+)", printed)[-1]), signal.SIGKILL)
                _wait_for_checkpoint(folder, before)
            case (words, ""):
                printed += _clickpipe(folder, *words.split())
    assert process.wait() == 0
    lines = [line for line in _masked(shown).splitlines() if not line.startswith("$")]
    assert _masked(printed).splitlines() == [line for line in lines if not line.startswith("clickpipe:")]
    assert _masked(errors(folder)).splitlines() == [line for line in lines if line.startswith("clickpipe:")]


def _clickpipe(folder: Path, *words: str) -> str:
    with open(folder / "errors", "a") as told:
        command = [sys.executable, "-m", "clickpipe", *words]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=told, text=True, cwd=folder, env=environment(folder), check=True
        )
    return done.stdout


def _wait_for_checkpoint(folder: Path, after: object) -> None:
    """Beyond this one, of a pipeline that runs."""

    def is_there() -> bool:
        said = status(folder)
        return said.get("state") == "running" and bool(said["processes"]) and said["checkpoint"] not in (None, after)

    until(is_there, "no checkpoint comes")


def _masked(text: str) -> str:
    return re.sub(r"\d+", "0", text)
