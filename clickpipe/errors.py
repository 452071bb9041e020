"""The kinds of error. Each knows its exit code; `cli/main.py` alone prints them and exits.

A message has three parts, the last two when known: what is wrong (prefixed, as the error
travels up, with where), the place in the user's text with a remedy under it, and notes.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class Place:
    """A stretch of what the user typed: the line, and where in it the trouble is."""

    line: str
    start: int
    end: int
    number: int | None = None  # of the line in its file, from 1

    def __str__(self) -> str:
        head = f"    {self.number} | " if self.number is not None else "    "
        return f"{head}{self.line}\n{' ' * (len(head) + self.start)}{'^' * max(1, self.end - self.start)}"


class ClickpipeError(Exception):
    """Something is wrong that a person must hear about; the subclass says of what kind."""

    code = 70

    def __init__(self, what: str, *, hint: str = "", notes: Sequence[str] = (), word: str = "") -> None:
        super().__init__(what)
        self.what, self.hint, self.notes = what, hint, tuple(notes)
        self.word = word  # the typed word that is to blame, if there is one
        self.where: list[str] = []
        self.place: Place | None = None

    def at(self, where: str) -> ClickpipeError:
        """Add where it happened, seen from one level further out."""
        self.where.insert(0, where)
        return self

    def __str__(self) -> str:
        text = ": ".join([*self.where, self.what])
        if self.place:
            text += f"\n{self.place}{' ' + self.hint if self.hint else ''}"
        elif self.hint:
            text += f"\n    {self.hint}"
        return text + "".join(f"\n  {note}" for note in self.notes)


class PlanError(ClickpipeError):
    """The plan is wrong: an option, a column, an expression, a recipe."""

    code = 2


class NothingYet(PlanError):
    """There is no input yet, and there may be some another time."""


class Unsupported(PlanError):
    """Asked for, and not to be had: `notimpl` (we could), `notyet` (they cannot), `never`."""

    def __init__(self, kind: str, what: str, reason: str, *, hint: str = "", word: str = "") -> None:
        super().__init__(f"{kind}: {what}: {reason}", hint=hint, word=word)


class DataError(ClickpipeError):
    """The data is wrong, and a policy or its format says to stop."""

    code = 65


class OursError(ClickpipeError):
    """We are wrong: accounts that do not balance, a broken promise of ours."""

    code = 70


class DiskError(ClickpipeError):
    """A disk failed or is full."""

    code = 74


class OutsideError(ClickpipeError):
    """Something outside failed: trying again may help."""

    code = 75


class StateError(ClickpipeError):
    """What was saved does not fit: another plan, another version, or a checkpoint that is missing."""

    code = 78


class StepBeforeFailed(Exception):
    """The step before, or a process of ours, has failed and said why. We fail like it, and pass the word on."""

    def __init__(self, code: int = 75) -> None:
        super().__init__(code)
        self.code = code


class Caution(str):
    """Said to a person when all goes on, and should not be overlooked: machines are told that it is a warning."""

    level = "warning"


class Failure(Caution):
    """Said of something that has failed, by who goes on or exits with the code of another process."""

    level = "error"


class ReaderGone(Exception):
    """Whoever read our output has left (`| head`). Not an error: we stop and say nothing."""


def failed_call(name: object, error: OSError) -> OutsideError:
    """What the system has refused, with what helps where too many files are open."""
    is_limit = error.errno in (errno.EMFILE, errno.ENFILE)
    return OutsideError(f"{name}: {error.strerror}", hint="ulimit -n raises the limit of this shell" if is_limit else "")


def near(word: str, known: Sequence[str]) -> str:
    """A hint with the known word nearest to `word`, or nothing."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else ""
