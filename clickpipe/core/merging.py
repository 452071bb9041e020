"""How the values of a result become those of coarser windows: what a result's columns say of it, for `rollup`.

count  sum                         sum of the values
min  max  bool_and  bool_or        the same again
first  last                        the same, in the order of the windows
avg                                of NAME_n and NAME_sum, where --keep-pieces has kept them
sketches                           merge
all others                         not at all
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from clickpipe.columns import Merging
from clickpipe.core.calls import Named
from clickpipe.core.compiled import Compiled


def with_pieces(named: Named, kept: Mapping[str, str]) -> Iterator[Named]:
    """A call, and those whose values are its pieces. `kept`: which functions they are of."""
    yield named
    for piece, function in kept.items():
        text = f"{function}({named.argument})"
        yield replace(named, name=piece_of(named.name, piece), text=text, function=function)


def piece_of(name: str, piece: str) -> str:
    """The column that holds a piece of this one."""
    return f"{name}_{piece}"


def merges(calls: Iterable[tuple[Compiled, Sequence[str]]], *, has_pieces: bool, why: str) -> dict[str, Merging]:
    """Of calls with the columns that they give. `has_pieces`: these stand beside; `why`: what else keeps them from it."""
    found: dict[str, Merging] = {}
    for call, (name, *bounds) in calls:
        found[name] = _merging(call, has_pieces, why)
        found |= dict.fromkeys(bounds, Merging(call.named.function, why="it is a bound of an estimate"))
    return found


def _merging(call: Compiled, has_pieces: bool, why: str) -> Merging:
    function, name = call.function, call.named.name
    pieces = {piece: piece_of(name, piece) for piece in function.kept} if has_pieces else {}
    return Merging(call.named.function, function.rolled_up, pieces, why)
