"""Options, described once: in the field of the step that has them.

    size: Duration = argument("length of a window", example="1m")
    slide: Duration | None = option("a new window starts this often", default=None, example="10s")

Flags, help, man pages and the check of recipes are made from this description.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any

Names = tuple[str, ...]  # column names, given as a,b or a b


class Extent(int):
    """A number of records, or a Duration."""


class Duration(Extent):
    """Milliseconds. Written 500ms, 5s, 1m, 1h, 1d."""


class Workers(int):
    """A number of processes. Written 4, or auto: as many as the load takes."""


AUTO = Workers(-1)  # which nobody can write


class Size(int):
    """Bytes. Written 64KiB, 8MiB."""


_REQUIRED = dataclasses.MISSING


@dataclass(frozen=True)
class Option:
    """One option as a person sees it."""

    name: str  # the field's; the flag is --name with dashes
    text: str
    type: Any
    default: Any
    is_argument: bool
    is_many: bool
    example: str
    choices: tuple[str, ...]
    aliases: tuple[str, ...]
    metavar: str

    @property
    def is_required(self) -> bool:
        return self.default is _REQUIRED

    @property
    def flag(self) -> str:
        return "--" + self.name.rstrip("_").replace("_", "-")


def option(
    text: str,
    *,
    default: Any = _REQUIRED,
    example: str = "",
    choices: tuple[str, ...] = (),
    aliases: tuple[str, ...] = (),
    metavar: str = "",
) -> Any:
    """A field that is given as --name VALUE."""
    return _field(text, default, example=example, choices=choices, aliases=aliases, metavar=metavar, is_argument=False)


def argument(text: str, *, default: Any = _REQUIRED, example: str = "", choices: tuple[str, ...] = (), metavar: str = "") -> Any:
    """A field that is given by its place."""
    return _field(text, default, example=example, choices=choices, aliases=(), metavar=metavar, is_argument=True)


def _field(text: str, default: Any, **more: Any) -> Any:
    return dataclasses.field(default=default, metadata={"text": text, **more}, kw_only=False)


def options(step: type) -> list[Option]:
    """The options of a step's class, in the order of its fields."""
    hints = typing.get_type_hints(step)
    return [_described(field, hints[field.name]) for field in dataclasses.fields(step) if "text" in field.metadata]


def _described(field: dataclasses.Field[Any], hint: Any) -> Option:
    type_, is_many = _plain(hint)
    said = field.metadata
    return Option(
        field.name,
        said["text"],
        type_,
        field.default,
        said["is_argument"],
        is_many,
        said["example"],
        said["choices"],
        said["aliases"],
        said["metavar"],
    )


def _plain(hint: Any) -> tuple[Any, bool]:
    """`X | None` is an X; a tuple of X is many X."""
    if isinstance(hint, types.UnionType):
        hint = next(arm for arm in typing.get_args(hint) if arm is not type(None))
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False
