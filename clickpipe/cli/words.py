"""Words for people, on standard error; or for machines, one JSON object a line, where $CLICKPIPE_LOG_FORMAT says json.

    clickpipe: stopped at checkpoint 42; the next run goes on from there
    {"ts":"2026-11-27T04:00:00.123Z","level":"info","pipeline":"clicks","msg":"stopped at checkpoint 42; …","checkpoint":42}

`pipeline` is null as long as its name is not known. An error has `code`, `where`, `hint` and `notes`, an account its counts.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any

from clickpipe.errors import Caution, ClickpipeError, PlanError

FORMAT = "CLICKPIPE_LOG_FORMAT"
FORMATS = ("text", "json")
FLAG = "--log-format"
_PRIORITIES = {"error": "<3>", "warning": "<4>", "info": "<6>"}  # of syslog, as journald takes them: see sd-daemon(3)
_known: dict[str, str] = {}


def say(text: str, level: str = "", **more: Any) -> None:
    """One message. `more`: what programs want to know of it. Where standard error is closed or full, nobody wants to hear it."""
    level = level or (text.level if isinstance(text, Caution) else "info")
    lines = _object(text, level, more) if speaks_json() else _lines(f"clickpipe: {text}", level)
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(lines)
        sys.stderr.flush()


def complain(error: ClickpipeError) -> None:
    """Say what has gone wrong, for programs in its parts."""
    parts = {"where": error.where, "hint": error.hint, "notes": error.notes, "place": error.place}
    known = {name: part for name, part in parts.items() if part}
    say(str(error), "error", msg=": ".join([*error.where, error.what]), code=error.code, **known)


def speak_of(pipeline: str | None) -> None:
    """From here on messages are about this pipeline."""
    if pipeline:
        _known["pipeline"] = pipeline


def speaks_json() -> bool:
    return os.environ.get(FORMAT) == "json"


def heed_format(words: Sequence[str]) -> None:
    """Take the form of messages from a command line before it is parsed: what is wrong with it is said in that form too.
    Processes that are started have it from the environment."""
    said = [following for word, following in pairwise(words) if word == FLAG]
    said += [word.removeprefix(f"{FLAG}=") for word in words if word.startswith(f"{FLAG}=")]
    if said and said[-1] in FORMATS:
        os.environ[FORMAT] = said[-1]


def check_format() -> None:
    """Raises PlanError for a form that the environment names and there is not."""
    said = os.environ.get(FORMAT) or "text"
    if said not in FORMATS:
        raise PlanError(f'{FORMAT} is "{said}"; it can be text or json')


def printable(text: str) -> str:
    """Names and values in a message may hold anything."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def harmless(value: Any) -> Any:
    """The same of all texts in what becomes JSON."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): harmless(one) for key, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return harmless({field.name: getattr(value, field.name) for field in fields(value)})
    return [harmless(one) for one in value] if isinstance(value, (list, tuple)) else value


def _object(text: str, level: str, more: Mapping[str, Any]) -> str:
    from datetime import UTC, datetime

    import orjson

    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    told = {"ts": now, "level": level, "pipeline": _known.get("pipeline"), "msg": text, **more}
    return orjson.dumps(harmless(told)).decode() + "\n"


def _lines(text: str, level: str) -> str:
    """journald takes each line by itself."""
    lines = printable(text).split("\n")
    priority = _PRIORITIES[level] if _is_journal() else ""
    return "".join(f"{priority}{line}\n" for line in lines)


def _is_journal() -> bool:
    """Whether standard error goes to systemd's journal, which has said so."""
    said = os.environ.get("JOURNAL_STREAM")
    if not said:
        return False
    with contextlib.suppress(OSError):
        status = os.fstat(2)
        return said == f"{status.st_dev}:{status.st_ino}"
    return False
