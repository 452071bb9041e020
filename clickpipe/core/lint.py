"""What can be said against a plan before it runs. Each step knows its own traps; plan/lint.py asks them all.

Only what is certain is said: whoever was warned in vain does not read the next warning.
"""

from __future__ import annotations

from dataclasses import dataclass

from clickpipe.columns import Columns, WindowInfo
from clickpipe.core.lateness import Lateness


@dataclass(frozen=True)
class Advice:
    """`name`: of the rule, the same for ever; `what` happens; `remedy`: what to write instead."""

    name: str
    what: str
    remedy: str


@dataclass(frozen=True)
class Input:
    """What a source knows of its records. Unit: milliseconds.

    `ends`: whether it does, by itself. `has_time`: whether it moves the watermark. `idle_timeout`: as a person gave it, 0 for
    none. `is_held`: when all is idle, the watermark stays. `disorder`: how far its first records were behind, where that was
    looked at.
    """

    ends: bool = True
    has_time: bool = True
    idle_timeout: int = 0
    is_held: bool = False
    out_of_orderness: int = 0
    takes_checkpoints: bool = False
    disorder: Lateness | None = None


@dataclass(frozen=True)
class Situation:
    """Where a step stands. `given`: the columns before it, None: not known yet; `window`: in which its records are then."""

    given: Columns | None
    window: WindowInfo | None
    input: Input
