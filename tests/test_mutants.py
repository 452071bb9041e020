"""The tests see mistakes in the checkpoint protocol: the quick ones of tests/mutants.py. All of them: make mutants."""

from __future__ import annotations

from pathlib import Path

import pytest
from examples import some
from mutants import MUTANTS, Copy, Mutant
from power.calls import missing

QUICK = [mutant for mutant in MUTANTS if mutant.quick]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("copy"))


def test_without_a_mistake_nothing_is_seen(copy: Copy) -> None:
    """Else a copy in which nothing works would pass for a caught one."""
    done = copy.run([mutant.tests for mutant in QUICK if "-k" not in mutant.tests])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("mutant", some(QUICK, 6), ids=str)
def test_a_mistake_is_seen(mutant: Mutant, copy: Copy) -> None:
    if "power_loss" in mutant.tests and missing():
        pytest.skip(missing())
    copy.catches(mutant)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_every_mistake_can_be_made(mutant: Mutant) -> None:
    text = (Path(__file__).parent.parent / "clickpipe" / mutant.file).read_text()
    assert text.count(mutant.old) == 1, f"clickpipe/{mutant.file} has this {text.count(mutant.old)} times:\n{mutant.old}"
