"""What a check has come to. To look is apart from to judge, so that judging is tested without a broken machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from clickpipe.errors import ClickpipeError

T = TypeVar("T")
OK, NOTE, BAD = "ok", "note", "bad"


@dataclass(frozen=True)
class Verdict:
    """`mark`: OK; NOTE, it works and could be better; BAD, it does not work. `remedies`: what to do, a line each."""

    mark: str
    text: str
    remedies: tuple[str, ...] = ()


def ok(text: str) -> Verdict:
    return Verdict(OK, text)


def note(text: str, *remedies: str) -> Verdict:
    return Verdict(NOTE, text, remedies)


def bad(text: str, *remedies: str) -> Verdict:
    return Verdict(BAD, text, remedies)


@dataclass(frozen=True)
class Check(Generic[T]):
    """`look` is given the path of the state directory."""

    name: str
    look: Callable[[str], T]
    verdict: Callable[[T], Verdict]

    def run(self, home: str) -> tuple[Verdict, Any]:
        """What it has come to, and what was found; None where nothing could be."""
        try:
            found = self.look(home)
        except (OSError, ClickpipeError) as error:
            return note(f"could not be tried: {_said(error)}"), None
        return self.verdict(found), found


def _said(error: OSError | ClickpipeError) -> str:
    return error.what if isinstance(error, ClickpipeError) else error.strerror or type(error).__name__


def megabytes(size: float) -> str:
    return f"{size / (1 << 30):,.1f} GiB" if size >= 10 << 30 else f"{size / (1 << 20):,.0f} MiB"
