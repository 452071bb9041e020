"""When a pipeline that died is started again: the decision, without processes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clickpipe.engine.restart import Again, History, Over, Policy, after_end

POLICY = Policy(first=1.0, most=60.0, factor=2.0, jitter=0.2, tries=10)
MIDDLE = 0.5  # no jitter


def _delays(epochs: list[int], chance: float = MIDDLE) -> list[float]:
    """The delays after deaths at these checkpoints."""
    history, delays = History(), []
    for epoch in epochs:
        found = after_end(POLICY, history, 137, epoch, chance)
        assert isinstance(found, Again)
        history = found.history
        delays.append(found.delay)
    return delays


def test_the_delay_doubles_up_to_a_limit() -> None:
    assert _delays(list(range(1, 9))) == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_life_with_some_checkpoints_begins_the_delays_anew() -> None:
    assert _delays([1, 2, 3, 13, 14]) == [1, 2, 4, 1, 2]


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.8), (1.0, 1.2)])
def test_jitter_is_a_fifth_up_or_down(chance: float, share: float) -> None:
    assert _delays([1, 2], chance) == pytest.approx([share, 2 * share])


def test_ten_restarts_without_progress_are_enough() -> None:
    history = History(7)
    for number in range(10):
        found = after_end(POLICY, history, 75, 7, MIDDLE)
        assert isinstance(found, Again), number
        history = found.history
    found = after_end(POLICY, history, 75, 7, MIDDLE)
    assert found == Over(1, "10 restarts from checkpoint 7 have brought no new one")
    assert isinstance(after_end(POLICY, history, 75, 8, MIDDLE), Again)  # one more checkpoint would have been progress


@pytest.mark.parametrize("code", [2, 65, 78])
def test_what_a_restart_cannot_mend_is_not_started_again(code: int) -> None:
    found = after_end(POLICY, History(), code, 1, MIDDLE)
    assert isinstance(found, Over)
    assert found.code == code
    assert found.reason.startswith("not started again: ") or code == 2


@pytest.mark.parametrize("code", [1, 70, 74, 75, 130, 137, 139, 143])
def test_what_a_restart_may_mend_is(code: int) -> None:
    assert isinstance(after_end(POLICY, History(), code, 1, MIDDLE), Again)


def test_a_good_end_is_an_end() -> None:
    assert after_end(POLICY, History(), 0, 1, MIDDLE) == Over(0)


def _hunts(deaths: list[tuple[int, int | None]]) -> list[str]:
    """What follows on deaths with these codes, in stretches of so many lines, all at one checkpoint."""
    history, hunts = History(5), []
    for code, lines in deaths:
        found = after_end(replace(POLICY, hunts=True, tries=100), history, code, 5, MIDDLE, lines)
        assert isinstance(found, Again)
        history = found.history
        hunts.append(found.hunt)
    return hunts


def test_a_hunt_begins_when_nothing_else_helps_and_sets_a_single_record_aside() -> None:
    """When the pipeline has died at it twice, read alone."""
    deaths = [(137, lines) for lines in (None, None, None, None, 400, 9, 1, 1, None)]
    assert _hunts(deaths) == ["", "", "", "narrow", "narrow", "narrow", "narrow", "set-aside", "narrow"]


@pytest.mark.parametrize("code", [74, 75, 143])
def test_a_record_is_not_to_blame_for_disks_databases_and_people(code: int) -> None:
    assert _hunts([(code, None)] * 5 + [(code, 1)] * 3) == [""] * 8
    assert _hunts([(137, None)] * 4 + [(137, 1), (code, 1), (137, 1)]) == ["", "", "", "narrow", "narrow", "", "narrow"]


def test_only_who_hunts_sets_records_aside() -> None:
    assert after_end(POLICY, History(), 137, 5, MIDDLE, 1) == after_end(POLICY, History(), 137, 5, MIDDLE, 1)
    found = after_end(POLICY, History(alone=1), 137, 5, MIDDLE, 1)
    assert isinstance(found, Again)
    assert not found.hunt


def test_only_some_records_are_set_aside() -> None:
    found = after_end(replace(POLICY, hunts=True), History(set_aside=10, alone=1), 137, 20, MIDDLE, 1)
    assert found == Over(1, "10 records have been set aside, and it still dies")
