"""Recipes: pipelines that a person saved, in TOML. See clickpipe-recipe.5."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clickpipe.errors import PlanError, near

_KEYS = ("about", "pipeline", "set", "test")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class Recipe:
    """`pipeline` has its variables filled in; `first_line` is where it begins in the file."""

    name: str
    path: str
    about: str
    pipeline: str
    first_line: int


def read_recipe(path: str, values: Mapping[str, str]) -> Recipe:
    """Raises PlanError with path and line. Its tests are read by plan/cases.py."""
    text, said = read_toml(path)
    for key in said:
        if key not in _KEYS:
            raise PlanError(f'{path}: unknown key "{key}"', hint=near(key, _KEYS), notes=[f"keys are: {', '.join(_KEYS)}"])
    pipeline = said.get("pipeline")
    if not isinstance(pipeline, str) or not pipeline.strip():
        raise PlanError(f"{path}: no pipeline", hint='pipeline = """ingest … | … | sink -"""')
    known = said.get("set", {})
    if not isinstance(known, dict):
        raise PlanError(f"{path}: set must be a table of names and values")
    defaults = {str(key): str(value) for key, value in known.items()}
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", os.path.splitext(os.path.basename(path))[0]).lstrip(".")[:100] or "recipe"
    return Recipe(name, path, str(said.get("about", "")), fill_in(pipeline, defaults, values, path), _first_line(text))


def read_toml(path: str) -> tuple[str, dict[str, Any]]:
    """Its text, and what that says. Raises PlanError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        return text, tomllib.loads(text)
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}", word=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: not TOML: {error}") from None


def fill_in(pipeline: str, defaults: Mapping[str, str], values: Mapping[str, str], where: str) -> str:
    """${NAME} -> its value, from --set or the recipe's own [set]. Raises PlanError for one that has none."""
    every = {**defaults, **values}
    used = set(_VARIABLE.findall(pipeline))
    for name in used - set(every):
        raise PlanError(f"{where}: ${{{name}}} has no value", hint=f"--set {name}=VALUE")
    for name in set(values) - used:
        raise PlanError(f"{where}: --set {name}: the pipeline has no ${{{name}}}", hint=near(name, sorted(used)))
    return _VARIABLE.sub(lambda match: every[match[1]], pipeline)


def _first_line(text: str) -> int:
    """The number of the line on which the pipeline's first character stands."""
    match = re.search(r"^\s*pipeline\s*=\s*(\"\"\"|'''|\"|')(\r?\n)?", text, re.MULTILINE)
    return text.count("\n", 0, match.end()) + 1 if match else 1
