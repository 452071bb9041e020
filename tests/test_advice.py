"""What `explain` says against a plan that can run: each rule where it holds, and where it nearly does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from explaining import explain, explained, records

from clickpipe.core.cores import cores
from clickpipe.errors import PlanError
from clickpipe.testing import environment

FOLLOWED = "ingest in.ndjson --follow --time ts"
HOURS = "window tumble 1h | aggregate --by page n='count(*)'"
CORRECTED = "window tumble 1m --allowed-lateness 1m | aggregate --by page n='count(*)'"
MIXED = "ingest mixed.ndjson --time ts"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path / ".home"))
    records(tmp_path / "in.ndjson", *range(300))
    records(tmp_path / "mixed.ndjson", *range(100), 93, *range(100, 200), 158, *range(200, 300))


@pytest.mark.parametrize(
    ("name", "step", "pipeline"),
    [
        ("idle-timeout", "window", f"{FOLLOWED} --idle-timeout 30s --checkpoint 1s | {HOURS} | sink view:v"),
        ("idle-timeout", "window", f"ingest - --time ts --idle-timeout 30s | {HOURS} | sink view:v"),
        (
            "idle-timeout",
            "window",
            f"{FOLLOWED} --idle-timeout 59s | window session 1m --by who | aggregate n='count(*)' | sink -",
        ),
        ("out-of-order", "ingest", f"{MIXED} | {HOURS} | sink -"),
        ("out-of-order", "ingest", f"{MIXED} | sort | sink -"),
        ("out-of-order", "ingest", f"{MIXED} | dedup --by who --within 41s | {HOURS} | sink -"),
        ("out-of-order", "ingest", f"{MIXED} | dedup --by who --within 40s | sink -"),
        ("out-of-order", "ingest", f"{MIXED} --follow | {HOURS} | sink -"),
        ("no-watermark", "ingest", "ingest in.ndjson --follow | window tumble 1h --time ts | aggregate n='count(*)' | sink -"),
        ("no-watermark", "ingest", "ingest in.ndjson --follow | dedup --by who --within 1m --time ts | sink -"),
        ("unbounded-state", "aggregate", f"{FOLLOWED} | aggregate --by page n='count(*)' --emit update | sink -"),
        ("unbounded-state", "aggregate", f"{FOLLOWED} | aggregate n='count(DISTINCT who)' --emit update | sink -"),
        ("unbounded-state", "aggregate", "ingest tcp://:1 | aggregate --by page n='count(*)' --emit update | sink -"),
        ("unbounded-state", "window", f"{FOLLOWED} | window count 5 --by who | aggregate n='count(*)' | sink -"),
        ("no-result", "aggregate", f"{FOLLOWED} | aggregate n='count(*)' | sink -"),
        ("dedup-within", "dedup", f"{MIXED} --max-out-of-orderness 1m | dedup --by who --within 59s | sink -"),
        ("sink-key", "sink", "ingest in.ndjson --time ts | sink view:v"),
        ("sink-revisions", "sink", f"ingest in.ndjson --time ts | {CORRECTED} | sink out.ndjson"),
        ("sink-revisions", "sink", f"ingest in.ndjson --time ts | {HOURS} --emit update | sink log:hours"),
        ("sink-name", "sink", "ingest in.ndjson | sink veiw:v"),
        ("no-checkpoint", "sink", f"{FOLLOWED} | {HOURS} | sink view:v"),
        ("no-checkpoint", "sink", f"ingest tcp://:1 --time ts | {HOURS} | sink out.csv"),
        (
            "workers",
            "partition",
            f"ingest in.ndjson | partition --by who --workers {cores() + 1} | filter 'ms > 1' | merge | sink -",
        ),
        (
            "filter-first",
            "filter",
            "ingest in.ndjson --time ts | window tumble 1h | filter 'ms > 1' | aggregate n='count(*)' | sink -",
        ),
        ("filter-first", "filter", f"ingest in.ndjson --time ts | {HOURS} | filter \"page = '/p/1'\" | sink -"),
    ],
)
def test_what_is_said(name: str, step: str, pipeline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = explained(monkeypatch, pipeline)["advice"]
    assert (name, step) in [(one["name"], one["step"]) for one in said]


@pytest.mark.parametrize(
    ("name", "pipeline"),
    [
        ("idle-timeout", f"{FOLLOWED} --idle-timeout 1h | {HOURS} | sink -"),
        ("idle-timeout", f"{FOLLOWED} --idle-timeout 0s | {HOURS} | sink -"),
        ("idle-timeout", f"{FOLLOWED} | {HOURS} | sink -"),  # the default is nobody's choice, and often right
        ("idle-timeout", f"{FOLLOWED} --idle-timeout 30s --on-idle hold | {HOURS} | sink -"),
        (
            "idle-timeout",
            f"{FOLLOWED} --idle-timeout 30s | window tumble 1h --allowed-lateness 1h | aggregate n='count(*)' | sink -",
        ),
        ("idle-timeout", f"{FOLLOWED} --idle-timeout 30s | window count 60000 | aggregate n='count(*)' | sink -"),
        ("out-of-order", f"ingest in.ndjson --time ts | {HOURS} | sink -"),
        ("out-of-order", f"{MIXED} --max-out-of-orderness 1s | {HOURS} | sink -"),  # somebody has decided
        ("out-of-order", f"{MIXED} | filter 'ms > 1' | sink -"),
        ("out-of-order", f"{MIXED} | window count 5 | aggregate n='count(*)' | sink -"),
        ("out-of-order", f"{MIXED} | dedup --by who --within 41s | sink -"),
        ("out-of-order", f"{MIXED} | window tumble 1h --allowed-lateness 41s | aggregate n='count(*)' | sink view:v"),
        ("no-watermark", f"{FOLLOWED} | {HOURS} | sink -"),
        ("no-watermark", "ingest in.ndjson | window tumble 1h --time ts | aggregate n='count(*)' | sink -"),
        ("no-watermark", "ingest x.log --follow --format combined | window tumble 1h | aggregate n='count(*)' | sink -"),
        ("no-watermark", "ingest in.ndjson --follow | window tumble 1h --time ts | sink log:marked"),
        ("no-watermark", "ingest in.ndjson --follow | window count 5 --time ts | aggregate n='count(*)' | sink -"),
        ("unbounded-state", "ingest in.ndjson | aggregate --by page n='count(DISTINCT who)' | sink -"),
        ("unbounded-state", f"{FOLLOWED} | aggregate n='count(*)' u='approx_distinct(who)' l='list(ms)' --emit update | sink -"),
        ("unbounded-state", f"{FOLLOWED} | aggregate h='histogram(ms, [1, 2])' --emit update | sink -"),
        ("unbounded-state", f"{FOLLOWED} | window tumble 1h | aggregate --by who n='count(DISTINCT page)' | sink -"),
        ("unbounded-state", f"{FOLLOWED} | aggregate --by page n='count(*)' --emit update --max-groups 100 | sink -"),
        ("unbounded-state", f"{FOLLOWED} | limit 9 | aggregate --by page n='count(*)' | sink -"),
        ("unbounded-state", f"{FOLLOWED} | window count 5 | aggregate n='count(*)' | sink -"),
        ("no-result", f"{FOLLOWED} | aggregate n='count(*)' --emit update | sink -"),
        ("no-result", "ingest in.ndjson | aggregate n='count(*)' | sink -"),
        ("no-result", "ingest tcp://:1 --time ts | window tumble 1m | filter 'a > 1' | aggregate n='count(*)' | sink -"),
        ("dedup-within", f"{MIXED} --max-out-of-orderness 1m | dedup --by who --within 1m | sink -"),
        ("sink-key", "ingest in.ndjson --time ts | sink view:v --key who"),
        ("sink-key", f"ingest in.ndjson --time ts | {HOURS} | sink view:v"),
        ("sink-revisions", f"ingest in.ndjson --time ts | {CORRECTED} | sink view:v"),
        ("sink-revisions", f"ingest in.ndjson --time ts | {CORRECTED} | sink archive:v"),
        ("sink-revisions", f"ingest in.ndjson --time ts | {HOURS} --emit update | sink -"),
        ("sink-revisions", f"ingest in.ndjson --time ts | {HOURS} | sink out.ndjson"),
        ("sink-name", "ingest in.ndjson | sink results:v"),
        ("sink-name", "ingest in.ndjson | sink ./veiw:v"),
        ("no-checkpoint", f"{FOLLOWED} --checkpoint 1s | {HOURS} | sink view:v"),
        ("no-checkpoint", f"ingest in.ndjson --time ts | {HOURS} | sink view:v"),
        ("no-checkpoint", f"ingest - --time ts | {HOURS} | sink view:v"),  # what is piped in ends
        ("no-checkpoint", f"{FOLLOWED} | sink log:raw"),
        ("no-checkpoint", f"{FOLLOWED} | {HOURS} | sink -"),
        ("workers", f"ingest in.ndjson | partition --by who --workers {cores()} | filter 'ms > 1' | merge | sink -"),
        ("workers", "ingest in.ndjson | partition --by who --workers auto --max-workers 99 | filter 'ms > 1' | merge | sink -"),
        ("filter-first", f"ingest in.ndjson --time ts | {HOURS} | filter 'n > 1' | sink -"),
        ("filter-first", f"ingest in.ndjson --time ts | {HOURS} --top 1 | filter \"page = '/p/1'\" | sink -"),
        ("filter-first", f"ingest in.ndjson --time ts | {HOURS} --also total | filter \"page = '/p/1'\" | sink -"),
        ("filter-first", "ingest in.ndjson --time ts | window count 5 | filter 'ms > 1' | aggregate n='count(*)' | sink -"),
        (
            "filter-first",
            "ingest in.ndjson --time ts | window tumble 1h | filter 'window_start > 1' | aggregate n='count(*)' | sink -",
        ),
    ],
)
def test_what_is_not_said(name: str, pipeline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name not in [one["name"] for one in explained(monkeypatch, pipeline)["advice"]]


def test_it_stands_under_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens, how bad it is in the first records, and what to type."""
    code, tree = explain(monkeypatch, "-c", f"{MIXED} | {HOURS} | sink -")
    assert code == 0
    assert tree.endswith(
        "\n\n"
        "advice: out-of-order: ingest: 2 of the first 302 records come behind newer ones,\n"
        "  by up to 41s: they are late, and lost to window where it has gone on already\n"
        "remedy: ingest --max-out-of-orderness 41s loses none of these\n"
    )


