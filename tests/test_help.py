"""Help, manual pages and errors of the command line, as a person meets them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from examples import some

from clickpipe import __version__
from clickpipe.cli import catalog
from clickpipe.testing import environment

ROOT = Path(__file__).parent.parent
COMMANDS = catalog.names()
SECTIONS = "NAME,SYNOPSIS,DESCRIPTION,OPTIONS,EXAMPLES,EXIT STATUS,ENVIRONMENT,FILES,SEE ALSO".split(",")
LINTS = {"mandoc": ["-Tlint", "-Wwarning"], "groff": ["-man", "-Tutf8", "-Kutf8", "-rLL=300n", "-ww", "-z"]}
README = (ROOT / "README.md").read_text()
# What a pipeline prints; not where it is shown shortened.
SHOWN = re.findall(r"```sh\n([^`]*)```\s+```\n([^…`]*)```", README, re.DOTALL)


def _clickpipe(*words: str, cwd: Path = ROOT, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = environment(home or cwd)
    return subprocess.run(
        [sys.executable, "-m", "clickpipe", *words], capture_output=True, text=True, cwd=cwd, env=env, check=False
    )


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"], ["help"]])
def test_help_does_not_load_polars(words: list[str]) -> None:
    script = (
        "import sys; sys.argv = ['clickpipe', *sys.argv[1:]]\n"
        "import os; real = os._exit\n"
        "def leave(code):\n"
        "    heavy = {'polars._plr', 'zstandard', 'sqlglot', 'rich', 'importlib.metadata', 'numpy'} & set(sys.modules)\n"
        "    print('LOADED', heavy, code, file=sys.stderr); real(0)\n"
        "os._exit = leave\n"
        "from clickpipe.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr.splitlines()[-1] == "LOADED set() 0", done.stderr


def test_help_lists_every_command_with_its_summary() -> None:
    shown = _clickpipe("--help").stdout
    for title, rows in catalog.summaries():
        assert f"{title}:" in shown
        for name, summary in rows:
            assert re.search(rf"^  {name} +\S", shown, re.MULTILINE), name
            assert summary.endswith("."), name
            assert summary.split()[0] in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    for words in ([name, "--help"], [name, "-h"], ["help", name]):
        done = _clickpipe(*words)
        assert done.returncode == 0
        assert done.stdout.startswith(f"Usage: clickpipe {name}")
        assert "Examples:" in done.stdout
        assert done.stderr == ""


@pytest.mark.parametrize("name", ["clickpipe", *COMMANDS])
def test_every_command_has_a_manual_page_that_renders(name: str) -> None:
    done = _clickpipe("help", "--man", name)
    assert done.returncode == 0
    assert done.stdout.startswith(".TH")
    assert [section for section in re.findall(r"^\.SH (.*)$", done.stdout, re.MULTILINE) if section in SECTIONS] == SECTIONS
    assert not re.search(r"^\.TP\n\\fB.*\\fR\n$", done.stdout, re.MULTILINE), "an option without a word"
    assert "clickpipe" in done.stdout.split(".SH EXAMPLES\n")[1].split(".SH")[0]
    _lint(done.stdout)


def test_the_manual_page_of_the_program_lists_the_commands() -> None:
    shown = _clickpipe("help", "--man").stdout.split(".SH COMMANDS\n")[1].split(".SH")[0]
    assert re.findall(r"^\.TP\n\\fB(.*)\\fR$", shown, re.MULTILINE) == [name.replace("-", "\\-") for name in COMMANDS]


def test_indented_lines_of_a_description_keep_their_lines() -> None:
    lines = _clickpipe("help", "--man", "view").stdout.splitlines()
    shown = lines[lines.index(".nf") + 1 : lines.index(".fi")]
    assert [line.split()[2] for line in shown] == ["ls", "show", "drop"]


@pytest.mark.parametrize("path", sorted((ROOT / "man").glob("*.[57]")), ids=lambda path: path.name)
def test_the_written_pages_render(path: Path) -> None:
    _lint(path.read_text())
    assert ".SH NAME" in path.read_text()


def test_a_page_that_roff_does_not_understand_is_seen() -> None:
    if not any(map(shutil.which, LINTS)):
        pytest.skip("neither mandoc nor groff is installed")
    with pytest.raises(AssertionError):
        _lint('.TH "X" 1 "2026-11-24" "x" "x"\n.SH NAME\nx \\- an \\(xx that is none\n')


def _lint(text: str) -> None:
    """By each of the programs that is installed."""
    for name, words in LINTS.items():
        if shutil.which(name):
            done = subprocess.run([name, *words], input=text, capture_output=True, text=True, check=False)
            assert not done.stdout + done.stderr


def test_the_version() -> None:
    assert _clickpipe("--version").stdout == f"clickpipe {__version__}\n"
    assert _clickpipe("-V").stdout == f"clickpipe {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["agregate"], 'did you mean "aggregate"?'),
        (["window", "tumble"], "missing argument 'SIZE'"),
        (["ingest", "x", "--tim", "ts"], "--time"),
        (["run"], "no recipe"),
        (["run", "nowhere.toml"], "nowhere.toml: No such file or directory"),
        (["run", "recipes/trending.toml", "recipes/trending.toml"], 'two pipelines are called "trending"'),
        (["run", "-c", "ingest x |"], "no step after the last |"),
        (["run", "-c", "| sink -"], "no step before this |"),
        (["run", "-c", "sink - | filter 'a'"], "it cannot stand before another step"),
        (["run", "-c", "filter 'a' | ingest x"], "it cannot stand after another step"),
        (["run", "-c", "filter 'a"], "a quote that is not closed"),
        (["run", "-c", ""], "the pipeline is empty"),
        (["run", "-c", "ingest x | sink - | sink -"], "ends a pipeline"),
        (["run", "-c", "ingest ${where} | sink -"], "${where} has no value"),
        (["run", "-c", "ingest x | sink -", "--set", "a"], "is not NAME=VALUE"),
        (["help", "nothing"], 'no command "nothing"'),
    ],
)
def test_a_mistake_is_said_in_a_line_and_exits_2(words: list[str], said: str) -> None:
    done = _clickpipe(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.startswith("clickpipe: ")
    assert "Traceback" not in done.stderr
    assert done.stdout in ("", '\t{"@":"failed"}\n')  # a step tells the next one that the reason was said


def test_no_command_shows_the_help() -> None:
    done = _clickpipe()
    assert done.returncode == 2
    assert "Usage: clickpipe" in done.stderr


def test_a_mistake_in_a_recipe_shows_its_line(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text('{"page":"/a"}\n')
    (tmp_path / "r.toml").write_text(
        "about = 'x'\npipeline = '''\ningest in.ndjson\n| aggregate --by pgae n='count(*)'\n| sink -\n'''\n"
    )
    done = _clickpipe("run", "r.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        'clickpipe: r.toml:4: aggregate: no column "pgae" to group by\n'
        "    4 | | aggregate --by pgae n='count(*)'\n"
        '                         ^^^^ did you mean "page"?\n'
        "  the step before gives: page\n"
    )


def _examples() -> list[str]:
    """Every example of a help text, and every block of the README for a shell whose output is not shown, as lines to run."""
    blocks = [block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if block not in dict(SHOWN)]
    for name in COMMANDS:
        command = catalog.find(name)
        assert command is not None
        blocks.append((command.epilog or "").split("Examples:\n", 1)[1].split("\n\n", 1)[0])
    return [
        line.strip()
        for block in blocks
        for line in re.split(r"(?<![|\\&])\n(?=(?:  )?[a-z])", block)
        if not line.startswith("make ")
    ]


@pytest.mark.parametrize("example", some(_examples()))
def test_examples_run_as_they_stand(example: str, tmp_path: Path) -> None:
    """In the folder of the project, but for /tmp, which others may use; the accounts balance, and something comes out."""
    words = ["bash", "-c", "set -o pipefail; " + re.sub(r"/tmp\b", str(tmp_path), example)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment(tmp_path, MANPAGER="cat"), check=False)
    if "| man " in example and not shutil.which("man"):
        pytest.skip("man is not installed")
    assert done.returncode == 0, done.stderr
    assert done.stdout or "/tmp/" in example
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("pipeline", "shown"), SHOWN)
def test_the_readme_shows_what_its_pipelines_give(pipeline: str, shown: str, tmp_path: Path) -> None:
    """Tables, accounts and places, word for word. What is shown shortened has a …"""
    words = ["bash", "-c", f"{{ {pipeline.strip()}; }} 2>&1"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment(tmp_path), check=True)
    printed = done.stdout.replace(f"{tmp_path}/.home", "/home/you/.local/state/clickpipe")
    assert sorted(line.rstrip() for line in printed.splitlines()) == sorted(line.rstrip() for line in shown.splitlines())


def test_the_readme_shows_the_message_about_a_mistyped_column(tmp_path: Path) -> None:
    text = README
    command, message = re.findall(r"\$ (clickpipe run -c \"ingest.*?pgae.*?\")\n(.*?)```", text, re.DOTALL)[0]
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, env=environment(tmp_path), check=False
    )
    assert done.stderr == message
