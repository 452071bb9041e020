"""Manual pages, made from the code: a command's docstring, options and examples, as roff."""

from __future__ import annotations

import click

from clickpipe import RELEASED, __version__

_EXIT = (
    ("0", "done, and the accounts balance; also stopped after a last checkpoint, or when the reader of the output went away"),
    ("1", "run: given up, because restarts brought no new checkpoint"),
    ("2", "usage, or a plan that cannot work"),
    ("65", "the data is wrong, and a policy or its format says to stop"),
    ("70", "a fault of clickpipe"),
    ("74", "a disk failed or is full"),
    ("75", "something outside failed, such as the step before: try again"),
    ("78", "saved state does not fit: another pipeline, a changed input, a damaged checkpoint"),
    ("130, 143", "interrupted, terminated"),
)


def page(name: str, command: click.Command) -> str:
    """The manual page of one command, section 1."""
    title = name if name == "clickpipe" else f"clickpipe-{name}"
    context = click.Context(command, info_name=name if name == "clickpipe" else f"clickpipe {name}")
    summary, _, rest = (command.help or "").strip().partition("\n")
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [
        f'.TH "{title.upper()}" 1 "{RELEASED}" "clickpipe {__version__}" "clickpipe manual"',
        ".SH NAME",
        f"{_plain(title)} \\- {_plain(summary.rstrip('.'))}",
        ".SH SYNOPSIS",
        f"\\fB{_plain(context.command_path)}\\fR {_plain(usage)}",
        ".SH DESCRIPTION",
        _paragraphs(rest.strip("\n") or summary),
        *_options(command, context),
        *_examples(command.epilog or ""),
        ".SH EXIT STATUS",
        *(f".TP\n{code}\n{_plain(meaning)}" for code, meaning in _EXIT),
        ".SH SEE ALSO",
        ".BR clickpipe (1),\n.BR clickpipe\\-stream (5),\n.BR clickpipe\\-recipe (5),\n.BR clickpipe\\-design (7)",
    ]
    return "\n".join(parts) + "\n"


def _options(command: click.Command, context: click.Context) -> list[str]:
    records = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
    rows = [f".TP\n\\fB{_plain(flags)}\\fR\n{_plain(text)}" for flags, text in records]
    return [".SH OPTIONS", *rows] if rows else []


def _examples(epilog: str) -> list[str]:
    if not epilog:
        return []
    lines = [_plain(line) if line else "" for line in epilog.splitlines() if line != "Examples:"]
    return [".SH EXAMPLES", ".nf", *lines, ".fi"]


def _paragraphs(text: str) -> str:
    return "\n.PP\n".join(_block(block) for block in text.split("\n\n"))


def _block(text: str) -> str:
    """What is indented keeps its lines."""
    if text.startswith("    "):
        return "\n".join([".nf", *map(_plain, text.splitlines()), ".fi"])
    return _plain(" ".join(text.split()))


def _plain(text: str) -> str:
    """Text that roff prints as it stands."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("…", "...")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
