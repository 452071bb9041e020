"""The command line: find the command, run it, say what went wrong. The one place that prints errors and exits."""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import click

from clickpipe import __version__
from clickpipe.cli import catalog
from clickpipe.cli.text import log_format
from clickpipe.cli.words import check_format, complain, heed_format, say, speaks_json
from clickpipe.errors import (
    ClickpipeError,
    DiskError,
    OursError,
    PlanError,
    ReaderGone,
    StepBeforeFailed,
    failed_call,
    near,
)
from clickpipe.stopping import RESCALE, clean_up, die_with_parent, ends_by_itself, keep, parent

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EPILOG = """\
A pipeline is ordinary commands in a shell, or the same line in a recipe:

  clickpipe ingest sample_data/clicks.ndjson.zst --time ts --max-out-of-orderness 5s |
    clickpipe filter "event = 'click'" | clickpipe window tumble 1h |
    clickpipe aggregate --by page clicks='count(*)' --top 3 | clickpipe sink -
  clickpipe run recipes/trending.toml

Every command has --help with examples that run; clickpipe help --man NAME gives its manual page.
Exit codes: 0 done, or stopped after a last checkpoint; 1 given up after restarts; 2 usage; 65 data; 70 our fault;
74 disk; 75 try again; 78 saved state does not fit; 130 and 143 signals.
"""


class Commands(click.Group):
    """Finds commands by module name; the help text is made without importing one of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return catalog.names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return catalog.find(cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not catalog.has(args[0]):
            raise PlanError(f'no command "{args[0]}"', hint=near(args[0], catalog.names()), notes=["clickpipe --help lists them"])
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem

        names = [name for name in catalog.names() if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=catalog.summary(name)) for name in names), *options]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, rows in catalog.summaries():
            with formatter.section(title):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write(self.epilog or "")


@click.command(
    "clickpipe",
    cls=Commands,
    help="Real-time analytics for click and event streams, made of Unix commands.",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="clickpipe %(version)s")
def cli() -> None:
    pass


log_format(cli)


def main() -> NoReturn:
    """Run the command line and exit."""
    _open_standard_streams()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, RESCALE):
        signal.signal(number, _stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGUSR1, RESCALE))  # see engine/group.py
    _die_with_parent()
    code = _run(sys.argv[1:])
    with suppress(OSError):  # too many files may be open for an import
        if code and catalog.gives_stream(sys.argv[1:]):
            from clickpipe.wire.failing import pass_on_failure

            pass_on_failure(1)
    leave(code)


def _open_standard_streams() -> None:
    """A standard stream that is closed fails when it is used; else the next file to be opened would take its place."""
    for number, (name, mode, flags) in enumerate(
        (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY))
    ):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  # it stays open


def _stop(number: int, _: Any) -> None:
    """Leave at once: an exception could strike in an import or inside Polars, and be lost there."""
    if ends_by_itself(number):
        return
    if number in (signal.SIGUSR1, RESCALE):  # to drain, and nothing has come yet
        keep(number)
        return
    clean_up()
    os._exit(128 + number)


def _die_with_parent() -> None:
    """A process of a supervised pipeline outlives its supervisor by no moment, however that ends."""
    told = parent()
    if told is None:
        return
    die_with_parent(signal.SIGKILL)
    if os.getppid() != told:  # it had died before we said so
        os._exit(75)


def _run(words: list[str]) -> int:
    """The exit code."""
    if asked := os.environ.get("_CLICKPIPE_COMPLETE"):
        from clickpipe.cli.completing.answer import answer

        return answer(cli, asked)
    heed_format(words)
    try:
        check_format()
        result = cli.main(words, prog_name="clickpipe", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except ReaderGone:
        return 0
    except StepBeforeFailed as failed:
        return failed.code
    except ClickpipeError as error:
        return _say(error)
    except click.exceptions.NoArgsIsHelpError as error:
        _show_help(error.format_message())
        return 2
    except click.ClickException as error:
        return _say(_usage(error))
    except BrokenPipeError:
        return 0
    except SystemExit:  # that is how click takes a broken pipe, and nothing else where it does not stand alone
        return 0
    except OSError as error:
        return _say(_failed_call(error))
    except BaseException as error:  # panics inside Polars are no Exceptions
        return _say(_ours(error))


def _show_help(text: str) -> None:
    if speaks_json():
        complain(PlanError("no command", notes=["clickpipe --help lists them"]))
    else:
        click.echo(text, err=True)


def _failed_call(error: OSError) -> ClickpipeError:
    """Of a call that nobody expected to fail: an import may, where too few files may be open."""
    name = error.filename or "standard output"
    is_limit = error.errno in (errno.EMFILE, errno.ENFILE)
    return failed_call(name, error) if is_limit else DiskError(f"{name}: {error.strerror}")


def _usage(error: click.ClickException) -> PlanError:
    from clickpipe.plan.flags import hint_of

    what = " ".join(error.format_message().split())
    plan_error = PlanError(what[0].lower() + what[1:].rstrip("."))
    context = getattr(error, "ctx", None)
    if context is not None and context.info_name != "clickpipe":
        plan_error.at(context.info_name)
        plan_error.hint = hint_of(error) or f"clickpipe {context.info_name} --help"
    return plan_error


def _ours(error: BaseException) -> ClickpipeError:
    if os.environ.get("CLICKPIPE_DEBUG"):
        raise error
    text = str(error).split("\n", 1)[0]
    return OursError(
        f"a fault of clickpipe: {type(error).__name__}: {text}", hint="CLICKPIPE_DEBUG=1 shows where; please report it"
    )


def _say(error: ClickpipeError) -> int:
    complain(error)
    return error.code


def leave(code: int) -> NoReturn:
    """Exit without waiting for threads that wait for a pipe. What must not stay is cleared away."""
    clean_up()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or (0 if stream is sys.stderr else _flush_failed())
    os._exit(code)


def _flush_failed() -> int:
    """Text that a person asked for did not reach them: only a full disk is worth a word."""
    error = sys.exc_info()[1]
    if isinstance(error, BrokenPipeError) or not isinstance(error, OSError):
        return 0
    say(f"standard output: {error.strerror}", "error", code=DiskError.code)
    return DiskError.code
