"""Words -> steps. The one place that knows the library which parses command lines.

A step's options are its fields (core/option.py); from them come flags, help and man pages, in a
shell and in a recipe alike.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from clickpipe.core.catalog import Catalog
from clickpipe.core.option import AUTO, Duration, Extent, Option, Size, Workers, options
from clickpipe.core.step import Step
from clickpipe.core.units import format_duration, parse_duration, parse_size
from clickpipe.errors import PlanError, Unsupported

STEPS = Catalog("clickpipe.operators", "step")
WIDTH = 100


class _Parsed(click.ParamType[Any]):
    """A value that one of our own functions reads."""

    def __init__(self, name: str, parse: Callable[[str], int], kind: Callable[[int], int]) -> None:
        self.name, self._parse, self._kind = name, parse, kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return self._kind(value)
        try:
            return self._kind(self._parse(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Names(click.ParamType[Any]):
    """Columns, as a,b."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def _as_it_is(value: int) -> int:
    return value


def parse_extent(text: str) -> Extent:
    """A number of records, or a duration. Raises ValueError."""
    return Extent(text) if text.isascii() and text.isdigit() and len(text) < 16 else Duration(parse_duration(text))


def parse_workers(text: str) -> Workers:
    """A number of processes, or auto. Raises ValueError."""
    if text == "auto":
        return AUTO
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f'"{text}" is neither a number of workers nor auto')
    return Workers(text)


DURATION = _Parsed("duration", parse_duration, Duration)
SIZE = _Parsed("size", parse_size, Size)
_TYPES: dict[Any, click.ParamType[Any]] = {
    Duration: DURATION,
    Extent: _Parsed("duration", parse_extent, _as_it_is),
    Size: SIZE,
    Workers: _Parsed("workers", parse_workers, Workers),
    int: click.INT,
    float: click.FLOAT,
    str: click.STRING,
    bool: click.BOOL,
}


class StepCommand(click.Command):
    """The command of one step. Help in our order: what it is, how it is called, options, examples."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.epilog:
            formatter.write_paragraph()
            for line in self.epilog.splitlines():
                formatter.write(f"{line}\n")

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        for line in (self.help or "").splitlines():
            formatter.write(f"  {line}\n" if line else "\n")


def command(name: str, act: Callable[[Step], None] | None = None) -> click.Command:
    """The command line of a step; `act` is called with the step that was said."""
    part = STEPS.find(name, Step)
    module = __import__(part.__module__, fromlist=["__doc__"])
    described = options(part)

    def say(**values: Any) -> Any:
        step = part(**{key: _given(value) for key, value in values.items()})
        return act(step) if act else step

    return StepCommand(
        name,
        params=[_parameter(option) for option in described],
        callback=say,
        help=(module.__doc__ or "").strip(),
        epilog=part.epilog,
        context_settings={"max_content_width": WIDTH, "help_option_names": ["-h", "--help"]},
    )


def parse_step(name: str, words: Sequence[str]) -> Step:
    """The step that these words say. Raises PlanError."""
    part = STEPS.find(name, Step)
    refuse_later(part, words)
    parser = command(name)
    try:
        with parser.make_context(name, list(words), max_content_width=WIDTH) as context:
            step = parser.invoke(context)
    except click.ClickException as error:
        raise_plan_error(error)
    except click.exceptions.Exit:
        raise PlanError("--help has no place in a pipeline", word="--help") from None
    assert isinstance(step, Step)
    return step


def refuse_later(part: type[Step], words: Sequence[str]) -> None:
    """Raises Unsupported for an option, or one with a value, that this version names and does not have."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        flag, _, value = word.partition("=")
        for said in {flag, f"{flag} {value or following}"} & set(part.later):
            kind, _, reason = part.later[said].rpartition(": ")
            raise Unsupported(kind or "notimpl", said, reason, word=word)


def raise_plan_error(error: click.ClickException) -> NoReturn:
    message = error.format_message()
    what = message[0].lower() + message[1:].rstrip(".")
    word = ""
    if isinstance(error, click.NoSuchOption):
        word = error.option_name
    elif isinstance(error, click.BadParameter) and (quoted := re.search(r"""(["'])(.+?)\1 is """, what)):
        word = quoted[2]
    elif isinstance(error, click.UsageError) and "extra argument" in what:
        word = message.split("(", 1)[-1].rstrip(")").split()[0]
    raise PlanError(what, hint=hint_of(error), word=word) from None


def hint_of(error: click.ClickException) -> str:
    """Which step has an option that this one has not."""
    if not isinstance(error, click.NoSuchOption):
        return ""
    owners = [name for name in STEPS.names() if error.option_name in _flags(STEPS.find(name, Step))]
    return f"it is an option of {' and '.join(owners)}" if owners else ""


def _flags(part: type[Step]) -> set[str]:
    return {flag for option in options(part) if not option.is_argument for flag in (option.flag, *option.aliases)}


def _given(value: Any) -> Any:
    """Repeated --drop a,b --drop c are one list."""
    if isinstance(value, (list, tuple)):
        return tuple(part for item in value for part in (item if isinstance(item, tuple) else (item,)))
    return value


def _parameter(option: Option) -> click.Parameter:
    type_: click.ParamType[Any] = click.Choice(option.choices) if option.choices else _TYPES[option.type]
    if option.is_argument:
        return _argument(option, type_)
    if option.type is bool:
        return click.Option([option.flag, option.name], is_flag=True, default=False, help=option.text)
    flags = [option.flag, *option.aliases, option.name]
    names = option.is_many and option.metavar.startswith("COL")
    more: dict[str, Any] = {} if option.is_required else {"default": None if option.is_many else option.default}
    return click.Option(
        flags,
        type=_Names() if names else type_,
        multiple=option.is_many,
        required=option.is_required,
        metavar=option.metavar or (None if option.choices else _metavar(option)),
        help=_help(option),
        **more,
    )


def _argument(option: Option, type_: click.ParamType[Any]) -> click.Argument:
    required = option.is_required and not option.is_many
    more = {} if option.is_required or option.is_many else {"default": option.default}
    return click.Argument(
        [option.name],
        type=type_,
        nargs=-1 if option.is_many else 1,
        required=required,
        help=_help(option),
        **more,
        metavar=f"[{option.metavar}]..." if option.is_many else option.metavar or option.name.upper(),
    )


def _metavar(option: Option) -> str:
    return {Duration: "DURATION", Size: "SIZE", int: "N", float: "X"}.get(option.type, option.name.upper())


def _help(option: Option) -> str:
    default = option.default
    notes = []
    if default not in (None, (), dataclasses.MISSING):
        notes.append(f"default {format_duration(default) if isinstance(default, Duration) else _size(default)}")
    if option.example:
        notes.append(f"e.g. {option.example}")
    return option.text + (f"  [{'; '.join(notes)}]" if notes else "")


def _size(value: Any) -> str:
    return f"{value >> 20}MiB" if isinstance(value, Size) else str(value)
