"""Explores every state a model can reach, breadth first, and shows the shortest way to a broken promise.

A model has a first state, the steps that lead on from a state, a complaint about a state that breaks a
promise, and says which states may be the last. States are hashable values. The exploration

1. visits each state once, in an order that depends on nothing but the model;
2. stops at the first complaint; breadth first, so that no shorter trace leads to one;
3. complains of a state that has no step and is not an end: the model is stuck there;
4. raises TooManyStates rather than pass what it has not seen.

A step may be called *private*: it changes nothing that a complaint looks at, and neither takes a step away from anyone
nor is taken away by one that matters. Such a step commutes with all others, so with `every_order` false it is
taken at once and alone (a persistent set of one step: Godefroid 1996). Sound for models without cycles; a trace is then
longer than it need be. Whether a model calls the right steps private can be seen by exploring it both ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

STUCK = "no step is possible and this is not an end"


class Step(NamedTuple):
    """One thing that can happen next. A model gives its private steps first."""

    name: str
    after: Any  # a state
    is_private: bool = False


class Model(Protocol):
    """What can be explored."""

    def first(self) -> Any: ...

    def steps(self, state: Any) -> Iterable[Step]: ...

    def complaint(self, state: Any) -> str | None:
        """The promise this state breaks."""

    def end(self, state: Any) -> str | None:
        """What kind of end this state is, if it may be the last one."""


class TooManyStates(Exception):
    """The bound was reached: nothing is known of the rest."""


@dataclass
class Result:
    """What an exploration saw.

    `trace` leads from the first state to the complaint; `ends` counts last states by kind; `views` is what was asked for.
    """

    states: int = 0
    complaint: str | None = None
    trace: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    views: set[Hashable] = field(default_factory=set)

    def __str__(self) -> str:
        lines = [f"{self.states} states, ends: {dict(self.ends)}, complaint: {self.complaint}"]
        return "\n".join(lines + [f"{number:4} {name}" for number, name in enumerate(self.trace, 1)])


class _Seen:
    """Every state so far, each with the step that led to it first."""

    def __init__(self, first: Hashable) -> None:
        self.states = [first]
        self._origins: list[tuple[int, str]] = [(-1, "")]
        self._known = {first}

    def add(self, state: Hashable, origin: int, name: str) -> None:
        if state not in self._known:
            self._known.add(state)
            self.states.append(state)
            self._origins.append((origin, name))

    def trace(self, index: int) -> list[str]:
        names = []
        while index > 0:
            index, name = self._origins[index]
            names.append(name)
        return names[::-1]


def explore(
    model: Model, most_states: int = 1_000_000, *, every_order: bool = True, view: Callable[[Any], Hashable] | None = None
) -> Result:
    """All reachable states, or those up to the first complaint. `view` gives what is collected of each state.

    Memory: every state. Raises: TooManyStates.
    """
    seen, result = _Seen(model.first()), Result()
    for index, state in enumerate(_growing(seen.states)):
        if index >= most_states:
            raise TooManyStates(f"more than {most_states} states")
        result.states = index + 1
        if view:
            result.views.add(view(state))
        result.complaint = model.complaint(state) or _follow(model, state, index, seen, result.ends, every_order)
        if result.complaint:
            result.trace = seen.trace(index)
            break
    return result


def _growing(states: list[Hashable]) -> Iterator[Hashable]:
    """The list's items, those appended meanwhile included."""
    yield from states


def _follow(model: Model, state: Hashable, index: int, seen: _Seen, ends: Counter[str], every_order: bool) -> str | None:
    """Adds the states after this one. A state without any is an end, or a complaint."""
    has_steps = False
    for step in model.steps(state):
        has_steps = True
        seen.add(step.after, index, step.name)
        if step.is_private and not every_order:
            break
    if has_steps:
        return None
    kind = model.end(state)
    if kind:
        ends[kind] += 1
    return None if kind else STUCK
