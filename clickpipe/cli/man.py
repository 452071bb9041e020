"""Manual pages, made from the code: a command's docstring, options and examples, as roff."""

from __future__ import annotations

import re

import click

from clickpipe import RELEASED, __version__
from clickpipe.cli import catalog

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


_ENVIRONMENT = (
    ("CLICKPIPE_HOME", "where state lies; by default $XDG_STATE_HOME/clickpipe, which is ~/.local/state/clickpipe"),
    ("CLICKPIPE_LOG_FORMAT", "the form of messages on standard error: text, or json for an object per line"),
    ("CLICKPIPE_CODEC", "how records travel between processes, where --codec does not say: ndjson or arrow"),
    ("CLICKPIPE_METRICS", "off: processes write no samples of themselves, and top and metrics show nothing"),
    ("CLICKPIPE_TOKEN", "the secret of streams over sockets, where --token-file does not name it"),
    ("CLICKPIPE_DEBUG", "not empty: where a fault of clickpipe comes from is shown"),
    ("POLARS_MAX_THREADS", "how many threads a process computes with"),
    ("JOURNAL_STREAM", "set by systemd: messages that go to its journal have a priority"),
    ("XDG_RUNTIME_DIR", "where processes say how they are, if CLICKPIPE_HOME is not set"),
)
_FILES = (
    ("pipelines/NAME/", "checkpoints, savepoints, late records and dead letters of a pipeline: clickpipe-state(5)"),
    ("views/NAME.sqlite", "a view"),
    ("archives/NAME/", "an archive: clickpipe-archive(5)"),
    ("logs/NAME/", "a log: clickpipe-log(5)"),
    ("run/NAME/", "what the processes of a pipeline say of themselves while they run"),
)
_SEE = (("clickpipe", 1), *((f"clickpipe-{name}", 5) for name in "recipe stream sketch state log archive".split()))


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
        *_commands(command, context),
        *_examples(command.epilog or ""),
        ".SH EXIT STATUS",
        *(f".TP\n{code}\n{_plain(meaning)}" for code, meaning in _EXIT),
        ".SH ENVIRONMENT",
        *(f".TP\n\\fB{variable}\\fR\n{_plain(meaning)}" for variable, meaning in _ENVIRONMENT),
        ".SH FILES",
        "Under CLICKPIPE_HOME:",
        *(f".TP\n\\fI{_plain(path)}\\fR\n{_plain(meaning)}" for path, meaning in _FILES),
        ".SH SEE ALSO",
        ",\n".join(f".BR {_plain(other)} ({section})" for other, section in (*_SEE, ("clickpipe-design", 7))),
    ]
    return "\n".join(parts) + "\n"


def _options(command: click.Command, context: click.Context) -> list[str]:
    records = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
    rows = [f".TP\n\\fB{_plain(flags)}\\fR\n{_plain(text)}" for flags, text in records]
    return [".SH OPTIONS", *rows] if rows else []


def _commands(command: click.Command, context: click.Context) -> list[str]:
    """Those of the program itself."""
    if not isinstance(command, click.Group):
        return []
    rows = [f".TP\n\\fB{_plain(name)}\\fR\n{_plain(catalog.summary(name))}" for name in command.list_commands(context)]
    return [".SH COMMANDS", *rows]


def _examples(epilog: str) -> list[str]:
    """Up to the first lines that are indented. What is said before them and behind them are notes."""
    before, _, rest = epilog.rpartition("Examples:\n")
    blocks = re.split(r"\n{2,}", rest.strip("\n"))
    end = next((number for number, block in enumerate(blocks, 1) if block.startswith("  ")), 0)
    parts = ((".SH EXAMPLES", blocks[:end]), (".SH NOTES", [before, *blocks[end:]]))
    return [line for title, some in parts if any(some) for line in (title, _paragraphs("\n\n".join(some)))]


def _paragraphs(text: str) -> str:
    return "\n.PP\n".join(_block(block) for block in re.split(r"\n{2,}", text.strip("\n")))


def _block(text: str) -> str:
    """What is indented keeps its lines."""
    if text.startswith("  "):
        return "\n".join([".nf", *map(_plain, text.splitlines()), ".fi"])
    return _plain(" ".join(text.split()))


def _plain(text: str) -> str:
    """Text that roff prints as it stands."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("…", "...")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
