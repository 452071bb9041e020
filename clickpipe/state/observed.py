"""What a pipeline without checkpoints has seen of its input's times: lateness.json in its state directory.

    {"clickpipe":"lateness","v":1,"out_of_orderness":5000,"splits":[{"name":"in.ndjson","lateness":{…}}]}

With checkpoints the same stands in each manifest, among the positions. Nothing depends on it but what people are told,
so a file that cannot be written is done without.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson

from clickpipe.errors import ClickpipeError, StateError
from clickpipe.state.files import make_folder, write_whole
from clickpipe.state.trust import read_own

VERSION = 1
NAME = "lateness.json"


def keep(directory: str, said: Mapping[str, Any]) -> None:
    """`said`: the settings, and what was seen of each split."""
    with suppress(ClickpipeError):
        make_folder(directory)
        write_whole(
            os.path.join(directory, NAME), orjson.dumps({"clickpipe": "lateness", "v": VERSION, **said}) + b"\n", "lateness"
        )


def kept(directory: str) -> dict[str, Any] | None:
    """None where there is none. Raises StateError for one that is not of this version, or damaged."""
    path = os.path.join(directory, NAME)
    try:
        said: dict[str, Any] = orjson.loads(read_own(path))
        if said["v"] == VERSION:
            return said
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise StateError(f"{path} is damaged", hint="the next run writes it anew") from None
    raise StateError(f"{path} is of format version {said['v']}; this clickpipe reads version {VERSION}")
