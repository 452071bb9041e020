"""Every case in tests/cases gives what it says, in every form of its pipeline.

A case is a TOML file, tests/cases/<part>/<claim>.toml:

    about           the claim, in a sentence
    command         a pipeline as typed in a shell, `clickpipe` in front of each step
    input           standard input; or input_base64; or input_repeat = [[text, times], …]
    files           table of files that lie there: text; files_base64 for bytes
    modes           table of their permissions
    output          the records, in any order; by default on standard output, else in output_file
    error           standard error of the fused form; the other forms must say the same words
    exit            exit code, if it is not 0
    accounts        the summary lines
    late, dead      records of the side streams; of dead letters `raw` and `error`
    skip.<form>     why this form cannot be run; skip.root: not as root
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from examples import IS_THOROUGH

from clickpipe.testing import FORMS, INPUT, Pipeline, Result, run

CASES = Path(__file__).parent / "cases"
_PATHS = sorted(CASES.glob("*/*.toml"))
_IS_FLOAT = re.compile(r"-?\d+(?:\.\d+(?:[eE][+-]?\d+)?|[eE][+-]?\d+)")
_TURNS = "workers shell workers arrow workers piped workers single workers no_fuse workers arrow piped".split()
_SAID_ANYWAY = re.compile(r"clickpipe: ((read|results|late records|dead letters)\b|\S+: \d+ workers share )")
_SHOWN = 120


def _runs() -> list[Any]:
    """Each case in each form that has something to show."""
    return [
        pytest.param(path, form, id=f"{path.parent.name}/{path.stem}-{form}")
        for number, path in enumerate(_PATHS)
        for form in _forms(number, path)
    ]


def _forms(number: int, path: Path) -> Sequence[str]:
    """Processes take most of the time: each case has a turn with some forms, and in `make soak` with all."""
    if "\nexit = 2\n" in path.read_text() + "\n":  # refused before anything runs: the same plan, fused or not
        return ("piped", "fused") if IS_THOROUGH or number % 2 else ("fused",)
    if IS_THOROUGH:
        return FORMS
    return ("fused", _TURNS[number % len(_TURNS)]) if number % 3 else ("fused",)


@pytest.mark.parametrize(("path", "form"), _runs())
def test_case(path: Path, form: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The records, side streams, accounts, words and exit code are those of the case."""
    case = tomllib.loads(path.read_text())
    pipeline = _pipeline(case)
    if reason := _skipped(case, pipeline, form):
        pytest.skip(reason)
    directory = tmp_path / "run"
    directory.mkdir()
    for name, mode in case.get("modes", {}).items():
        (directory / name).write_bytes(pipeline.files[name])
        (directory / name).chmod(mode)

    result = run(pipeline, form, directory)

    if request.config.getoption("--record"):
        if form == "fused":
            path.write_text(_recorded(case, _seen(case, result)))
        pytest.skip("recorded")
    _compare(case, result)


