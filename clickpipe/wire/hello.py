r"""What two ends of a link say before the stream flows: lines of JSON. No I/O.

    who connects                                         who listens
    {"@":"hello","v":1,"role":"writer","id":I,"nonce":N} ------------->
           <------------- {"@":"hello","v":1,"role":"reader","id":J,"nonce":M}
    {"@":"ready","proof":P} ------------------------------------------>
           <------------------------------ {"@":"ready","proof":Q,"next":0}
    or, from either, in place of its line:   {"@":"refused","why":"…"}

Either role may connect. `id` is 128 random bits of the process's end: by it a peer that comes back is known, and a stranger
is refused. `next`, of the reader, is the first message that it has not. `proof` is there where a token is set:
HMAC-SHA256 by the token over "clickpipe 1", the role of who proves, the other's nonce and its own; so the token is never
sent, and no proof fits twice. Who listens answers nothing before a good hello has come.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Any

import orjson

VERSION = 1
LONGEST = 64 << 10  # bytes of a line
WRITER, READER = "writer", "reader"
OTHER = {WRITER: READER, READER: WRITER}
_ID = re.compile(r"[0-9a-f]{32}")


class NotUnderstood(Exception):
    """A line that is none of these."""


@dataclass(frozen=True)
class Hello:
    role: str
    id: str
    nonce: str
    version: int = VERSION


@dataclass(frozen=True)
class Ready:
    proof: str | None = None
    next: int = 0


@dataclass(frozen=True)
class Refused:
    why: str


def new_id() -> str:
    return secrets.token_hex(16)


def proof(token: bytes, role: str, asked: str, own: str) -> str:
    """That whoever has this role knows the token. `asked`: the other side's nonce."""
    said = f"clickpipe {VERSION}\n{role}\n{asked}\n{own}"
    return hmac.new(token, said.encode(), "sha256").hexdigest()


def is_proof(said: str | None, expected: str) -> bool:
    return said is not None and hmac.compare_digest(said.encode(), expected.encode())


def encode(line: Hello | Ready | Refused) -> bytes:
    match line:
        case Hello():
            said: dict[str, Any] = {"@": "hello", "v": line.version, "role": line.role, "id": line.id, "nonce": line.nonce}
        case Ready():
            said = {"@": "ready", "next": line.next} | ({"proof": line.proof} if line.proof else {})
        case Refused():
            said = {"@": "refused", "why": line.why}
    return orjson.dumps(said) + b"\n"


def decode(line: bytes) -> Hello | Ready | Refused:
    """Raises NotUnderstood. A hello of another version is understood as far as it says so."""
    try:
        said = orjson.loads(line)
        return _meant(said)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, RecursionError):
        raise NotUnderstood(kind_of(line)) from None


def _meant(said: dict[str, Any]) -> Hello | Ready | Refused:
    match said["@"]:
        case "hello":
            version = _count(said["v"])
            if version != VERSION:
                return Hello("", "", "", version)
            if said["role"] not in OTHER:
                raise ValueError(said["role"])
            return Hello(said["role"], _random(said["id"]), _random(said["nonce"]))
        case "ready":
            shown = said.get("proof")
            return Ready(None if shown is None else _text(shown), _count(said.get("next", 0)))
        case "refused":
            why = _text(said["why"])[:200]
            return Refused("".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in why))
        case other:
            raise ValueError(other)


def _random(said: object) -> str:
    if not isinstance(said, str) or not _ID.fullmatch(said):
        raise ValueError(said)
    return said


def _text(said: object) -> str:
    if not isinstance(said, str):
        raise TypeError(type(said))
    return said


def _count(said: object) -> int:
    if type(said) is not int or not 0 <= said < 1 << 63:
        raise ValueError(said)
    return said


def kind_of(line: bytes) -> str:
    """What such bytes look like."""
    if line[:1] == b"\x16":
        return "it speaks TLS, and this side was given no certificate"
    if re.match(rb"[A-Z]{3,8} \S+ HTTP/", line):
        return "it speaks HTTP"
    if line[:1] in (b"{", b"\t"):
        return "it sends records without a hello; raw records are for: clickpipe ingest"
    return "it does not speak this protocol"
