"""Mistakes in the checkpoint protocol, made on purpose: for each there is a test that fails.

    make mutants                       all of them, some minutes; for the night, or by hand after a change of the protocol
    python tests/mutants.py NAME…      those whose names have one of these words in them
    tests/test_mutants.py              the quick ones, in every run of the tests

A mutant is a copy of the program in which some text was replaced. It must be caught: the tests that are named for it
must fail there, and pass in a copy without the mistake. One whose text is no longer there once says so: then the code
has changed, and the mistake has to be made in its new words.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent.parent
_SECONDS = 300  # for one mutant: what hangs was not caught


@dataclass(frozen=True)
class Mutant:
    """`old` stands once in clickpipe/`file`; `tests` as pytest takes them, below tests/."""

    name: str
    file: str
    old: str
    new: str
    tests: str
    quick: bool = False

    def __str__(self) -> str:
        return self.name


class Missed(Exception):
    """The mistake could not be made, or nobody saw it."""


_FUSED = "test_crash.py::test_a_fused_run_killed_there[{}]"
_SHELL = "test_crash.py::test_a_process_killed_there[{}]"
_LOST = "test_power_loss.py -k 'no_complete_checkpoint_is_lost and {}'"
_RESULTS = "test_power_loss.py -k 'results_after_a_power_loss and {}'"

MUTANTS = [
    # The manifest is the only commit point.
    Mutant(
        "the sink commits before the manifest",
        "engine/commit.py",
        "        directory.commit(manifest)\n",
        "        self._commit(manifest)\n        directory.commit(manifest)\n",
        "test_state.py::test_a_sink_commits_when_the_manifest_is_there",
        quick=True,
    ),
    Mutant(
        "a part can be seen before the manifest",
        "state/parts.py",
        'file.publish(self.hidden(epoch), "part")',
        'file.publish(self._shown(epoch), "part")',
        "test_state.py::test_a_part_is_seen_when_it_is_committed",
    ),
    Mutant(
        "a start does not finish what the manifest names",
        "engine/commit.py",
        "            self._commit(checkpoints.restore)\n",
        "            pass\n",
        "test_state.py::test_a_start_finishes_what_the_manifest_names",
        quick=True,
    ),
    Mutant(
        "the manifest does not wait for the files that it names",
        "engine/commit.py",
        "                self._wait_for(epoch, path, partial(_exists, path))\n",
        "                pass\n",
        "test_state.py::test_a_checkpoint_waits_for_its_files",
        quick=True,
    ),
    Mutant(
        "old checkpoints go before the new one is there",
        "engine/commit.py",
        '        kill_point("before-manifest")\n',
        '        directory.retire(-(10**9))\n        kill_point("before-manifest")\n',
        _SHELL.format("before-manifest-write-4"),
    ),
    Mutant(
        "a damaged manifest is passed over in silence",
        "state/epochs.py",
        "raise self._damaged(epoch, _MANIFEST)",
        "continue",
        "test_state.py::test_no_changed_byte_goes_unseen[MANIFEST.json]",
        quick=True,
    ),
    Mutant(
        "hashes are not compared",
        "state/epochs.py",
        'len(data) != file["bytes"] or digest(data) != file["hash"]',
        'len(data) != file["bytes"]',
        "test_state.py::test_no_changed_byte_goes_unseen[2-aggregate.state]",
    ),
    Mutant(
        "the hash of a manifest is not compared",
        "state/manifest.py",
        "line = unsealed(data)",
        'line = data.partition(b"\\n")[0]',
        "test_state.py::test_no_changed_byte_goes_unseen[MANIFEST.json]",
    ),
    Mutant(
        "the manifest does not wait for what sinks have staged",
        "engine/commit.py",
        'named + ([entry["appears"]] if "appears" in entry else [])',
        "named",
        "test_state.py::test_a_checkpoint_waits_for_its_files[staged]",
        quick=True,
    ),
    Mutant(
        "the manifest does not wait for state files",
        "engine/commit.py",
        "self._wait_for(epoch, stem, partial(directory.state_file, epoch, stem))",
        "directory.state_file(epoch, stem)",
        "test_state.py::test_a_checkpoint_waits_for_its_files[state]",
    ),
    Mutant(
        "a state file of an earlier run is taken for one of this run",
        "engine/checkpoints.py",
        'f"{place.label}.{self.run}"',
        "place.label",
        "test_state.py::test_a_state_file_of_another_run_is_not_waited_for",
        quick=True,
    ),
    # Barriers.
    Mutant(
        "a barrier is handled before the records that came before it",
        "core/loop.py",
        "                self._take(pull.batches, pull.dead, pull.read, pull.removed)\n",
        "                if pull.barrier is not None:\n"
        "                    self._tail.barrier(pull.barrier)\n"
        "                    pull.barrier = None\n"
        "                self._take(pull.batches, pull.dead, pull.read, pull.removed)\n",
        _FUSED.format("after-commit"),
    ),
    Mutant(
        "a barrier says where the batch before it ended",
        "core/inorder.py",
        "            one.offset = block.end\n            pull.barrier = self._next_barrier()\n",
        "            pull.barrier = self._next_barrier()\n            one.offset = block.end\n",
        _FUSED.format("after-commit"),
    ),
    Mutant(
        "a barrier stands among the files of a round",
        "core/following.py",
        "                if last:\n                    yield last\n",
        "                if last:\n                    last.barrier = self._next_barrier()\n                    yield last\n",
        "test_follow.py::test_a_barrier_covers_what_was_handed_on",
        quick=True,
    ),
    Mutant(
        "the number of a checkpoint is used again by a run that a limit ends",
        "engine/local.py",
        "Barrier(max(self._last_epoch, self._feed.restore or 0) + 1)",
        "Barrier(self._last_epoch + 1)",
        "test_state.py::test_a_limit_that_was_reached_before_ends_at_a_new_checkpoint",
        quick=True,
    ),
    # Sinks in the middle.
    Mutant(
        "only the last sink is committed",
        "engine/commit.py",
        '            if "staged" in entry:\n',
        '            if "staged" in entry and entry["hop"] == self._place.hop:\n',
        "test_pass.py::'test_a_limit_behind_a_sink_does_not_cut_it_short[ --checkpoint 1ms-True]'",
        quick=True,
    ),
    Mutant(
        "what a sink in the middle has staged is not part of a checkpoint",
        "engine/local.py",
        "        entries += [sink.stage(barrier.epoch, self._checkpoints, ended=ended) for sink in self._middle]\n",
        "",
        "test_pass.py::'test_a_limit_behind_a_sink_does_not_cut_it_short[ --checkpoint 1ms-True]'",
    ),
    Mutant(
        "a sink in the middle believes its output durable at once",
        "sinks/file.py",
        "self._parts.durable(file, epoch), self._parts.hidden(epoch))",
        "self._parts.durable(file, epoch), self._parts._folder)",
        "test_pass.py::test_a_process_killed_there[file+file-1-before-part-rename]",
    ),
    Mutant(
        "a sink in the middle does not wait until its output is visible",
        "engine/local.py",
        "            wait_until_complete(self._checkpoints, last.epoch)\n",
        "            pass\n",
        "test_pass.py::test_with_checkpoints_and_no_sink_at_the_end_it_says_so",
    ),
    Mutant(
        "who writes parts tidies the one that is being committed",
        "state/parts.py",
        'if name.startswith(".") and name != os.path.basename(self.hidden(restored)):',
        'if name.startswith("."):',
        "test_pass.py::test_a_writer_does_not_disturb_the_commit_beside_it",
        quick=True,
    ),
    Mutant(
        "who writes parts tidies the file that is being put together",
        "state/parts.py",
        '        if not (saved and saved["ended"]):\n            self._tidy(restored)\n',
        "        self._tidy(restored)\n",
        "test_pass.py::test_a_writer_does_not_disturb_the_commit_beside_it",
    ),
    Mutant(
        "what was written there is not counted",
        "state/parts.py",
        '        if len(self._visible()) != said["parts"]:\n',
        "        if False:\n",
        "test_crash.py::'test_results_that_are_not_where_they_were[a part gone]'",
    ),
    # How a run is stopped.
    Mutant(
        "a stop closes the windows",
        "core/loop.py",
        "        if not self._feed.is_stopped:\n            self._advance(FOREVER)\n",
        "        self._advance(FOREVER)\n",
        "test_stop.py::test_stopped_it_goes_on_with_its_windows[alone]",
    ),
    Mutant(
        "a stop says that the input has ended",
        "engine/ends.py",
        "self._floats, ended=not is_stopped)",
        "self._floats, ended=True)",
        "test_stop.py::test_a_file_at_rest_can_be_stopped_in_its_middle",
    ),
    Mutant(
        "a stop puts the files of sinks in the middle together",
        "engine/local.py",
        "last = self._extended(last, ended=not self._feed.is_stopped)",
        "last = self._extended(last, ended=True)",
        "test_stop.py::test_a_sink_in_the_middle_goes_on_too",
    ),
    Mutant(
        "a stopped run writes no last checkpoint",
        "core/intake.py",
        "        if self.epochs:\n            self.last",
        "        if self.epochs and not self.is_stopped:\n            self.last",
        "test_stop_input.py::test_stop_saves_where_it_is",
        quick=True,
    ),
    Mutant(
        "a stop is a drain",
        "core/intake.py",
        "self.is_stopped = self._is_stopping and not self._drains",
        "self.is_stopped = False",
        "test_stop_input.py::test_stop_of_files_at_rest[False]",
        quick=True,
    ),
    Mutant(
        "the steps behind the source do not hear of a stop",
        "engine/feeds.py",
        "self.is_stopped, self.before = end.is_stopped, end.before",
        "self.is_stopped, self.before = False, end.before",
        "test_stop.py::test_a_shell_pipeline_is_stopped_at_its_source",
    ),
    Mutant(
        "a stop forgets what was read ahead of live input",
        "core/inorder.py",
        "if self._is_stopping and not one.split.is_live:",
        "if self._is_stopping:",
        "test_stop_input.py::test_what_was_read_ahead_of_live_input_is_not_lost_by_a_stop",
        quick=True,
    ),
    Mutant(
        "live input that a stop has cut short is taken for read",
        "core/inorder.py",
        "                if self._is_stopping:\n                    return\n                one.finish(",
        "                one.finish(",
        "test_stop_input.py::test_stop_of_live_standard_input[False]",
    ),
    # Files that are followed.
    Mutant(
        "a followed file is read from its beginning",
        "core/tail.py",
        '            self._append(file, identity["offset"], has_records=identity["records"])\n',
        '            self._append(file, has_records=identity["records"])\n',
        "test_follow.py::test_growth_and_a_partial_last_line",
        quick=True,
    ),
    Mutant(
        "the clock of a followed path is forgotten",
        "core/tail.py",
        'said["given"], said["greatest"]\n',
        'said["given"], None\n',
        "test_follow.py::test_the_clock_of_a_path_goes_on_over_a_rotation_and_a_restart",
    ),
    Mutant(
        "that a followed path had given records is forgotten",
        "core/tail.py",
        'self.has_given, self.clock.greatest = said["given"],',
        "self.has_given, self.clock.greatest = False,",
        "test_follow.py::test_the_watermark_goes_on_over_a_restart",
    ),
    Mutant(
        "the watermark of followed files goes back at a restart",
        "core/intake.py",
        '        self._watermark.reached = saved["reached"]\n',
        "",
        "test_follow.py::test_the_watermark_goes_on_over_a_restart",
        quick=True,
    ),
    Mutant(
        "a file that wakes up is judged by its own clock only",
        "core/following.py",
        "            tail.clock.lift(self._reached)\n",
        "            pass\n",
        "test_idle.py::test_a_file_that_wakes_up_is_waited_for_again",
    ),
    Mutant(
        "who has not been looked at is idle",
        "core/idle.py",
        "        silence = self._looked.get(split, 0) - self._heard.get(split, 0)\n",
        "        silence = max(self._looked.values(), default=0) - self._heard.get(split, 0)\n",
        "test_idle.py::test_who_was_not_looked_at_is_not_idle",
    ),
    Mutant(
        "windows that close by the wall clock wait for a record to be saved",
        "core/intake.py",
        "        self._is_new |= (has_moved and bool(idle)) or idle != self._idle\n",
        "",
        "test_idle.py -k 'worth_a_checkpoint or counts_anew'",
    ),
    Mutant(
        "the first batch of a file takes the watermark to the next file",
        "core/inorder.py",
        "self._advance({one.split.name: one.clock.watermark} | to_come, now)",
        "self._advance(to_come or {one.split.name: one.clock.watermark}, now)",
        "test_several_files.py -k False",
    ),
    Mutant(
        "files that wait for their turn are held in memory",
        "core/inorder.py",
        "if one.opened is None and one.split.can_be_read_again:",
        "if not one.split.name:",
        "test_many_files.py -k 'memory and read'",
    ),
    Mutant(
        "of all followed files a batch is looked at",
        "core/following.py",
        "                if lines >= SAMPLE:\n                    break",
        "                if not sample:\n                    break",
        "test_many_files.py -k 'memory and followed'",
    ),
    Mutant(
        "a file that waits is read by its name",
        "sources/file.py",
        "            self._known = file\n",
        "            return file\n",
        "test_many_files.py::test_a_file_that_waits_is_the_one_that_was_looked_at",
    ),
    Mutant(
        "files that were left are read again",
        "core/tail.py",
        'self._pass(said["past"])',
        "self._pass([])",
        "test_follow.py -k 'renamed_inside_the_glob'",
    ),
    Mutant(
        "a followed file that cannot be found again is passed over",
        "core/tail.py",
        "            if not self._is_found(identity) and not (",
        "            if not self._is_found(identity) and False and not (",
        "test_follow.py::test_what_cannot_be_found_any_more_stops_the_run",
        quick=True,
    ),
    # What is restored.
    Mutant(
        "operators begin empty",
        "engine/checkpoints.py",
        "return redivided(saved, before, worker)",
        "return {}",
        _FUSED.format("after-commit"),
        quick=True,
    ),
    Mutant(
        "the input is read from its beginning",
        "core/progress.py",
        'said["offset"] if now else 0',
        "0",
        _FUSED.format("after-commit"),
    ),
    Mutant(
        "the input is taken for read a batch too far",
        "core/inorder.py",
        "            one.offset = block.end\n            pull.barrier = self._next_barrier()\n",
        "            one.offset = block.end + 64\n            pull.barrier = self._next_barrier()\n",
        _FUSED.format("after-commit"),
    ),
    Mutant(
        "the watermark of a file is forgotten",
        "core/progress.py",
        'greatest=said["greatest"])',
        "greatest=None)",
        "test_state.py::test_a_file_is_measured_by_itself_behind_a_checkpoint_too",
        quick=True,
    ),
    Mutant(
        "floats are forgotten",
        "engine/checkpoints.py",
        'return {name for place in places for entry in self.restore.all_of(place.hop, "floats") for name in entry["floats"]}',
        "return set()",
        "test_crash.py::test_a_csv_that_was_killed_spells_numbers_the_same",
    ),
    Mutant(
        "accounts begin at nothing",
        "engine/ends.py",
        "for said in restore.accounts] if restore else []",
        "for said in restore.accounts] if restore and False else []",
        "test_crash.py::test_a_run_that_has_ended_is_not_run_again",
        quick=True,
    ),
    Mutant(
        "limit begins to count again",
        "operators/limit.py",
        'int(saved["left"].item()) if "left" in saved else count',
        "count",
        "test_crash.py::test_limit_ends_a_pipeline_with_checkpoints[True]",
    ),
    Mutant(
        "bad records of earlier runs are forgiven",
        "engine/local.py",
        "return added(ledger, Ledger.from_json(dict(restore.accounts[0]))) if restore else ledger",
        "return ledger",
        "test_crash.py::test_max_errors_counts_over_all_runs",
    ),
    Mutant(
        "another input is read on",
        "core/progress.py",
        'if now != said["identity"] and (said["offset"] or not self.split.left(0)):',
        "if False:",
        "test_crash.py::test_a_changed_input_is_refused",
    ),
    # Side streams.
    Mutant(
        "late records are not part of a checkpoint",
        "engine/local.py",
        "(*barrier.state, *entries, *self._sides.entries(barrier.epoch))",
        "(*barrier.state, *entries)",
        _FUSED.format("after-commit"),
    ),
    Mutant(
        "an append that is repeated is two",
        "state/files.py",
        "            at = min(at, os.fstat(descriptor).st_size)\n",
        "            at = os.fstat(descriptor).st_size\n",
        "test_state.py::test_an_append_that_is_repeated_is_one",
        quick=True,
    ),
    Mutant(
        "what an append that was cut short has left stays",
        "state/files.py",
        "            os.ftruncate(descriptor, at)\n",
        "",
        "test_state.py::test_an_append_that_is_repeated_is_one",
    ),
    Mutant(
        "two appends to one file go to one place",
        "engine/commit.py",
        'ends.get(append["to"], length_of(append["to"]))',
        'length_of(append["to"])',
        "test_crash.py::test_bad_records_of_several_processes_meet_in_one_file",
    ),
    # Views.
    Mutant(
        "rows and marker of a view are two transactions",
        "store/views.py",
        '            run("INSERT OR REPLACE INTO _marker',
        '            run("COMMIT")\n            run("BEGIN")\n            run("INSERT OR REPLACE INTO _marker',
        "test_views.py -k before-view-commit",
        quick=True,
    ),
    Mutant(
        "a view is given the rows of a checkpoint again",
        "store/views.py",
        "known.lineage == marker.lineage and known.epoch >= marker.epoch",
        "False",
        "test_views.py -k after-view-commit",
    ),
    Mutant(
        "a view that is ahead is written to",
        "sinks/view.py",
        "        if is_ahead:\n",
        "        if False:\n",
        "test_views.py::test_results_that_no_checkpoint_knows_of_stop_the_run",
    ),
    Mutant(
        "a view that is behind is written to",
        "sinks/view.py",
        '(known is None or known.epoch < saved.get("after", 0))',
        "False",
        "test_state_trouble.py -k 'view_that_is_not_what_it_was and (gone or older)'",
    ),
    Mutant(
        "parts that are ahead are added to",
        "state/parts.py",
        "        elif ahead:\n",
        "        elif False:\n",
        "test_state.py::test_parts_that_no_checkpoint_knows_of_stop_a_run",
    ),
    # Who may write.
    Mutant(
        "epoch numbers are used again",
        "state/directory.py",
        'max([identity["epoch"], *epochs]) + 1',
        "max([0, *epochs]) + 1",
        "test_state.py::test_run_and_epoch_numbers_are_never_used_again",
        quick=True,
    ),
    Mutant(
        "run numbers are used again",
        "state/directory.py",
        'run, epoch = identity["run"] + 1, max',
        'run, epoch = identity["run"] or 1, max',
        "test_state.py::test_run_and_epoch_numbers_are_never_used_again",
    ),
    Mutant(
        "processes of an older run are let in",
        "state/directory.py",
        "        if newest != run:\n",
        "        if False:\n",
        "test_state.py::test_a_newer_run_keeps_older_processes_out",
        quick=True,
    ),
    Mutant(
        "a start does not wait for the processes of the run before",
        "state/directory.py",
        'held = self._lock("lock", fcntl.LOCK_EX)',
        'held = self._lock("lock", fcntl.LOCK_SH)',
        "test_state.py::test_a_run_waits_for_every_process_of_the_one_before",
        quick=True,
    ),
    Mutant(
        "a run lets its lock go when it has begun",
        "state/directory.py",
        "        fcntl.flock(held, fcntl.LOCK_SH)\n",
        "        fcntl.flock(held, fcntl.LOCK_UN)\n",
        "test_state.py::test_a_run_waits_for_every_process_of_the_one_before",
    ),
    Mutant(
        "a process that joins takes no lock",
        "state/directory.py",
        '        self._lock("lock", fcntl.LOCK_SH)\n        newest',
        "        newest",
        "test_state.py::test_a_run_waits_for_every_process_of_the_one_before",
    ),
    Mutant(
        "a damaged run number is believed",
        "state/directory.py",
        "line = unsealed(read_own(path))",
        'line = read_own(path).partition(b"\\n")[0]',
        "test_state.py::test_a_changed_identity_is_refused",
    ),
    Mutant(
        "a pipeline may have two supervisors",
        "state/directory.py",
        'self._lock("supervisor.lock", fcntl.LOCK_EX,',
        'self._lock("supervisor.lock", fcntl.LOCK_SH,',
        "test_supervisor.py::test_a_second_supervisor_is_refused",
    ),
    Mutant(
        "restarts without progress go on for ever",
        "engine/restart.py",
        "    if history.without_progress >= policy.tries:\n",
        "    if False:\n",
        "test_restart.py::test_ten_restarts_without_progress_are_enough",
        quick=True,
    ),
    Mutant(
        "progress does not count",
        "engine/restart.py",
        "without_progress=0 if new else history.without_progress,",
        "without_progress=history.without_progress,",
        "test_restart.py::test_ten_restarts_without_progress_are_enough",
    ),
    Mutant(
        "what a restart cannot mend is started again",
        "engine/restart.py",
        "    if code in _NEVER:\n",
        "    if False:\n",
        "test_restart.py::test_what_a_restart_cannot_mend_is_not_started_again",
    ),
    Mutant(
        "no checkpoint is a checkpoint every 0 s",
        "operators/ingest.py",
        "self.checkpoint is not None and self.checkpoint <= 0",
        "self.checkpoint is not None and self.checkpoint < 0",
        "test_state.py::test_no_checkpoint_is_no_interval",
    ),
    # Streams.
    Mutant(
        "the end of a file is taken for the end of the stream",
        "wire/stream.py",
        "        raise self._cut_short()\n",
        "        return\n",
        "test_stream.py::test_a_step_that_is_killed_takes_the_rest_down",
        quick=True,
    ),
    # What survives.
    Mutant(
        "files are not synced",
        "state/files.py",
        '            kill_point(f"before-{kind}-fsync")\n            _fsync(descriptor)\n',
        '            kill_point(f"before-{kind}-fsync")\n',
        _LOST.format("file"),
        quick=True,
    ),
    Mutant(
        "published files are not synced",
        "state/files.py",
        '            kill_point(f"before-{kind}-fsync")\n            _fsync(self._descriptor)\n',
        '            kill_point(f"before-{kind}-fsync")\n',
        _RESULTS.format("file"),
    ),
    Mutant(
        "folders are not synced",
        "state/files.py",
        "        _fsync(descriptor)\n    finally:\n",
        "        pass\n    finally:\n",
        _LOST.format("file"),
        quick=True,
    ),
    Mutant(
        "the folders on the way to the state are not synced",
        "state/directory.py",
        "        sync_way(epochs)\n",
        "",
        _LOST.format("view"),
    ),
    Mutant(
        "the folder of the parts is not synced",
        "engine/commit.py",
        "            sync_folder(os.path.dirname(folder))\n",
        "",
        _LOST.format("shell"),
    ),
    Mutant(
        "the folder of the views is not synced",
        "store/views.py",
        "        sync_way(folder())\n",
        "",
        _RESULTS.format("view"),
    ),
    Mutant(
        "SQLite does not sync when it commits",
        "store/views.py",
        "PRAGMA synchronous=FULL",
        "PRAGMA synchronous=NORMAL",
        _RESULTS.format("view"),
    ),
    Mutant(
        "a checkpoint that was found is redone before it is safe",
        "state/directory.py",
        "            self.sync(restore.epoch)",
        "            pass",
        "test_state.py::test_a_checkpoint_that_is_found_is_made_safe_before_it_is_redone",
        quick=True,
    ),
    Mutant(
        "a failed fsync is passed over",
        "state/files.py",
        '            kill_point(f"before-{kind}-fsync")\n            _fsync(descriptor)\n',
        '            kill_point(f"before-{kind}-fsync")\n            with contextlib.suppress(OSError):\n'
        "                _fsync(descriptor)\n",
        "test_state.py::test_a_file_whose_fsync_fails_is_not_there",
        quick=True,
    ),
    Mutant(
        "an append whose fsync failed is passed over",
        "state/files.py",
        '            kill_point("before-append-fsync")\n            _fsync(descriptor)\n        finally',
        '            kill_point("before-append-fsync")\n            with contextlib.suppress(OSError):\n'
        "                _fsync(descriptor)\n        finally",
        "test_state.py::test_an_append_whose_fsync_fails_is_said_to",
    ),
    Mutant(
        "a full disk at fsync is passed over",
        "state/files.py",
        '    may_fail("fsync", descriptor)\n    os.fsync(descriptor)\n',
        '    with contextlib.suppress(*([OSError] if "ENOSPC" in os.environ.get("CLICKPIPE_FAIL", "") else [])):\n'
        '        may_fail("fsync", descriptor)\n        os.fsync(descriptor)\n',
        "test_failing_calls.py::test_each_call_fails_once[fsync-ENOSPC]",
    ),
    Mutant(
        "a file whose fsync failed is trusted when the second one does not",
        "state/files.py",
        '    may_fail("fsync", descriptor)\n    os.fsync(descriptor)\n',
        '    try:\n        may_fail("fsync", descriptor)\n    except OSError:\n        os.fsync(descriptor)\n',
        "test_failing_calls.py::test_each_call_fails_once[fsync-EIO]",
    ),
    # Logs.
    Mutant(
        "an index knows a batch before it is durable",
        "store/logwriter.py",
        '        self._file.sync()\n        kill_point("after-log-fsync")\n'
        "        known, self._acknowledged = self._acknowledged, []\n",
        '        known, self._acknowledged = self._acknowledged, []\n        kill_point("after-log-fsync")\n',
        "test_log_care.py::test_what_an_fsync_has_failed_on_is_not_taken_for_durable",
    ),
    Mutant(
        "what a checkpoint brings to a log takes the place of what another has written",
        "store/logappend.py",
        "if end_of(indexed(name)) <= at:",
        "if True:",
        "test_log_care.py::test_nothing_is_appended_behind_what_another_has_written",
    ),
    Mutant(
        "segments go before the log says so",
        "store/logcare.py",
        "    write_meta(log.path, replace(log.meta, starts=tuple(starts)))\n",
        "",
        "test_log_care.py -k a_retention_that_died",
    ),
    Mutant(
        "retention does not ask the checkpoints",
        "store/logcare.py",
        "(found.held if by else found.gone)",
        "found.gone",
        "test_logs.py::test_what_a_checkpoint_needs_stays",
    ),
    Mutant(
        "a repair leaves the log its id",
        "store/logmeta.py",
        "return replace(self, id=secrets.token_hex(16), starts=tuple(starts), before=tuple(before))",
        "return replace(self, starts=tuple(starts))",
        "test_log_care.py::test_who_had_read_what_a_repair_took_away_is_told_and_nobody_else",
    ),
    Mutant(
        "what was spooled before the first checkpoint is forgotten",
        "operators/ingest.py",
        "spool.first = directory.spooled(spool.id, spool.first)",
        "pass",
        "test_log_care.py::test_what_was_spooled_before_the_first_checkpoint_is_read_by_the_next_run",
    ),
]


class Copy:
    """The program and its tests in a folder of their own, in which one mistake after the other is made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("clickpipe", "tests"):
            shutil.copytree(HERE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "cases", "bench"))
        shutil.copy(HERE / "pyproject.toml", folder)

    def catches(self, mutant: Mutant) -> None:
        """Raises Missed."""
        path = self._folder / "clickpipe" / mutant.file
        text = path.read_text()
        if text.count(mutant.old) != 1:
            raise Missed(f"{mutant}: clickpipe/{mutant.file} has this {text.count(mutant.old)} times, not once:\n{mutant.old}")
        try:
            self._write(path, text.replace(mutant.old, mutant.new))
            done = self.run([mutant.tests])
        finally:
            self._write(path, text)
        if done.returncode != 1:  # 1: tests have failed; 0: all passed; others: they could not be run
            raise Missed(f"{mutant}: nobody saw it (pytest ends with {done.returncode})\n{done.stdout[-2_000:]}")

    def run(self, tests: list[str]) -> subprocess.CompletedProcess[str]:
        """Each is what pytest is given, once."""
        words = [word for test in tests for word in shlex.split(test)]
        words = [f"tests/{word}" if ".py" in word else word for word in words]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", *words]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        return subprocess.run(
            command,
            cwd=self._folder,
            env=environment | {"PYTHONPATH": str(self._folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )

    def _write(self, path: Path, text: str) -> None:
        """What is compiled goes too: it is told from the text by its second and its length only."""
        path.write_text(text)
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()


def main(words: list[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    missed = 0
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        copy = Copy(Path(folder))
        for tests in dict.fromkeys(mutant.tests for mutant in chosen):
            done = copy.run([tests])
            if done.returncode != 0 or "skipped" in done.stdout:
                print(f"without any mistake: {tests}\n{done.stdout[-2_000:]}")
                return 1
        for mutant in chosen:
            begun = time.monotonic()
            try:
                copy.catches(mutant)
                print(f"caught   {mutant} ({time.monotonic() - begun:.1f} s)", flush=True)
            except (Missed, subprocess.TimeoutExpired) as error:
                missed += 1
                print(f"MISSED   {error}", flush=True)
    print(f"{len(chosen)} mistakes, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
