"""How a run starts, as a model: the start lock, the lock, the run number, and who may work.

    a starting ingest                           any other process of its run
    1 takes the start lock, exclusive           1 reads its stream line (its run is announced)
    2 takes the lock, exclusive                 2 takes the lock, shared
    3 raises the run number, durably            3 works if the run number is its own, else exits
    4 lets the lock go      ─┐ a conversion
    5 takes it shared       ─┘ is not atomic
    6 lets the start lock go, announces its run, works

The same pipeline is started twice, and again after each death. Promise: no two processes of different runs are at work
at once, so that none can write beside a newer run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from model.checker import Step

BESIDE = "processes of two runs are at work"


@dataclass(frozen=True)
class LockRules:
    has_start_lock: bool = True  # it covers the moment between 4 and 5
    start_is_exclusive: bool = True  # 2
    run_is_checked: bool = True  # 3 of the other processes
    others_hold_lock: bool = True  # 2 of the other processes


class Ingest(NamedTuple):
    """`done` is the number of the step it has done last. `run` is its own once it has raised the number."""

    done: int = 0
    run: int = 0


class Other(NamedTuple):
    """What else a run has: one process stands for all."""

    run: int
    is_joined: bool = False


class Locks(NamedTuple):
    run: int = 0  # identity.json
    ingests: tuple[Ingest, ...] = (Ingest(), Ingest())
    others: frozenset[Other] = frozenset()
    deaths: int = 2


class Starting:
    """The model."""

    def __init__(self, rules: LockRules | None = None) -> None:
        self._rules = rules or LockRules()

    def first(self) -> Locks:
        return Locks()

    def end(self, state: Locks) -> str:
        """One may wait for the lock for ever: it says which process of the earlier run still lives."""
        return "one waits" if any(ingest.done < 6 for ingest in state.ingests) else "both ran"

    def complaint(self, state: Locks) -> str | None:
        at_work = {ingest.run for ingest in state.ingests if ingest.done == 6} | {o.run for o in state.others if o.is_joined}
        return BESIDE if len(at_work) > 1 else None

    def steps(self, state: Locks) -> Iterator[Step]:
        for index in range(2):
            yield from self._ingest_steps(state, index)
        for other in sorted(state.others):
            yield from self._other_steps(state, other)

    def _ingest_steps(self, state: Locks, index: int) -> Iterator[Step]:
        ingest = state.ingests[index]
        if ingest.done < 6 and self._may(state, ingest.done + 1):
            raised = state.run + 1 if ingest.done == 2 else state.run
            after = ingest._replace(done=ingest.done + 1, run=raised if ingest.done == 2 else ingest.run)
            others = state.others | {Other(ingest.run)} if ingest.done == 5 else state.others
            name = f"ingest {index}: step {after.done}"
            yield Step(name, state._replace(run=raised, ingests=_put(state.ingests, index, after), others=others))
        if ingest.done and state.deaths:
            name = f"ingest {index} dies and is started again"
            yield Step(name, state._replace(ingests=_put(state.ingests, index, Ingest()), deaths=state.deaths - 1))

    def _other_steps(self, state: Locks, other: Other) -> Iterator[Step]:
        left = state.others - {other}
        if not other.is_joined and self._may_share(state):
            is_own = other.run == state.run or not self._rules.run_is_checked
            others = left | {other._replace(is_joined=True)} if is_own else left
            yield Step(f"other of run {other.run} {'works' if is_own else 'exits'}", state._replace(others=others))
        if other.is_joined and other.run not in [ingest.run for ingest in state.ingests]:
            yield Step(f"other of run {other.run} sees the end of its pipe", state._replace(others=left))

    def _may(self, state: Locks, number: int) -> bool:
        """Whether the step of that number need not wait."""
        if number == 1:
            return not self._rules.has_start_lock or all(not 1 <= ingest.done < 6 for ingest in state.ingests)
        if number == 2:
            return not self._rules.start_is_exclusive or (self._may_share(state) and not self._is_shared(state))
        return number != 5 or self._may_share(state)

    def _may_share(self, state: Locks) -> bool:
        return not self._rules.start_is_exclusive or all(ingest.done not in (2, 3) for ingest in state.ingests)

    def _is_shared(self, state: Locks) -> bool:
        is_joined = self._rules.others_hold_lock and any(other.is_joined for other in state.others)
        return is_joined or any(ingest.done >= 5 for ingest in state.ingests)


def _put(items: tuple[Ingest, ...], index: int, item: Ingest) -> tuple[Ingest, ...]:
    return (*items[:index], item, *items[index + 1 :])
