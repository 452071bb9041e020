"""What may stand where a value is wanted: names that there are, words of a recipe, columns, functions. Files are in places.py."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from clickpipe.cli.completing.offering import MOMENT, Completer, offered, within
from clickpipe.cli.completing.places import stored

if TYPE_CHECKING:
    from clickpipe.cli.completing.shells import Item

# Names.


@offered
def pipelines(_: click.Context, __: str) -> Iterable[str]:
    from clickpipe.state import samples
    from clickpipe.state.home import home, is_name

    folder = os.path.join(home(), "pipelines")
    saved = filter(is_name, os.listdir(folder)) if os.path.isdir(folder) else ()
    return sorted({*saved, *samples.pipelines()})


@offered
def savepoints(ctx: click.Context, _: str) -> Iterable[str]:
    from clickpipe.state.directory import StateDirectory
    from clickpipe.state.home import pipeline_directory
    from clickpipe.state.savepoints import Savepoints

    return Savepoints(StateDirectory(pipeline_directory(ctx.params["name"]))).names()


@offered
def views(_: click.Context, __: str) -> Iterable[str]:
    return stored("view")


@offered
def archives(_: click.Context, __: str) -> Iterable[str]:
    return stored("archive")


@offered
def logs(_: click.Context, __: str) -> Iterable[str]:
    return stored("log")


@offered
def tables(_: click.Context, __: str) -> Iterable[str]:
    return sorted({name for kind in ("view", "archive", "log") for name in stored(kind)})


@offered
def commands(_: click.Context, __: str) -> Iterable[str]:
    from clickpipe.cli import catalog

    return catalog.names()


@offered
def steps_of(ctx: click.Context, _: str) -> Iterable[str]:
    from clickpipe.state import samples

    return list(dict.fromkeys(step.name for one in samples.read(ctx.params["pipeline"]) for step in one.steps))


@offered
def zones(_: click.Context, __: str) -> Iterable[str]:
    from zoneinfo import available_timezones

    return sorted(available_timezones())


@offered
def kinds(_: click.Context, __: str) -> Iterable[str]:
    from clickpipe.columns import WINDOWS

    return WINDOWS


@offered
def formats(_: click.Context, __: str) -> Iterable[str]:
    from clickpipe.core.catalog import Catalog

    return Catalog("clickpipe.formats", "format").names()


# Words of a recipe, and of options.


@offered
def variables(ctx: click.Context, _: str) -> Iterable[str]:
    """Of the recipe that was named. The line is not whole, so what is known of its words is what was typed."""
    import tomllib

    named = [word for word in ctx.obj.words if word.endswith(".toml")]
    with open(named[-1], encoding="utf-8") as file:
        text = file.read()
    used = re.findall(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", text)
    return [f"{name}=" for name in dict.fromkeys([*tomllib.loads(text).get("set", {}), *used])]


def alternatives(metavar: str) -> Completer | None:
    """Of final|update|early=D what can be typed."""
    words = [word for part in metavar.split("|") if (word := "".join(re.findall(r"^[a-z]{2,}=?", part)))]
    return offered(lambda *_: words) if "|" in metavar and words else None


# Columns.


@offered
def columns(ctx: click.Context, incomplete: str) -> Iterable[str]:
    """As a,b: the last one; none twice."""
    from clickpipe.cli.completing.columns import columns_at

    begin, comma, _ = incomplete.rpartition(",")
    given = begin.split(",") if comma else []
    return [f"{begin}{comma}{name}" for name in columns_at(ctx) if name not in given and "," not in name]


@offered
def column(ctx: click.Context, _: str) -> Iterable[str]:
    from clickpipe.cli.completing.columns import columns_at

    return columns_at(ctx)


def calls(package: str) -> Completer:
    """NAME=, then a function, then a column in its parentheses."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[Item]:
        from click.shell_completion import CompletionItem

        from clickpipe.cli.completing.shells import CALL

        words = within(MOMENT, lambda: list(_calls(package, ctx, incomplete))) or []
        return [CompletionItem(word, CALL) for word in words if word.startswith(incomplete)]

    return complete


def _calls(package: str, ctx: click.Context, incomplete: str) -> Iterator[str]:
    from clickpipe.cli.completing.columns import columns_at
    from clickpipe.core.catalog import Catalog

    name, equals, call = incomplete.partition("=")
    if not equals:
        return
    function, opened, _ = call.partition("(")
    if not opened:
        yield from (f"{name}={one}(" for one in Catalog(package, "", dash="_").names())
    else:
        yield from (f"{name}={function}({one})" for one in ("*", *columns_at(ctx)) if one.isidentifier() or one == "*")