@pytest.mark.parametrize("path", _PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case_file(path: Path) -> None:
    """A case says what it claims and has no key that nobody reads."""
    case = tomllib.loads(path.read_text())
    assert case["about"].endswith(".")
    assert set(case) <= set(_KEYS), set(case) - set(_KEYS)
    assert set(case.get("skip", {})) <= {*FORMS, "root"}


def _skipped(case: dict[str, Any], pipeline: Pipeline, form: str) -> str:
    skip = case.get("skip", {})
    if "root" in skip and os.geteuid() == 0:
        return str(skip["root"])
    for mine, other in (("piped", "shell"), ("workers", "single")):
        if form == mine and other in skip:
            return str(skip[other])
    return str(skip.get(form, "" if pipeline.can(form) else "nothing to ingest one by one"))


def _pipeline(case: dict[str, Any]) -> Pipeline:
    modes = case.get("modes", {})
    files = {name: text.encode() for name, text in case.get("files", {}).items()}
    files |= {name: base64.b64decode(text) for name, text in case.get("files_base64", {}).items()}
    assert set(modes) <= set(files)
    return Pipeline(case["command"], _input(case), files)


def _input(case: dict[str, Any]) -> bytes:
    if "input_base64" in case:
        return base64.b64decode(case["input_base64"])
    if "input_repeat" in case:
        return "".join(text * times for text, times in case["input_repeat"]).encode()
    return str(case.get("input", "")).encode()


# What a run gave, in the words of a case.


def _seen(case: dict[str, Any], result: Result) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    if not result.exit or "output" in case:
        seen["output"] = _lines(_output(case, result))
    if error := _error(result):
        seen["error"] = error
    if result.exit:
        seen["exit"] = result.exit
    if result.accounts():
        seen["accounts"] = "".join(f"{line}\n" for line in result.accounts())
    for name in ("late", "dead"):
        if records := result.side(name):
            seen[name] = _lines("".join(_letter(record) if name == "dead" else json.dumps(record) + "\n" for record in records))
    return seen


def _output(case: dict[str, Any], result: Result) -> str:
    if "output_file" not in case:
        return result.stdout.decode()
    data = (result.directory / case["output_file"]).read_bytes()
    if case["output_file"].endswith(".zst"):
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if case["output_file"].endswith(".gz"):
        data = gzip.decompress(data)
    return data.decode()


def _error(result: Result) -> str:
    """Standard error, less the summary."""
    text = "".join(line for line in result.stderr.splitlines(keepends=True) if not _SAID_ANYWAY.match(line))
    if result.form == "single":
        text = text.replace(INPUT, "standard input")
    return text.removeprefix("clickpipe: ")


def _lines(text: str) -> str:
    return "".join(sorted(re.findall(r"[^\n]*\n|[^\n]+$", text)))


def _letter(record: dict[str, Any]) -> str:
    raw = record["raw"]
    shown = raw if len(raw) <= _SHOWN else raw[:_SHOWN] + "…"
    return json.dumps({"raw": shown, "error": record["error"]}, ensure_ascii=False) + "\n"


# The comparison.


def _compare(case: dict[str, Any], result: Result) -> None:
    seen = _seen(case, result)
    assert seen.get("exit", 0) == case.get("exit", 0), f"exit code\n{result}"
    _compare_error(case.get("error", ""), seen.get("error", ""), result)
    for name in ("output", "accounts", "late", "dead"):
        if name in case or (name in seen and not case.get("exit")):
            plain = _members if result.form == "arrow" and name in ("output", "late") else str
            assert _rounded(plain(seen.get(name, ""))) == _rounded(plain(case.get(name, ""))), f"{name}\n{result}"


def _compare_error(said: str, seen: str, result: Result) -> None:
    if result.form == "fused" or not said:
        assert seen == said, f"error\n{result}"
        return
    first, *rest = said.splitlines()
    assert any(f"clickpipe: {line}".endswith(f": {first}") for line in seen.splitlines()), f"error\n{result}"
    for number, line in enumerate(rest):
        is_place = number + 1 < len(rest) and "^" in rest[number + 1]
        words = line.rsplit("^", 1)[-1].strip()
        assert is_place or words in seen, f"error: {words}\n{result}"


def _members(text: str) -> str:
    """Columns, unlike text, do not tell a null from a field that is not there, nor where white space stood."""
    if not text.lstrip().startswith("{"):
        return text
    records = [json.loads(line) for line in text.splitlines()]
    return "\n".join(json.dumps({name: value for name, value in record.items() if value is not None}) for record in records)


def _rounded(text: str) -> list[str]:
    """Lines in order, floats to twelve digits."""
    return sorted(_IS_FLOAT.sub(lambda match: f"{float(match[0]):.12g}", line) for line in text.split("\n"))


# Recording.

_KEYS = (
    "about",
    "command",
    "input",
    "input_base64",
    "input_repeat",
    "output_file",
    "output",
    "error",
    "exit",
    "accounts",
    "late",
    "dead",
    "files",
    "files_base64",
    "modes",
    "skip",
)


def _recorded(case: dict[str, Any], seen: dict[str, Any]) -> str:
    kept = {key: case[key] for key in _KEYS if key in case and key not in ("output", "error", "exit", "accounts", "late", "dead")}
    whole = kept | seen
    return "".join(_said(key, whole[key]) for key in _KEYS if key in whole)


def _said(key: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"\n[{key}]\n" + "".join(f"{json.dumps(name)} = {_value(item)}\n" for name, item in value.items())
    return f"{key} = {_value(value)}\n"


def _value(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if "\n" not in value or "'''" in value or re.search(r"[\0-\x08\x0b-\x1f\x7f\ufeff]", value) or value.endswith("'"):
        return json.dumps(value, ensure_ascii="\ufeff" in value)
    return f"'''\n{value}'''"
