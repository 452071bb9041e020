"""A pipeline as it is typed -> a plan.

The words are a shell's: quotes, backslashes, `|` between steps, `#` comments, and a line break is
a space. Nothing is expanded.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from clickpipe.core.step import MergeStep, PartitionStep, Step
from clickpipe.errors import ClickpipeError, Place, PlanError
from clickpipe.plan.flags import parse_step
from clickpipe.plan.plan import Node, Plan, Written

_TOKEN = re.compile(
    r"""\s+ | (?P<comment>\#[^\n]*) | (?P<bar>\|) | (?P<word>(?:[^\s|'"\\]|'[^']*'|"(?:\\.|[^"\\])*"|\\.)+)""", re.X | re.S
)


def parse(text: str, *, name: str = "", origin: str = "", first_line: int = 0) -> Plan:
    """Raises PlanError that shows the place in the text."""
    written = _written(text, origin, first_line)
    return planned([Node(_step(one), one) for one in written], name)


def planned(nodes: Sequence[Node], name: str = "") -> Plan:
    """With the quoted steps of a partition as steps behind it, and a merge where none was written. Raises PlanError."""
    nodes = [inner for node in nodes for inner in _unquoted(node)]
    if nodes and isinstance(nodes[-1].step, PartitionStep):
        what = "which steps do the workers run? in a shell they stand in quotes"
        raise locate(PlanError(what, hint="partition --by user_id 'STEPS'"), nodes[-1].written)
    ends = [number for number, node in enumerate(nodes) if isinstance(node.step, (PartitionStep, MergeStep))]
    if ends and isinstance(nodes[ends[-1]].step, PartitionStep):
        nodes.insert(len(nodes) - (Plan(tuple(nodes)).sink is not None), _merge())
    plan = Plan(tuple(nodes), name)
    for step, error in plan.mistakes():
        raise locate(error, step)
    return plan


def _unquoted(node: Node) -> Iterator[Node]:
    yield node
    if isinstance(node.step, PartitionStep) and node.step.steps is not None:
        inner = [Node(_step(one), one) for one in _written(node.step.steps, "", 0)]
        yield from inner
        if not inner or not isinstance(inner[-1].step, MergeStep):
            yield _merge()


def _merge() -> Node:
    return Node(parse_step("merge", ()), Written("merge", ()))


def _step(written: Written) -> Step:
    try:
        return parse_step(written.name, written.words)
    except ClickpipeError as error:
        raise locate(error, written) from None


def _written(text: str, origin: str, first_line: int) -> Iterator[Written]:
    """The steps, each a name and its words."""
    words: list[str] = []
    at = start = 0
    ended_by_bar = False
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise _at(text, at, PlanError("a quote that is not closed"), origin, first_line)
        if token["word"]:
            start = start if words else at
            words.append((shlex.split(token["word"], posix=True) or [""])[0])
        elif token["bar"]:
            if not words:
                raise _at(text, at, PlanError("no step before this |"), origin, first_line)
            yield Written(words[0], tuple(words[1:]), text, start, at, origin, first_line)
            words, ended_by_bar = [], True
        at = token.end()
    if words:
        yield Written(words[0], tuple(words[1:]), text, start, len(text.rstrip()), origin, first_line)
    elif ended_by_bar:
        raise _at(text, len(text.rstrip()) - 1, PlanError("no step after the last |"), origin, first_line)
    else:
        raise PlanError("the pipeline is empty")


def locate(error: ClickpipeError, written: Written) -> ClickpipeError:
    """The error, with the step it is about and the word to blame underlined."""
    if error.place or not written.text:
        return error if error.place else error.at(written.name)
    found = _word_at(written, error.word)
    start, end = found if found else (written.start, written.start + len(written.name))
    return _at(written.text, start, error.at(written.name), written.origin, written.first_line, end)


@contextmanager
def located(written: Written) -> Iterator[None]:
    """What is raised within is about this step."""
    try:
        yield
    except ClickpipeError as error:
        raise locate(error, written) from None


def _word_at(written: Written, word: str) -> tuple[int, int] | None:
    if not word:
        return None
    stretch = written.text[written.start : written.end]
    at = re.search(rf"(?<![\w]){re.escape(word)}(?![\w])", stretch) or re.search(re.escape(word), stretch)
    return (written.start + at.start(), written.start + at.end()) if at else None


def _at(text: str, start: int, error: ClickpipeError, origin: str, first_line: int, end: int = 0) -> ClickpipeError:
    begin = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", start)
    line = text[begin : stop if stop >= 0 else len(text)]
    number = first_line + text.count("\n", 0, start) if first_line else None
    error.place = Place(line, start - begin, min((end or start + 1) - begin, len(line)), number)
    return error.at(f"{origin}:{number}") if origin else error
