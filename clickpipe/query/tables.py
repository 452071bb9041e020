"""What can be queried, by name: views, archives and logs.

clicks            the archive and the view of this name as one table: of rows of one key the one with the highest rev counts,
                  and rows that the archive does not have yet come from the view; where there is neither, the log
"view:clicks"     one of them alone: an address in double quotes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from clickpipe.errors import PlanError, near
from clickpipe.store import archives, logs, views

if TYPE_CHECKING:
    from clickpipe.store.viewread import ViewReader

KINDS = ("view", "archive", "log")
NAMES: Mapping[str, Callable[[], list[str]]] = {"view": views.names, "archive": archives.names, "log": logs.names}


@dataclass(frozen=True)
class Table:
    """A name in a query and the stores that stand for it, of KINDS."""

    name: str
    of: str  # what the stores are called
    kinds: tuple[str, ...]

    def version(self) -> str:
        """Another one whenever an answer could be another."""
        return " ".join(f"{kind} {_version(kind, self.of)}" for kind in self.kinds)


def known() -> dict[str, tuple[str, ...]]:
    """Names, and which kinds of stores are called so."""
    by_kind = {kind: set(NAMES[kind]()) for kind in KINDS}
    return {name: tuple(kind for kind in KINDS if name in by_kind[kind]) for name in sorted(set().union(*by_kind.values()))}


def find(name: str) -> Table:
    """Raises PlanError with the nearest name, and all there are."""
    kind, colon, of = name.partition(":")
    every = known()
    if colon and kind in KINDS and kind in every.get(of, ()):
        return Table(name, of, (kind,))
    if name in every:
        hot_and_cold = tuple(one for one in every[name] if one != "log")
        return Table(name, name, hot_and_cold or ("log",))
    raise unknown(name)


def unknown(name: str) -> PlanError:
    every = known()
    none = "there is none yet: sink view:NAME, archive:NAME or log:NAME makes one"
    notes = [f"there are: {', '.join(every)}"] if every else [none]
    kind, _, of = name.partition(":")
    if kind in every.get(of, ()):
        hint = "an address stands in double quotes"
        return PlanError(f'"{name}" stands in single quotes, which are for text', hint=hint, word=name)
    return PlanError(f'no table "{name}"', hint=near(name.partition(":")[2] or name, list(every)), notes=notes, word=name)


def _version(kind: str, name: str) -> str:
    if kind == "view":
        reader = view_reader(name)
        try:
            return reader.version()
        finally:
            reader.close()
    return str(archives.Archive(name).version() if kind == "archive" else logs.Log(name).version())


def view_reader(name: str) -> ViewReader:
    from clickpipe.store.viewread import ViewReader

    return ViewReader(name)


def scan(table: Table, notes: list[str] | None = None) -> pl.LazyFrame:
    """All its rows; only what is asked of them is read. `notes` takes what a person should know when all was read."""
    from clickpipe.query import scans

    if len(table.kinds) == 2:
        return scans.hot_and_cold(table.of)
    scan_of = {"view": scans.view, "archive": scans.archive, "log": scans.log}[table.kinds[0]]
    return scan_of(table.of, [] if notes is None else notes)
