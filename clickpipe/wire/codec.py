r"""Signals <-> bytes. No I/O. The whole format is in clickpipe-stream.5.

A signal is one line: TAB, then a JSON object whose first key is "@".

    \t{"@":"stream","v":1,"pipeline":"clicks","hop":0,"run":1,"state":"/…","columns":{"ts":"int"},…}\n
    {"ts":1700000003059}\n                                     records: one JSON object a line
    \t{"@":"frame","seq":0,"rows":1,"watermark":1700000003000}\n
    \t{"@":"arrow","seq":1,"rows":2,"watermark":…,"bytes":664}\n   then 664 bytes of Arrow IPC stream
    \t{"@":"columns","columns":{"ts":"int","ms":"float"}}\n
    \t{"@":"barrier","epoch":42,"state":[]}\n
    \t{"@":"end","rows":3,"accounts":[{"read":3,"written":3}]}\n
    \t{"@":"failed"}\n                                         instead of the end, where the step has said why
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson

from clickpipe.columns import TYPES, Columns
from clickpipe.errors import DataError
from clickpipe.wire.frames import VERSION, ArrowFrame, Barrier, ColumnsChange, End, Failed, FrameEnd, Signal, StreamLine, Worker

TAB = b"\t"
LONGEST_SIGNAL = 1 << 20
_MOST = 1 << 53  # what all programs that read JSON can count to
_FURTHEST = 1 << 62  # milliseconds: no watermark is beyond it


def encode(signal: Signal) -> bytes:
    """The line that says this signal."""
    return TAB + orjson.dumps(_said(signal)) + b"\n"


def _said(signal: Signal) -> dict[str, Any]:
    match signal:
        case StreamLine():
            head: dict[str, Any] = {
                "@": "stream",
                "v": VERSION,
                "pipeline": signal.pipeline,
                "hop": signal.hop,
                "run": signal.run,
            }
            said = {
                "state": signal.state,
                "max_errors": signal.max_errors,
                "restore": signal.restore,
                "dead_letter": signal.dead_letter,
                "late": signal.late,
                "sinks": signal.sinks or None,
                "worker": signal.worker and asdict(signal.worker),
                "divided": signal.divided and signal.divided.to_json(),
                "life": signal.life or None,
            }
            return head | {name: value for name, value in said.items() if value is not None} | signal.columns.to_json()
        case ColumnsChange():
            return {"@": "columns", "columns": signal.types}
        case FrameEnd():
            return {"@": "frame"} | _frame_said(signal)
        case ArrowFrame():
            return {"@": "arrow"} | _frame_said(signal.end) | {"bytes": signal.bytes}
        case Barrier():
            before = {"before": signal.before} if signal.before else {}
            return {"@": "barrier", "epoch": signal.epoch, "state": signal.state, "accounts": signal.accounts, **before}
        case End():
            last = {"epoch": signal.epoch, "state": signal.state} if signal.epoch else {}
            stopped = {"stopped": True} if signal.is_stopped else {}
            before = {"before": signal.before} if signal.before else {}
            return {"@": "end", "rows": signal.rows, "accounts": signal.accounts, **last, **stopped, **before}
        case Failed():
            return {"@": "failed"}


def _frame_said(end: FrameEnd) -> dict[str, Any]:
    return {key: value for key, value in asdict(end).items() if value is not None and value is not False}


def is_signal(line: bytes) -> bool:
    """Whether a line is a signal, also one that a JSON tool has reformatted (slow: for such streams only)."""
    if line.startswith(TAB):
        return True
    if b'"@"' not in line[:64]:
        return False
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and next(iter(value), None) == "@"


def decode(line: bytes) -> Signal:
    """The signal that a line says. Raises DataError."""
    try:
        said = orjson.loads(line)
        return _meant(said)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"a signal line is damaged ({error}): {line[:80].decode('utf-8', 'backslashreplace').strip()}") from None


def _meant(said: dict[str, Any]) -> Signal:
    match said["@"]:
        case "stream":
            if said["v"] != VERSION:
                raise DataError(f"the stream is of format version {said['v']}; this clickpipe reads version {VERSION}")
            state, max_errors, dead_letter, late = (
                None if said.get(key) is None else str(said[key]) for key in ("state", "max_errors", "dead_letter", "late")
            )
            hop, run = _count(said["hop"]), _count(said["run"])
            restore = None if said.get("restore") is None else _count(said["restore"])
            head = (_text(said["pipeline"]), hop, run, state, max_errors, restore, dead_letter)
            divided = Columns.from_json(said["divided"]) if "divided" in said else None
            sinks = tuple(map(str, said.get("sinks", ())))
            life = None if said.get("life") is None else _text(said["life"])
            return StreamLine(Columns.from_json(said), *head, sinks, late, _worker(said), divided, life)
        case "columns":
            types = {str(name): str(kind) for name, kind in said["columns"].items()}
            if not set(types.values()) <= set(TYPES):
                raise ValueError("unknown type")
            return ColumnsChange(types)
        case "frame":
            return _frame(said)
        case "arrow":
            return ArrowFrame(_frame(said), _count(said["bytes"]))
        case "barrier":
            return Barrier(_count(said["epoch"]), tuple(said.get("state", ())), _ledgers(said), _ledgers(said, "before"))
        case "end":
            epoch, steps = _count(said.get("epoch", 0)), tuple(said.get("state", ()))
            is_stopped = said.get("stopped") is True
            return End(_count(said["rows"]), _ledgers(said), epoch, steps, is_stopped, _ledgers(said, "before"))
        case "failed":
            return Failed()
        case other:
            raise ValueError(f"unknown signal {other!r}")


def _frame(said: dict[str, Any]) -> FrameEnd:
    watermark = said.get("watermark")
    if watermark is not None and (type(watermark) is not int or abs(watermark) > _FURTHEST):
        raise ValueError("watermark is no integer that can be a time")
    late = None if said.get("late") is None else _count(said["late"])
    return FrameEnd(_count(said["seq"]), _count(said["rows"]), watermark, late, said.get("idle") is True)


def _worker(said: dict[str, Any]) -> Worker | None:
    worker = said.get("worker")
    return worker and Worker(_count(worker["number"]), _count(worker["of"]), tuple(map(str, worker["by"])))


def _ledgers(said: dict[str, Any], name: str = "accounts") -> tuple[dict[str, Any], ...]:
    return tuple({str(key): _account(str(key), value) for key, value in ledger.items()} for ledger in said.get(name, ()))


def _account(key: str, value: Any) -> Any:
    """A count; those per window are judged by who reads them."""
    if key == "windows" and isinstance(value, dict):
        return value
    return _count(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is no text")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise ValueError(f"{value!r} is not a count")
    return value
