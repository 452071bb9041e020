"""Manual pages in roff, made from the commands themselves, so that they cannot say anything else than --help."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import click

from clickpipe import __version__
from clickpipe.cli import catalog
from clickpipe.core.option import options
from clickpipe.core.step import Step

_SPECIAL = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"}
_LABEL = re.compile(r"(Shape|Unit|Order|Memory|Guarantee|Error|Raises|Source): ")
_PROGRAM = "clickpipe"
_EXIT = (
    ("0", "done, and the accounts balance"),
    ("2", "the command line, a recipe or an expression is wrong"),
    ("65", "the data is wrong, or more of it than --max-errors allows"),
    ("70", "a fault of clickpipe"),
    ("74", "a disk failed or is full"),
    ("75", "something outside failed, or the step before did: try again"),
    ("130, 143", "stopped by SIGINT, by SIGTERM"),
)


def page(about: click.Context) -> str:
    """The manual page of the command that a context is for, section 1."""
    command = about.command
    parts = [_title(_dashed(about)), *_name(about, command), *_synopsis(about, command), *_description(command)]
    if isinstance(command, click.Group):
        parts += _commands()
    parts += [*_options(about, command), *_examples(about, command), *_exit(), *_see_also(_dashed(about))]
    return "\n".join(parts)


def escaped(text: str) -> str:
    """Text as roff prints it: nothing in it is a request, and what is not ASCII is spelled out."""
    plain = "".join(_SPECIAL.get(c) or (c if c.isascii() else f"\\[u{ord(c):04X}]") for c in text)
    return "\n".join(rf"\&{line}" if line.startswith(".") else line for line in plain.split("\n"))


def _dashed(about: click.Context) -> str:
    """`clickpipe-window`"""
    return about.command_path.replace(" ", "-")


def _title(name: str) -> str:
    return f'.TH {escaped(name.upper())} 1 "" "{_PROGRAM} {__version__}" "{_PROGRAM} manual"'


def _name(about: click.Context, command: click.Command) -> Iterator[str]:
    summary = (command.help or "").strip().split("\n", 1)[0].rstrip(".")
    yield from (".SH NAME", rf"{escaped(_dashed(about))} \- {escaped(summary[:1].lower() + summary[1:])}")


def _synopsis(about: click.Context, command: click.Command) -> Iterator[str]:
    yield from (".SH SYNOPSIS", f".B {escaped(about.command_path)}", escaped(" ".join(command.collect_usage_pieces(about))))


def _description(command: click.Command) -> Iterator[str]:
    """The docstring: a paragraph at each blank line, and at each word such as Memory."""
    yield ".SH DESCRIPTION"
    text = (command.help or "").strip().split("\n")
    for number, line in enumerate(text):
        if number and line and (_LABEL.match(line) or not text[number - 1]):
            yield ".PP"
        if line:
            yield escaped(line.strip())


def _commands() -> Iterator[str]:
    for title, rows in catalog.summaries():
        yield f".SH {escaped(title.upper())}"
        yield from _list(rows)


def _options(about: click.Context, command: click.Command) -> Iterator[str]:
    yield ".SH OPTIONS"
    yield from _list(_arguments(command))
    flags = [param for param in command.get_params(about) if isinstance(param, click.Option)]
    yield from _list(record for flag in flags if (record := flag.get_help_record(about)))


def _arguments(command: click.Command) -> Iterator[tuple[str, str]]:
    """What is given by its place, which the help text of the command line's library leaves out."""
    step = getattr(command, "step", None)
    if isinstance(step, type) and issubclass(step, Step):
        yield from ((option.metavar or option.name.upper(), option.text) for option in options(step) if option.is_argument)


def _list(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, text in rows:
        yield from (".TP", f".B {escaped(term)}", escaped(text))


def _epilog(about: click.Context, command: click.Command) -> tuple[str, str]:
    """The end of the help text: notes, and examples as they stand."""
    formatter = click.HelpFormatter()
    command.format_epilog(about, formatter)
    notes, found, examples = formatter.getvalue().strip("\n").partition("Examples:\n")
    return (notes, examples) if found else ("", notes)


def _examples(about: click.Context, command: click.Command) -> Iterator[str]:
    notes, examples = _epilog(about, command)
    if notes:
        yield from (".SH NOTES", escaped(notes.strip()))
    if examples:
        yield from (".SH EXAMPLES", ".EX", escaped(examples), ".EE")


def _exit() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    yield from _list(_EXIT)


def _see_also(name: str) -> Iterator[str]:
    yield ".SH SEE ALSO"
    pages = [(f"{_PROGRAM}-{other}", 1) for other in catalog.names()]
    every = [(_PROGRAM, 1), *pages, (f"{_PROGRAM}-stream", 5), (f"{_PROGRAM}-recipe", 5), (f"{_PROGRAM}-design", 7)]
    others = [one for one in every if one[0] != name]
    for other, section in others:
        yield f".BR {escaped(other)} ({section})" + ("," if (other, section) != others[-1] else "")
