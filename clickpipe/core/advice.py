"""What is said of --max-out-of-orderness: which setting would lose how much.

The settings are those with which at most 1 %, 0.1 %, 0.01 % and none of the records are late, rounded up to durations
that people would type, beside 0s and the one in force.
"""

from __future__ import annotations

from dataclasses import dataclass

from clickpipe.core.lateness import Lateness

_SHARES = (0.01, 0.001, 0.0001, 0.0)
# Below a length, in milliseconds, durations are multiples of a step.
_STEPS = ((10, 1), (1_000, 10), (10_000, 500), (60_000, 1_000), (600_000, 10_000), (3_600_000, 60_000), (86_400_000, 600_000))
_LAST_STEP = 3_600_000


@dataclass(frozen=True)
class Setting:
    """An out-of-orderness in milliseconds, and the share of the records that it loses, or less."""

    delay: int
    loses_at_most: float
    in_force: bool


def settings(sketch: Lateness, in_force: int) -> list[Setting]:
    """The shortest first."""
    delays = {0, in_force, *(readable(sketch.enough_for(share)) for share in _SHARES)}
    return [Setting(delay, sketch.at_most_late(delay), delay == in_force) for delay in sorted(delays)]


def readable(milliseconds: int) -> int:
    """The next duration that is at least as long, and easily said."""
    step = next((step for below, step in _STEPS if milliseconds < below), _LAST_STEP)
    return -(-milliseconds // step) * step
