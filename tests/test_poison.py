"""A record at which a pipeline dies every time is found, and set aside: that one and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from examples import some
from running import Start, errors

STEP = '''
"""Die at x = 13, as a panic in a library would."""
import os, signal
from dataclasses import dataclass
from clickpipe.core.operator import Operator
from clickpipe.core.step import OperatorStep

@dataclass(frozen=True)
class Explode(OperatorStep):
    def needs(self, given):
        return ("x",)

    def open(self, given, saved):
        return Exploding()

class Exploding(Operator):
    def on_batch(self, batch):
        if (batch.frame["x"] == 13).any():
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch
'''
LINE = "ingest in.ndjson --name c --checkpoint 10ms --batch-bytes 16KiB | explode | sink out.ndjson"


def _plugged(folder: Path) -> str:
    """A step from another package; where Python finds it."""
    about = folder / "plug" / "explode-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "plug" / "explode.py").write_text(STEP)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: explode\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[clickpipe.operators]\nexplode = explode:Explode\n")
    return str(folder / "plug")


@pytest.mark.parametrize("form", some([[], ["--no-fuse"]]))
def test_the_record_is_set_aside(form: list[str], folder: Path, start: Start) -> None:
    records = [json.dumps({"id": n, "x": 13 if n == 2_000 else 1}) for n in range(3_000)]
    (folder / "in.ndjson").write_text("\n".join(records) + "\n")
    words = ["run", *form, "--on-poison", "dead-letter", "-c", LINE]
    assert start(*words, PYTHONPATH=_plugged(folder)).wait(110) == 0, errors(folder)
    assert (folder / "out.ndjson").read_text().splitlines() == [line for line in records if '"x": 13' not in line]
    letters = [json.loads(line) for line in (folder / ".home/pipelines/c/dead.ndjson").read_text().splitlines()]
    assert [(one["raw"], one["error"]) for one in letters] == [(records[2_000], "the pipeline died at it every time")]
    assert f"dies at byte {letters[0]['offset']:,} of in.ndjson; that record becomes a dead letter" in errors(folder)


def test_it_is_for_files_at_rest(folder: Path, start: Start) -> None:
    """What cannot be read again the same way cannot be hunted in."""
    for source in ("-", "in.ndjson --follow"):
        line = LINE.replace("in.ndjson", source, 1).replace("explode", "limit 1")
        assert start("run", "--on-poison", "dead-letter", "-c", line).wait(60) == 2
    assert errors(folder).count("notimpl: --on-poison dead-letter: it is for files at rest") == 2
