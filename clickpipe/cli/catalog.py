"""All commands by name: the steps, and the commands of our own folder."""

from __future__ import annotations

from importlib import import_module

import click

from clickpipe.core.catalog import Catalog

_STEPS = Catalog("clickpipe.operators", "step")
_COMMANDS = Catalog("clickpipe.cli.commands", "command")
_ORDER = (
    "generate",
    "ingest",
    "filter",
    "select",
    "dedup",
    "sort",
    "sessionize",
    "window",
    "aggregate",
    "sketch",
    "rollup",
    "limit",
    "sink",
)


def names() -> list[str]:
    return [*step_names(), *_COMMANDS.names()]


def step_names() -> list[str]:
    """Steps in the order in which a pipeline has them, then the rest."""
    known = _STEPS.names()
    return [name for name in _ORDER if name in known] + [name for name in known if name not in _ORDER]


def has(name: str) -> bool:
    return name in _COMMANDS.names() or _STEPS.has(name)


def gives_stream(words: list[str]) -> bool:
    """Whether these words run a step that writes a stream: not generate, whose lines are raw, and no last sink."""
    if not words or not _STEPS.has(words[0]) or words[0] == "generate":
        return False
    if any(word.split("=")[0] == "--to" for word in words):
        return False  # it goes to a socket
    return words[0] != "sink" or "--pass" in words


def summary(name: str) -> str:
    """The first line of its help, read without importing it."""
    return (_COMMANDS if name in _COMMANDS.names() else _STEPS).summary(name)


def summaries() -> list[tuple[str, list[tuple[str, str]]]]:
    """The sections of the help text, read from the modules' docstrings without importing them."""
    return [
        ("Steps", [(name, _STEPS.summary(name)) for name in step_names()]),
        ("Commands", [(name, _COMMANDS.summary(name)) for name in _COMMANDS.names()]),
    ]


def find(name: str) -> click.Command | None:
    from clickpipe.lazy import polars_on_demand

    polars_on_demand()
    if name in _COMMANDS.names():
        command: click.Command = import_module(f"clickpipe.cli.commands.{name.replace('-', '_')}").command
        return command
    if _STEPS.has(name):
        from clickpipe.cli.step import step_command

        return step_command(name)
    return None