def test_strict_makes_it_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """And changes nothing that is printed."""
    for pipeline, code in ((f"{MIXED} | {HOURS} | sink -", 65), (f"ingest in.ndjson --time ts | {HOURS} | sink -", 0)):
        plain = explain(monkeypatch, "-c", pipeline)
        assert plain[0] == 0
        assert explain(monkeypatch, "-c", pipeline, "--strict") == (code, plain[1])
        assert explain(monkeypatch, "-c", pipeline, "--strict", "--format", "dot")[0] == code


def test_of_two_phases_the_second_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    said = explained(monkeypatch, f"{FOLLOWED} | partition --by who | aggregate --by page n='count(*)' | merge | sink -")
    assert [(one["name"], one["number"]) for one in said["advice"]] == [("no-result", 5), ("unbounded-state", 5)]
    assert [step["step"] for step in said["steps"]][4] == "aggregate"


@pytest.mark.parametrize(
    "steps",
    [
        "window tumble 1m | filter 'ms > 99' | aggregate --by page n='count(*)'",
        "window hop 1m --slide 10s | aggregate --by page n='count(*)' | filter \"page = '/p/1'\"",
        "window session 3s --by who | aggregate n='count(*)' last='max(ms)' | filter \"who = 'u1'\"",
        "aggregate --by page,who n='count(*)' | filter \"page = '/p/1' AND who = 'u1'\"",
    ],
)
def test_a_filter_that_goes_first_changes_nothing(steps: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as that is advised."""
    moved = steps.split(" | ")
    while said := explained(monkeypatch, f"ingest in.ndjson --time ts | {' | '.join(moved)}")["advice"]:
        assert said[0]["name"] == "filter-first"
        at = said[0]["number"] - 2
        moved[at - 1 : at + 1] = moved[at], moved[at - 1]
    assert moved[0].startswith("filter")
    assert _rows(steps, tmp_path) == _rows(" | ".join(moved), tmp_path) != []


def _rows(steps: str, folder: Path) -> list[str]:
    words = [sys.executable, "-m", "clickpipe", "run", "-q", "-c", f"ingest in.ndjson --time ts | {steps} | sink -"]
    done = subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_view_without_a_key_is_refused_by_a_run(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "clickpipe", "run", "-c", "ingest in.ndjson | sink view:v"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "a view keeps the latest row of each key" in done.stderr


# Sources that are not there.


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("log:pagse", 'did you mean "pages"?'),
        ("log:pagse --follow", 'did you mean "pages"?'),
        ("lgo:pages", 'did you mean "log:pages"?'),
        ("pages", 'did you mean "log:pages"?'),
        ("archive:histroy", 'did you mean "history"?'),
        ("history", 'did you mean "archive:history"?'),
        ("view:lates", 'a view is read by SQL: clickpipe query "SELECT * FROM latest"'),
        ("in.ndjsn", ""),
    ],
)
def test_a_name_that_nothing_has(source: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest of what there is, of whatever kind."""
    line = "ingest in.ndjson --time ts | sink log:pages --pass | sink view:latest --key who --pass | sink archive:history"
    words = [sys.executable, "-m", "clickpipe", "run", "-q", "-c", line]
    subprocess.run(words, cwd=tmp_path, env=environment(tmp_path), check=True)
    with pytest.raises(PlanError) as raised:
        explain(monkeypatch, "-c", f"ingest {source} | sink -")
    assert raised.value.hint == hint
