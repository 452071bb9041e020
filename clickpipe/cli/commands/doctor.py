"""Look whether this machine has what clickpipe needs, and say what to do where it has not.

    ok     as it should be
    note   it works, and could be better; the line below says how
    bad    it does not work: the exit code is 75 then

It looks at Python and its libraries, cores and memory, the file system of the state directory, how long fsync takes there, locks
and renaming, SQLite, pipes, open files, the clock, the terminal, and what pipelines have left. What is tried out is written to a
folder of its own beside the state, which is taken away again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from clickpipe.cli.text import described
from clickpipe.cli.words import harmless, printable

_EPILOG = """\
Examples:
  clickpipe doctor
  clickpipe doctor --json | head -3"""


@described("doctor", __doc__, _EPILOG)
@click.option("--json", "as_json", is_flag=True, help="for programs: an object per line, with what was found")
def command(as_json: bool) -> int:
    from clickpipe.cli.doctor.checks import CHECKS
    from clickpipe.cli.doctor.verdict import BAD
    from clickpipe.errors import OutsideError
    from clickpipe.state.home import home

    place, is_bad = home(), False
    for check in CHECKS:
        verdict, found = check.run(place)
        is_bad |= verdict.mark == BAD
        lines = [_object(check.name, verdict, found)] if as_json else _lines(check.name, verdict)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    return OutsideError.code if is_bad else 0


def _lines(name: str, verdict: Any) -> Iterator[str]:
    yield f"{verdict.mark:<4}  {name:<11}  {_one_line(verdict.text)}"
    yield from (f"{'':<19}{_one_line(remedy)}" for remedy in verdict.remedies)


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _object(name: str, verdict: Any, found: Any) -> str:
    import orjson

    said = {"check": name, "verdict": verdict.mark, "text": verdict.text, "remedies": verdict.remedies, "found": found}
    return orjson.dumps(harmless(said)).decode()
