"""What the protocol promises to do, each promise a switch; what may go wrong; and what must hold all the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Rules:
    """The protocol's rules. All true is the protocol; each one alone, false, breaks it."""

    manifest_first: bool = True  # outputs are committed after the manifest is in place, never before
    redo_on_start: bool = True  # a start finishes the commits of the manifest it starts from
    marker_with_data: bool = True  # an output's data and its marker are one transaction
    one_unit: bool = True  # all that is staged up to an epoch is one transaction, not one for each epoch
    middle_waits: bool = True  # a sink in the middle is committed by the manifest, not at its own barrier
    late_waits: bool = True  # so is the late stream
    merge_aligns: bool = True  # the merge stops reading an input that has delivered the barrier
    merge_waits_for_all: bool = True  # it passes the barrier on when all inputs have delivered it, not at the first
    files_waited_for: bool = True  # the manifest is written when every file that the barrier names is in place
    durable_before_visible: bool = True  # a state file has its name only when it is whole
    hashes_checked: bool = True  # a start uses only a manifest that is whole, with all its files
    position_restored: bool = True  # the source goes on from the manifest, not from where it had read to
    watermark_restored: bool = True
    held_restored: bool = True  # what the workers hold: any operator's state
    fresh_epochs: bool = True  # no epoch number is used twice, whether or not it came to a manifest
    halts_when_behind: bool = True  # no silent start from a manifest that is older than an output's marker
    end_is_said: bool = True  # end of file is not `end`: nothing is flushed or committed for it
    end_is_covered: bool = True  # the last sink fails at `end` if no manifest covers what it has staged
    aborted_is_kept: bool = True  # what was staged for an aborted epoch goes into the next manifest
    old_is_kept: bool = True  # an old checkpoint goes after the commits of the next, not before its manifest
    start_waits_for_lock: bool = True  # a run starts when no process of an earlier one holds the lock
    run_is_checked: bool = True  # a process that takes the lock exits if the run number is not its own


class Faults(NamedTuple):
    """How many of each may still happen."""

    crashes: int = 0  # one process dies; the others go on until they are restarted
    aborts: int = 0  # a state file cannot be written
    pauses: int = 0  # a process stops; it may go on, even after the next run has started
    damages: int = 0  # the newest manifest becomes unreadable while the pipeline is down


TWICE = "a record is committed twice"
MISPLACED = "a record is committed to an output that is not its own"
LOST = "the run has ended and a record is missing"
ORDER = "a manifest is not newer than the one before"
AHEAD = "an output's marker is ahead of the newest manifest"
BEHIND = "a start went back behind an acknowledged manifest"
HALTED = "a start halts although nothing was damaged"
PROMISES = frozenset({TWICE, MISPLACED, LOST, ORDER, AHEAD, BEHIND, HALTED})
