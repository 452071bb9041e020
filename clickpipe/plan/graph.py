"""The tree of `explain` for programs that draw: Mermaid and Graphviz.

    flowchart TD                                  digraph "trending" {
      s1["ingest<br>…"]                             s1 [label="ingest\\l…\\l"];
      s1 --> s2                                     s1 -> s2;

Names and expressions hold any character. In Mermaid whatever may mean something to it stands as its number, #34;. In a quoted
string of Graphviz a quote and a backslash have a backslash before them, and & is &amp;.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from textwrap import wrap

from clickpipe.plan.explain import Told

_WIDTH = 44  # characters of a label's line
# Letters, digits, and what neither Markdown, HTML nor Mermaid's own grammar knows.
_SPECIAL = re.compile(r"[^\w .,()/+='-]|(?<!\w)_|_(?!\w)")


def mermaid(told: Sequence[Told], advised: Mapping[int, Sequence[str]], shown: Callable[[str], str]) -> str:
    """`advised`: names of advice by the step's number. `shown`: makes text of one line of any text."""
    lines = ["flowchart TD"]
    for partition, steps in _branches(told):
        boxes = [f's{one.number}["{"<br>".join(map(_numbers, _label(one, advised, shown)))}"]' for one in steps]
        if partition:
            lines += [f'  subgraph w{partition}["workers"]', *(f"    {box}" for box in boxes), "  end"]
        else:
            lines += [f"  {box}" for box in boxes]
    lines += [f"  s{before.number} --> s{after.number}" for before, after in pairwise(told)]
    return "\n".join(lines) + "\n"


def dot(name: str, told: Sequence[Told], advised: Mapping[int, Sequence[str]], shown: Callable[[str], str]) -> str:
    """The same; `name`: of the pipeline."""
    lines = [f'digraph "{_backslashed(shown(name))}" {{', "  node [shape=box, fontname=monospace];"]
    for partition, steps in _branches(told):
        boxes = [f's{one.number} [label="{_left(map(_backslashed, _label(one, advised, shown)))}"];' for one in steps]
        if partition:
            lines += [f"  subgraph cluster_{partition} {{", '    label="workers";', *(f"    {box}" for box in boxes), "  }"]
        else:
            lines += [f"  {box}" for box in boxes]
    lines += [f"  s{before.number} -> s{after.number};" for before, after in pairwise(told)]
    return "\n".join([*lines, "}"]) + "\n"


def _branches(told: Sequence[Told]) -> Iterator[tuple[int | None, list[Told]]]:
    """Steps that follow one another, and whether workers run them: then the number of their partition."""
    for partition, steps in groupby(told, lambda one: one.inside):
        yield partition, list(steps)


def _label(told: Told, advised: Mapping[int, Sequence[str]], shown: Callable[[str], str]) -> list[str]:
    """In lines."""
    lines = [told.step, shown(told.does), *_columns(told)]
    lines += [f"keeps {told.keeps.what}"] if told.keeps else []
    lines += [told.guarantee.level] if told.guarantee else []
    lines += [f"advice: {name}" for name in advised.get(told.number, ())]
    return [part for line in lines for part in wrap(shown(line), _WIDTH, break_on_hyphens=False)]


def _columns(told: Told) -> list[str]:
    if told.columns is None:
        return []
    return [f"{len(told.columns)} column{'' if len(told.columns) == 1 else 's'}"] if told.added or told.dropped is None else []


def _numbers(text: str) -> str:
    return _SPECIAL.sub(lambda match: f"#{ord(match[0])};", text)


def _backslashed(text: str) -> str:
    return text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')


def _left(lines: Iterator[str]) -> str:
    return "".join(f"{line}\\l" for line in lines)
