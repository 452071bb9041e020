r"""A command line up to the cursor -> the words before it, and the beginning of the word at it.

    clickpipe ingest 'a b.ndjson' --time ts | clickpipe aggregate --by pa
    └──────────── before ───────────────┘     └── words ────────────┘ └┘ value

The quotes of bash and zsh; those of fish differ in nothing that matters here. Nothing is expanded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

_PROGRAM = "clickpipe"


@dataclass
class Typed:
    """`before`: the commands whose output goes into this one. `raw`: the last word as it was typed, with its quotes, of which
    `quote` is still open; `value` is what it says."""

    before: list[list[str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    value: str = ""
    raw: str = ""
    quote: str = ""


def typed(text: str) -> Typed:
    """Of the whole line up to the cursor, the command at its end. Its own name is left out."""
    line = Typed()
    for token in _tokens(text):
        if token.operator == "|":
            line.before.append(line.words)
            line.words = []
        elif token.operator:
            line = Typed()
        elif token.is_open:
            line.value, line.raw, line.quote = token.value, token.raw, token.quote
        elif token.raw in ("{", "}", "!"):
            line = Typed()
        else:
            line.words.append(token.value)
    line.before = [_own(words) for words in line.before]
    line.words = _own(line.words)
    return line


def _own(words: list[str]) -> list[str]:
    """Without what stands before the name of the program, and without that; as they are where it is another program."""
    at = next((number for number, word in enumerate(words) if os.path.basename(word) == _PROGRAM), None)
    return words if at is None else words[at + 1 :]


@dataclass
class _Token:
    """`is_open`: the cursor stands at its end."""

    value: str = ""
    raw: str = ""
    quote: str = ""
    operator: str = ""
    is_open: bool = False


def _tokens(text: str) -> Iterator[_Token]:
    """The last one is the word at the cursor, which may be empty."""
    at, is_redirected = 0, False
    while at < len(text):
        one = text[at]
        if one in " \t":
            at += 1
        elif one in "<>" or text.startswith("&>", at):
            at, is_redirected = at + len(text[at:]) - len(text[at:].lstrip("<>&|")), True
        elif one == "#":
            at = text.find("\n", at) if "\n" in text[at:] else len(text)
        elif one in "|&;()\n":
            length = 2 if text[at : at + 2] in ("||", "&&", "|&", ";;") else 1
            operator = "|" if text[at : at + length] in ("|", "|&") else ";"
            at += length
            yield _Token(operator=operator)
        else:
            token, at = _word(text, at)
            is_number = token.value.isdigit() and text[at : at + 1] in ("<", ">")
            if token.is_open or not (is_redirected or is_number):
                yield token
            if token.is_open:
                return
            is_redirected = False
    yield _Token(is_open=True)


def _word(text: str, at: int) -> tuple[_Token, int]:
    """The word that begins there, and where it ends."""
    begin, value, quote = at, list[str](), ""
    while at < len(text):
        one = text[at]
        if quote:
            if one == quote:
                quote = ""
            elif one == "\\" and quote == '"' and text[at + 1 : at + 2] in ('"', "\\", "$", "`"):
                at += 1
                value.append(text[at])
            else:
                value.append(one)
        elif one in "'\"":
            quote = one
        elif one == "\\":
            at += 1
            value.append(text[at : at + 1].replace("\n", ""))
        elif one in " \t\n|&;()<>":
            break
        else:
            value.append(one)
        at += 1
    at = min(at, len(text))
    return _Token("".join(value), text[begin:at], quote, is_open=at == len(text)), at
