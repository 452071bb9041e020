"""One thing that was found of a pipeline, in words and for programs. For `why`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from clickpipe.core.terminal import shown
from clickpipe.core.time import instant_text
from clickpipe.engine.rebuilt import Rebuilt
from clickpipe.state.history import Moment


@dataclass(frozen=True)
class Told:
    """One thing that was found: which, in words, and for programs."""

    what: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


def spelled_steps(rebuilt: Rebuilt) -> str:
    return " | ".join(f"{node.written.name} {node.step.says()}" for node in rebuilt.plan.nodes)


def spelled_span(start: int, end: int | None) -> str:
    return instant_text(start) if end is None else f"{instant_text(start)} to {instant_text(end)}"


def spelled_key(key: Mapping[str, Any]) -> str:
    return "".join(f", {name} = {value}" for name, value in key.items())


def spelled_watermark(watermark: int | None) -> str:
    return "the watermark had not begun" if watermark is None else f"the watermark was {instant_text(watermark)}"


def spelled_moment(moment: Moment, past: list[Moment]) -> str:
    earlier = ", or before" if moment is past[0] and moment.epoch > 1 else ""
    return f"checkpoint {moment.epoch} ({moment.at}){earlier}"


def spelled(row: Mapping[str, Any]) -> str:
    return orjson.dumps(row).decode()


def shortened(line: bytes) -> str:
    text = line.decode("utf-8", "backslashreplace").strip()
    return shown(text if len(text) <= 200 else f"{text[:199]}…")
