"""The checkpoint protocol keeps its promises under every mix of faults, and not without any one of its rules.

Each broken rule must give a counterexample: a rule that could go unnoticed would say nothing here. The bounds on
the states are below what was counted when the test was written, so that a model which no longer moves cannot pass.
"""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

import pytest
from examples import some

from model.checker import STUCK, Step, TooManyStates, explore
from model.lock import BESIDE, LockRules, Starting
from model.protocol import Checkpoints
from model.rules import AHEAD, BEHIND, HALTED, LOST, MISPLACED, ORDER, TWICE, Faults, Rules

NONE = Faults()
CRASH = Faults(crashes=1)
CRASHES = Faults(crashes=2)
ABORT = Faults(aborts=1)
CRASH_AND_ABORT = Faults(crashes=1, aborts=1)
ZOMBIE = Faults(crashes=1, pauses=1)
DAMAGE = Faults(crashes=1, damages=1)
EVERYTHING = Faults(crashes=2, aborts=1, pauses=1, damages=1)


class Mix(NamedTuple):
    """`barriers` may be started before the last one. `states` and `done` are at least reached."""

    faults: Faults
    barriers: int
    states: int
    done: int


MIXES = {
    "no faults": Mix(NONE, 2, 1_800, 6),
    "a crash": Mix(CRASH, 2, 28_000, 80),
    "two crashes": Mix(CRASHES, 1, 47_000, 290),
    "a crash and an abort": Mix(CRASH_AND_ABORT, 1, 32_000, 200),
    "a crash and a zombie": Mix(ZOMBIE, 1, 43_000, 100),
    "a crash and a damaged manifest": Mix(DAMAGE, 1, 13_000, 110),
    "everything, two crashes": Mix(EVERYTHING, 0, 41_000, 700),
}


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES.keys())
def test_the_protocol_keeps_its_promises(mix: Mix) -> None:
    result = explore(Checkpoints(mix.faults, barriers=mix.barriers), every_order=False)
    assert result.complaint is None, result
    assert result.states >= mix.states, result
    assert result.ends["done"] >= mix.done, result
    assert (result.ends["halted"] > 0) == (mix.faults.damages > 0), result


def test_every_order_without_faults() -> None:
    result = explore(Checkpoints(NONE))
    assert result.complaint is None, result
    assert result.states >= 17_000, result


@pytest.mark.parametrize("faults", [CRASH, CRASH_AND_ABORT, ZOMBIE], ids=str)
def test_private_steps_hide_nothing(faults: Faults) -> None:
    """Taken at once or in every order with all others: the same disks are reached."""
    few, all_orders = (
        explore(Checkpoints(faults, barriers=0), every_order=every_order, view=lambda state: state.disk)
        for every_order in (False, True)
    )
    assert few.complaint is None, few
    assert all_orders.complaint is None, all_orders
    assert few.views == all_orders.views
    assert len(few.views) >= 30
    assert few.states * 5 < all_orders.states


class Broken(NamedTuple):
    """Rules that are off, by name, and the promise that does not hold then."""

    names: str
    faults: Faults
    promise: str
    barriers: int = 1


BROKEN = [
    Broken("manifest_first", CRASH, AHEAD),
    Broken("manifest_first halts_when_behind", CRASH, TWICE),
    Broken("redo_on_start", CRASH, LOST),
    Broken("marker_with_data", CRASH, TWICE),
    Broken("one_unit", CRASH_AND_ABORT, LOST),
    Broken("middle_waits", CRASH, AHEAD),
    Broken("middle_waits halts_when_behind", CRASH, TWICE),
    Broken("late_waits", CRASH, AHEAD),
    Broken("late_waits halts_when_behind", CRASH, TWICE),
    Broken("merge_aligns", CRASH, TWICE),
    Broken("merge_waits_for_all", CRASH, LOST),
    Broken("files_waited_for", CRASH, BEHIND),
    Broken("files_waited_for hashes_checked", CRASH, LOST),
    Broken("durable_before_visible", CRASH, BEHIND),
    Broken("durable_before_visible hashes_checked", CRASH, LOST),
    Broken("hashes_checked", DAMAGE, LOST),
    Broken("position_restored", CRASH, LOST),
    Broken("watermark_restored", CRASH, MISPLACED),
    Broken("held_restored", CRASH, LOST),
    Broken("fresh_epochs", CRASHES, TWICE),
    Broken("halts_when_behind", DAMAGE, BEHIND),
    Broken("halts_when_behind", DAMAGE, TWICE),
    Broken("end_is_said", CRASH, TWICE),
    Broken("end_is_covered", ABORT, LOST),
    Broken("aborted_is_kept", ABORT, LOST),
    Broken("old_is_kept", CRASH, HALTED),
    Broken("old_is_kept halts_when_behind", CRASH, TWICE),
    Broken("start_waits_for_lock", ZOMBIE, TWICE, barriers=0),
    Broken("start_waits_for_lock", ZOMBIE, ORDER, barriers=0),
    Broken("run_is_checked", ZOMBIE, TWICE),
]


@pytest.mark.parametrize("broken", some(BROKEN), ids=[f"{broken.names}: {broken.promise}" for broken in some(BROKEN)])
def test_a_broken_rule_breaks_a_promise(broken: Broken) -> None:
    rules = Rules(**dict.fromkeys(broken.names.split(), False))
    model = Checkpoints(broken.faults, rules, frozenset({broken.promise}), broken.barriers)
    result = explore(model, every_order=False)
    assert result.complaint == broken.promise, result
    assert result.trace


def test_every_rule_is_broken_alone() -> None:
    assert {field.name for field in fields(Rules)} == {broken.names for broken in BROKEN if " " not in broken.names}


def test_no_two_runs_work_at_once() -> None:
    result = explore(Starting())
    assert result.complaint is None, result
    assert result.states >= 220, result


@pytest.mark.parametrize("name", [field.name for field in fields(LockRules)])
def test_a_broken_lock_lets_two_runs_work(name: str) -> None:
    assert explore(Starting(LockRules(**{name: False}))).complaint == BESIDE


class Counter:
    """A model of its own: counts to `last` by one or two, and complains of `bad`."""

    def __init__(self, last: int = 5, bad: int = -1, is_end: bool = True) -> None:
        self._last, self._bad, self._is_end = last, bad, is_end

    def first(self) -> int:
        return 0

    def steps(self, state: int) -> list[Step]:
        return [Step(f"+{add}", state + add) for add in (1, 2) if state + add <= self._last]

    def complaint(self, state: int) -> str | None:
        return "bad" if state == self._bad else None

    def end(self, state: int) -> str | None:
        return "counted" if self._is_end else None


def test_the_checker_sees_each_state_once() -> None:
    result = explore(Counter())
    assert (result.states, result.complaint, result.ends) == (6, None, {"counted": 1})


def test_the_checker_gives_the_shortest_trace() -> None:
    result = explore(Counter(bad=3))
    assert (result.complaint, result.trace) == ("bad", ["+1", "+2"])


def test_the_checker_complains_where_it_is_stuck() -> None:
    result = explore(Counter(is_end=False))
    assert (result.complaint, result.trace) == (STUCK, ["+1", "+2", "+2"])


def test_the_checker_does_not_pass_what_it_has_not_seen() -> None:
    with pytest.raises(TooManyStates):
        explore(Counter(), most_states=5)
