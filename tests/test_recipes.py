"""The recipes that are shipped run on the sample data that is shipped, and say the same in every form."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from examples import some

from clickpipe.plan.recipe import read_recipe
from clickpipe.testing import environment

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
ENDING = [path for path in RECIPES if "--follow" not in path.read_text()]  # what follows a file is run by test_session.py


def _run(words: list[str], folder: Path) -> tuple[list[str], str]:
    """Sorted lines and standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "clickpipe", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(folder),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines()), done.stderr


@pytest.mark.parametrize("path", some(ENDING, 3), ids=lambda path: path.stem)
def test_a_recipe_gives_the_same_in_every_form(path: Path, tmp_path: Path) -> None:
    """Byte for byte after sorting: fused, a process per step, and typed in a shell; with balanced accounts."""
    fused, told = _run(["run", str(path)], tmp_path)
    assert len(fused) > 10
    assert "read " in told
    assert _run(["run", "--no-fuse", str(path)], tmp_path)[0] == fused
    pipeline = " ".join(read_recipe(str(path), {}).pipeline.split("\n"))
    shell = "|".join(f" clickpipe {step.strip()} " for step in pipeline.split("|"))
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=ROOT, env=environment(tmp_path), check=True)
    assert sorted(done.stdout.splitlines()) == fused


def test_trending_is_what_duckdb_finds(tmp_path: Path) -> None:
    """Over the records that are neither late nor bad."""
    rows, told = _run(["run", "recipes/trending.toml", "--set", "window=1d"], tmp_path)
    late = {json.loads(line)["event_id"] for path in tmp_path.glob("**/late.ndjson") for line in path.read_text().splitlines()}
    known = duckdb.sql("""SELECT count(*) FROM read_csv('sample_data/clicks.ndjson.zst', columns={'line': 'VARCHAR'}, delim='\\0',
                          quote='', escape='', header=false, auto_detect=false)
                          WHERE json_valid(line) AND line->>'event' = 'click'
                          AND json_type(line->'ts') = 'UBIGINT' AND json_type(line->'latency_ms') = 'UBIGINT'""").fetchall()
    assert sum(json.loads(row)["clicks"] for row in rows) == known[0][0] - len(late)
    assert "= aggregated" in told


def test_the_sample_data_is_what_its_maker_makes() -> None:
    """sample_data/make.py, run again, gives the same text."""
    import zstandard

    sys.path.insert(0, str(ROOT / "sample_data"))
    try:
        import make
    finally:
        sys.path.pop(0)
    shipped = (ROOT / "sample_data" / "clicks.ndjson.zst").read_bytes()
    text = zstandard.ZstdDecompressor().decompressobj().decompress(shipped)
    assert hashlib.sha256(text).digest() == hashlib.sha256(make.clicks()).digest()
    assert make.access_log() == (ROOT / "sample_data" / "access.log").read_bytes()
