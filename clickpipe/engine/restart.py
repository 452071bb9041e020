"""When a pipeline that has died is started again, and when not any more. This decides; the supervisor acts."""

from __future__ import annotations

from dataclasses import dataclass, replace

_SETTLED = 3  # checkpoints after which a life counts as a good one
_NEVER = {
    2: "what was typed is wrong",
    65: "its data is what --max-errors or a format does not allow",
    78: "what was saved does not fit",
}


@dataclass(frozen=True)
class Policy:
    """Unit: seconds. Source: exponential backoff with jitter, as supervisors and Flink do it."""

    first: float = 0.2  # before the first restart
    most: float = 30.0
    factor: float = 2.0
    jitter: float = 0.2  # a share of the delay, up or down
    tries: int = 10  # restarts from one checkpoint


@dataclass(frozen=True)
class History:
    """What is remembered of earlier lives. `epoch`: the newest checkpoint at the last death, or at the first start."""

    epoch: int = 0
    in_a_row: int = 0  # lives that did not settle
    without_progress: int = 0  # restarts that brought no new checkpoint


@dataclass(frozen=True)
class Again:
    """Start it again after so many seconds."""

    delay: float
    history: History


@dataclass(frozen=True)
class Over:
    """Do not start it again; `code` is the exit code of the whole, `reason` for people, empty when all is well."""

    code: int
    reason: str = ""


def after_end(policy: Policy, history: History, code: int, epoch: int, chance: float) -> Again | Over:
    """What follows when a pipeline's processes have ended.

    `code`: 128 + n for signal n; `epoch`: its newest checkpoint now; `chance`: between 0 and 1, for the jitter.
    """
    if code == 0:
        return Over(0)
    if code in _NEVER:
        return Over(code, f"not started again: {_NEVER[code]}")
    new = epoch - history.epoch
    history = replace(
        history,
        epoch=epoch,
        in_a_row=0 if new >= _SETTLED else history.in_a_row,
        without_progress=0 if new else history.without_progress,
    )
    if history.without_progress >= policy.tries:
        return Over(1, f"{policy.tries} restarts from checkpoint {epoch} have brought no new one")
    delay = min(policy.most, policy.first * policy.factor**history.in_a_row) * (1 + policy.jitter * (2 * chance - 1))
    return Again(delay, replace(history, in_a_row=history.in_a_row + 1, without_progress=history.without_progress + 1))
