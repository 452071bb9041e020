"""Plans -> processes under the supervisor."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial

from clickpipe.cli.service import Service
from clickpipe.cli.words import say
from clickpipe.core.cores import cores
from clickpipe.core.step import MergeStep, PartitionStep, SourceStep
from clickpipe.engine.notify import manager, unmanaged
from clickpipe.engine.restart import Policy
from clickpipe.engine.supervisor import Pipeline, Supervisor
from clickpipe.errors import Caution, PlanError
from clickpipe.operators.ingest import Ingest
from clickpipe.plan.parse import located
from clickpipe.plan.plan import Node, Plan
from clickpipe.state.home import pipeline_directory
from clickpipe.state.samples import SWITCH


def supervise(plans: Sequence[Plan], words: Sequence[list[list[str]]], codec: str, policy: Policy | None) -> int:
    """The exit code. `words`: of each plan's processes, `clickpipe` left out. Raises PlanError, OutsideError.

    The number of a partition's workers follows the load where one process starts them all, and no record is lost by that.
    """
    pipelines = [_pipeline(plan, said, rescales=policy is not None) for plan, said in zip(plans, words, strict=True)]
    names = [one.name for one in pipelines]
    for plan, name in zip(plans, names, strict=True):
        if names.count(name) > 1:
            raise PlanError(f'two pipelines are called "{name}"', hint="ingest --name")
        if len(plans) > 1 and any(node.step.reads_standard_input for node in plan.nodes if isinstance(node.step, Ingest)):
            raise PlanError(f"{name} reads standard input: it must be the only one")
    environment = {**os.environ, "CLICKPIPE_CODEC": codec}
    tell, served = partial(_tell, names), manager(os.environ)
    if served is None:
        return Supervisor(pipelines, environment, tell, policy).run()
    environment = {**unmanaged(environment), SWITCH: "on"}  # how they are is known from their samples
    told = [any(isinstance(node.step, Ingest) for node in plan.nodes) for plan in plans]
    processes = {one.name: len(one.commands) for one, is_told in zip(pipelines, told, strict=True) if is_told}
    return Supervisor(pipelines, environment, tell, policy, Service(served, processes)).run()


def _tell(names: Sequence[str], text: str) -> None:
    """What the supervisor says begins with the name of the pipeline that it is about."""
    about = next((name for name in names if text.startswith(f"{name}: ")), None)
    say(text, **({"pipeline": about} if about else {}))


def step_words(plan: Plan, *, quiet: bool) -> list[list[str]]:
    """A process per step; a partition runs those of its workers."""
    return [_quoted(some) if isinstance(some[0].step, PartitionStep) else _words(some[0], plan, quiet) for some in _blocks(plan)]


def _blocks(plan: Plan) -> list[list[Node]]:
    """The steps, each alone but for those from a partition to its merge."""
    blocks: list[list[Node]] = []
    for node in plan.nodes:
        is_inside = bool(blocks) and isinstance(blocks[-1][0].step, PartitionStep)
        if is_inside and not isinstance(blocks[-1][-1].step, MergeStep):
            blocks[-1].append(node)
        else:
            blocks.append([node])
    return blocks


def _quoted(block: Sequence[Node]) -> list[str]:
    """A partition as a shell has it, with the other steps in quotes."""
    partition, *others = block
    assert isinstance(partition.step, PartitionStep)
    words = [partition.written.name, *partition.written.words]
    quoted = " | ".join(shlex.join([node.written.name, *node.written.words]) for node in others)
    return words if partition.step.steps is not None else [*words, quoted]


def _words(node: Node, plan: Plan, quiet: bool) -> list[str]:
    words = [node.written.name, *node.written.words]
    if isinstance(node.step, SourceStep) and plan.name and getattr(node.step, "name", "") is None:
        words += ["--name", plan.name]
    if node is plan.sink and quiet:
        words.append("--quiet")
    return words


def _pipeline(plan: Plan, words: list[list[str]], *, rescales: bool) -> Pipeline:
    commands = [[sys.executable, "-m", "clickpipe", *one] for one in words]
    name = name_of(plan)
    partitions = [node.step for node in plan.nodes if isinstance(node.step, PartitionStep)]
    _tell_of_crowds(name, partitions)
    if not plan.takes_checkpoints:
        listens = any(isinstance(node.step, Ingest) and node.step.has_clients for node in plan.nodes)
        return Pipeline(name, commands, None, listens=listens and len(words) == 1)
    is_replayable = all(node.step.is_replayable for node in plan.nodes if isinstance(node.step, Ingest))
    follows = rescales and is_replayable and len(words) == 1 and any(step.is_auto for step in partitions)
    return Pipeline(name, commands, pipeline_directory(name), partitions if follows else ())


def _tell_of_crowds(name: str, partitions: Sequence[PartitionStep]) -> None:
    most = max((step.most for step in partitions), default=0)
    if most > cores():
        say(Caution(f"{name}: {most} workers share {cores()} core{'s' if cores() > 1 else ''}, which makes them no faster"))


def name_of(plan: Plan) -> str:
    """What a pipeline is called. Raises what is wrong with its source."""
    return next((_name(node, plan) for node in plan.nodes if isinstance(node.step, Ingest)), plan.name or "pipeline")


def _name(node: Node, plan: Plan) -> str:
    """What its state is kept under. Raises what is wrong with its source."""
    assert isinstance(node.step, Ingest)
    with located(node.written):
        return node.step.pipeline(plan.name)
