"""Files and addresses that are offered: paths, kinds of sources and sinks, and the names behind a kind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import click

from clickpipe.cli.completing.offering import offered

_SCHEMES = {"given": "", "tcp": "tcp://", "file": "", "stdin": "", "stdout": ""}  # the others are called like their modules
_KEPT = ("log", "view", "archive")


def stored(kind: str) -> list[str]:
    """The views, archives or logs that there are."""
    from clickpipe.state.home import home

    folder, suffix = os.path.join(home(), f"{kind}s"), ".sqlite" if kind == "view" else ""
    found = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name.removesuffix(suffix) for name in found if name.endswith(suffix) and not name.startswith("."))


def _files(incomplete: str, suffixes: tuple[str, ...] = ()) -> Iterator[str]:
    """Folders end in a slash. One that begins with a dash would be an option."""
    folder, name = os.path.split(incomplete)
    begin = incomplete[: len(incomplete) - len(name)]
    with os.scandir(os.path.expanduser(folder) or ".") as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            if not entry.name.startswith(name) or (entry.name.startswith(".") and not name):
                continue
            path = begin + entry.name if begin or not entry.name.startswith("-") else f"./{entry.name}"
            if entry.is_dir():
                yield f"{path}/"
            elif entry.name.endswith(suffixes or ("",)):
                yield path


@offered
def files(_: click.Context, incomplete: str) -> Iterable[str]:
    return _files(incomplete)


@offered
def recipes(_: click.Context, incomplete: str) -> Iterable[str]:
    return _files(incomplete, (".toml",))


@offered
def sources(_: click.Context, incomplete: str) -> Iterable[str]:
    return _addresses("clickpipe.sources", incomplete)


@offered
def sinks(_: click.Context, incomplete: str) -> Iterable[str]:
    return _addresses("clickpipe.sinks", incomplete)


@offered
def sockets(_: click.Context, __: str) -> Iterable[str]:
    return ("tcp://", "unix:")


@offered
def spools(_: click.Context, incomplete: str) -> Iterable[str]:
    return _names_at("log") if incomplete.startswith("log:") else ("log:",)


def _addresses(package: str, incomplete: str) -> Iterator[str]:
    """Kinds, names behind a kind, files."""
    from clickpipe.core.catalog import Catalog

    kind, colon, _ = incomplete.partition(":")
    if colon and kind in _KEPT:
        yield from _names_at(kind)
        return
    kinds = [_SCHEMES.get(name, f"{name}:") for name in Catalog(package, "").names()]
    yield from filter(None, kinds)
    yield from _files(incomplete)


def _names_at(kind: str) -> list[str]:
    return [f"{kind}:{name}" for name in stored(kind)]
