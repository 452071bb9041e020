"""What is known of a stream's records: column names, types, event time, windows.

Types, as the stream line spells them (see clickpipe-stream.5):

    int     64-bit integer            float   finite double
    bool    true or false             str     text
    json    anything, kept as JSON    time    epoch milliseconds, UTC, written by us
    sketch  a sketch, its bytes as text in base64 (see clickpipe-sketch.5)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from clickpipe.errors import DataError, PlanError, near

TYPES = ("int", "float", "bool", "str", "json", "time", "sketch")
NUMBERS = ("int", "float")
MOST_WINDOWS = 100_000  # that a record can stand in
WINDOWS = ("tumble", "hop", "session", "cumulate", "count")
_LONGEST = 1 << 42  # milliseconds, more than a hundred years; records

# Columns of our own inside a process, never written: their names cannot clash with a field's,
# because no wire format lets one begin with NUL and be declared.
HIDDEN = "\0"
RESERVED = ("_time", "_mark")


def can_be_named(name: str) -> bool:
    """Whether a column can have this name. Polars takes `*` and `^…$` for patterns, also where names are data."""
    return not name.startswith(HIDDEN) and name != "*" and not (name.startswith("^") and name.endswith("$"))


def check_new(name: str, word: str) -> None:
    """Raises PlanError unless a step may make a column of this name."""
    if name in RESERVED or not can_be_named(name):
        raise PlanError(f'a column cannot be called "{name}"', word=word)


def declared_types(text: str) -> dict[str, str]:
    """`ts:int,page:str` -> types by name. Raises PlanError."""
    types: dict[str, str] = {}
    for part in text.split(","):
        name, colon, kind = part.strip().rpartition(":")
        if not colon or kind not in TYPES or kind == "time":
            known = ", ".join(t for t in TYPES if t != "time")
            raise PlanError(f'"{part.strip()}" is not NAME:TYPE; types are {known}', word=text)
        check_new(name, text)
        types[name] = kind
    return types


def dtype(kind: str) -> Any:
    """The Polars type that holds a column of this type."""
    return {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "time": pl.Int64}.get(kind, pl.String)


def table_dtype(kind: str) -> Any:
    """The Polars type in which files and queries hold it: there a time is an instant."""
    return pl.Datetime("ms", "UTC") if kind == "time" else dtype(kind)


def kind_of(type_: Any) -> str:
    """The type of a column that Polars computed."""
    if type_.is_integer():
        return "int"
    if type_.is_float() or type_.is_decimal():
        return "float"
    return {pl.Boolean: "bool", pl.String: "str"}.get(type_.base_type(), "json")


@dataclass(frozen=True)
class TimeColumn:
    """Which column is event time. Unit: s, ms, us, ns, or auto (told apart by magnitude)."""

    name: str
    unit: str = "ms"


@dataclass(frozen=True)
class WindowInfo:
    """The windows that records were assigned to. Unit: milliseconds; of count windows: records.

    `slide`: how far apart they begin; of cumulating ones: end. Of sessions `size` is the gap.
    """

    kind: str
    size: int
    slide: int
    offset: int = 0
    zone: str | None = None  # whose calendar they follow
    lateness: int = 0  # how long they are corrected after they fired
    by: tuple[str, ...] = ()  # sessions and counts: of what
    longest: int | None = None  # sessions: no longer than this

    def columns(self) -> tuple[str, ...]:
        """By which columns it is said in which windows a record stands."""
        return ("window_start", "window_end", *(("window_number",) if self.kind == "count" else ()), *self.by)

    def to_json(self) -> dict[str, Any]:
        said = dataclasses.asdict(self)
        return {name: value for name, value in said.items() if value or name in ("kind", "size", "slide")}

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> WindowInfo:
        """Raises ValueError for windows that no step makes."""
        info = WindowInfo(
            str(said["kind"]),
            int(said["size"]),
            int(said["slide"]),
            int(said.get("offset", 0)),
            None if said.get("zone") is None else str(ZoneInfo(str(said["zone"]))),
            int(said.get("lateness", 0)),
            tuple(map(str, said.get("by", ()))),
            None if said.get("longest") is None else int(said["longest"]),
        )
        lengths = (info.size, info.slide, info.lateness, info.longest or 0)
        are_lengths = info.size > 0 and info.slide > 0 and all(0 <= one <= _LONGEST for one in (*lengths, abs(info.offset)))
        if info.kind not in WINDOWS or not are_lengths or info.size > info.slide * MOST_WINDOWS:
            raise ValueError(f"no such windows: {said}")
        return info


@dataclass(frozen=True)
class Merging:
    """How the values of a result's column become one: by a function, or made anew from other columns.

    `of`: the function that gave them; `by`: the one that merges them, none: they do not merge; `pieces`: the columns that the
    value is made from, by what the function calls them; `why`: what else keeps them from it.
    """

    of: str
    by: str = ""
    pieces: Mapping[str, str] = field(default_factory=dict)
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value}

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> Merging:
        pieces = {str(piece): str(name) for piece, name in said.get("pieces", {}).items()}
        return Merging(str(said["of"]), str(said.get("by", "")), pieces, str(said.get("why", "")))


@dataclass(frozen=True)
class Columns:
    """The columns of a stream, in order, with what else is known of them."""

    types: Mapping[str, str] = field(default_factory=dict)
    declared: frozenset[str] = frozenset()  # types a person fixed: never widened
    time: TimeColumn | None = None
    window: WindowInfo | None = None
    key: tuple[str, ...] = ()  # columns in which no two rows of a result are equal; none: not known
    is_revised: bool = False  # rows of a result come again when they change
    idles: bool = False  # the watermark may move with the wall clock
    results_of: WindowInfo | None = None  # rows of an aggregate: they come when such a window has ended
    merges: Mapping[str, Merging] = field(default_factory=dict)  # rows of an aggregate: how its values become those of more

    def names(self) -> list[str]:
        return list(self.types)

    def need(self, names: Iterable[str], because: str) -> None:
        """Raise PlanError unless all names exist."""
        for name in names:
            if name not in self.types:
                raise self.unknown(name, because)

    def unknown(self, name: str, because: str, giver: str = "the step before gives") -> PlanError:
        notes = [f"{giver}: {', '.join(self.types) or 'no columns'}"]
        hint = near(name, self.names())
        is_result = bool(self.key or self.results_of)  # rows of an aggregate: no field of the input comes through
        if not hint and name.isidentifier() and not is_result:
            only_later = "a field that appears only later must be declared, with all others that are used"
            takes_no_others = "ingest --columns takes no other fields than those that it names"
            notes.append(takes_no_others if self.declared else f"{only_later}: ingest --columns '{name}:str,…'")
        return PlanError(f'no column "{name}"{because}', hint=hint, notes=notes, word=name)

    def add(self, types: Mapping[str, str]) -> Columns:
        return replace(self, types={**self.types, **types})

    def only(self, types: Mapping[str, str]) -> Columns:
        """These columns and no others; event time and window stay while their columns do."""
        time = self.time if self.time and self.time.name in types else None
        window = self.window if self.window and set(self.window.columns()) <= set(types) else None
        key = self.key if set(self.key) <= set(types) else ()
        merges = {name: merging for name, merging in self.merges.items() if name in types}
        more = (self.is_revised, self.idles, self.results_of, merges)
        return Columns(types, self.declared & frozenset(types), time, window, key, *more)

    def schema(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        chosen = self.types if names is None else names
        return {name: dtype(self.types[name]) for name in chosen}

    def to_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {"columns": dict(self.types)}
        if self.declared:
            said["declared"] = sorted(self.declared)
        if self.time:
            said["time"] = {"column": self.time.name, "unit": self.time.unit}
        if self.window:
            said["window"] = self.window.to_json()
        if self.results_of:
            said["results_of"] = self.results_of.to_json()
        if self.key:
            said["key"] = list(self.key)
        if self.merges:
            said["merges"] = {name: merging.to_json() for name, merging in self.merges.items()}
        flags = {"revised": self.is_revised, "idles": self.idles}
        return said | {name: True for name, flag in flags.items() if flag}

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> Columns:
        """Raises DataError for a stream line that is not one of ours."""
        try:
            types = {str(name): str(kind) for name, kind in said["columns"].items()}
            time = said.get("time")
            window = said.get("window")
            columns = Columns(
                types,
                frozenset(said.get("declared", ())),
                TimeColumn(str(time["column"]), str(time["unit"])) if time else None,
                WindowInfo.from_json(window) if window else None,
                tuple(map(str, said.get("key", ()))),
                said.get("revised") is True,
                said.get("idles") is True,
                WindowInfo.from_json(said["results_of"]) if said.get("results_of") else None,
                {str(name): Merging.from_json(merging) for name, merging in said.get("merges", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            raise DataError(f"the stream line is damaged: {error!r}") from None
        for name, kind in types.items():
            if not can_be_named(name):
                raise DataError(f'the stream line has a column "{name}", which cannot be')
            if kind not in TYPES:
                raise DataError(f'the stream line gives column "{name}" the unknown type "{kind}"')
        return columns
