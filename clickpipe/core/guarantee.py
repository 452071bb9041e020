"""What a reader of results may rely on when processes die, and why it is not more."""

from __future__ import annotations

from dataclasses import dataclass

EXACTLY_ONCE = "exactly once"  # each record takes effect once, whatever dies
WHOLE = "whole or not there"  # all results of one run, or none: a killed run is run again from the start
AT_LEAST_ONCE = "at least once"
AT_MOST_ONCE = "at most once"


@dataclass(frozen=True)
class Guarantee:
    """`level`: one of the words above."""

    level: str
    why: str

    def __str__(self) -> str:
        return f"{self.level}: {self.why}"

    @property
    def is_exact(self) -> bool:
        """Whether no record is lost, and none counts twice."""
        return self.level in (EXACTLY_ONCE, WHOLE)
