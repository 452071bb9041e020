"""When a pipeline that has died is started again, and when not any more. This decides; the supervisor acts."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace

from clickpipe.state.hunt import NARROWS, SETS_ASIDE

_OWN_FAULTS = (70, *(128 + number for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGKILL)))
_CERTAIN = 2  # deaths at a record that was read alone
_SUSPICIOUS = 3  # deaths without progress after which a hunt begins
_MOST_SET_ASIDE = 10  # records: more are no accident of the data
_SETTLED = 3  # checkpoints after which a life counts as a good one
_NEVER = {
    2: "",  # what was typed is wrong, and that has been said
    65: "its data is what --max-errors or a format does not allow",
    78: "what was saved does not fit",
}


@dataclass(frozen=True)
class Policy:
    """Unit: seconds. Source: exponential backoff with jitter, as supervisors and Flink do it."""

    first: float = 0.1  # before the first restart
    most: float = 30.0
    factor: float = 2.0
    jitter: float = 0.2  # a share of the delay, up or down
    tries: int = 10  # restarts from one checkpoint
    hunts: bool = False  # for a record at which the pipeline always dies, to set it aside


@dataclass(frozen=True)
class History:
    """What is remembered of earlier lives. `epoch`: the newest checkpoint at the last death, or at the first start."""

    epoch: int = 0
    in_a_row: int = 0  # lives that did not settle
    without_progress: int = 0  # restarts that brought no new checkpoint
    set_aside: int = 0  # records
    alone: int = 0  # deaths in a row at a record that was read alone


@dataclass(frozen=True)
class Again:
    """Start it again after so many seconds. `hunt`: how its source shall read, empty: as usual."""

    delay: float
    history: History
    hunt: str = ""


@dataclass(frozen=True)
class Over:
    """Do not start it again; `code` is the exit code of the whole, `reason` for people, empty when all is well."""

    code: int
    reason: str = ""


def after_end(
    policy: Policy, history: History, code: int, epoch: int, chance: float, suspect_lines: int | None = None
) -> Again | Over:
    """What follows when a pipeline's processes have ended.

    `code`: 128 + n for signal n; `epoch`: its newest checkpoint now; `chance`: between 0 and 1, for the jitter;
    `suspect_lines`: where a hunt goes on, how many records the pipeline may have died at.
    """
    if code == 0:
        return Over(0)
    if code in _NEVER:
        return Over(code, f"not started again: {_NEVER[code]}" if _NEVER[code] else "")
    new = epoch - history.epoch
    history = replace(
        history,
        epoch=epoch,
        in_a_row=0 if new >= _SETTLED else history.in_a_row,
        without_progress=0 if new else history.without_progress,
    )
    if history.without_progress >= policy.tries:
        return Over(1, f"{policy.tries} restarts from checkpoint {epoch} have brought no new one")
    history = replace(history, alone=history.alone + 1 if suspect_lines == 1 and code in _OWN_FAULTS else 0)
    hunt = _hunt(policy, history, code, suspect_lines)
    grown = 1.0 if hunt else policy.factor**history.in_a_row  # a hunt dies on purpose
    delay = min(policy.most, policy.first * grown) * (1 + policy.jitter * (2 * chance - 1))
    if hunt == SETS_ASIDE and history.set_aside == _MOST_SET_ASIDE:
        return Over(1, f"{_MOST_SET_ASIDE} records have been set aside, and it still dies")
    return Again(
        delay,
        replace(
            history,
            in_a_row=history.in_a_row + 1,
            without_progress=history.without_progress + 1,
            set_aside=history.set_aside + (hunt == SETS_ASIDE),
        ),
        hunt,
    )


def _hunt(policy: Policy, history: History, code: int, suspect_lines: int | None) -> str:
    """Disks, databases and people are no fault of a record."""
    if not policy.hunts or code not in _OWN_FAULTS or (suspect_lines is None and history.without_progress < _SUSPICIOUS):
        return ""
    return SETS_ASIDE if history.alone == _CERTAIN else NARROWS
