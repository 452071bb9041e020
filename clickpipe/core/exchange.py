"""Columns of sketches <-> columns of other libraries' bytes, as text in base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from clickpipe.core.aggregate import SUB_KEY, VALUE
from clickpipe.core.calls import is_whole
from clickpipe.core.flat import GROUP
from clickpipe.core.forms import Form
from clickpipe.core.refused import Refusals
from clickpipe.core.sketch import Opened, Sketch, kinds, opened
from clickpipe.errors import DataError, PlanError, near


def form_names() -> list[str]:
    return sorted({name for kind in kinds().values() for name in kind.forms})


def check_form(name: Any) -> str:
    """Raises PlanError unless some kind of sketch has a form of this name."""
    known = form_names()
    if name not in known:
        hint = near(name, known) if isinstance(name, str) else ""
        raise PlanError(f"no form {name!r}; there are: {', '.join(known)}", hint=hint, word=str(name))
    return str(name)


def check_parameter(form: str, parameter: Any) -> int | None:
    """Raises PlanError unless it can be that of the sketches that do not say theirs. None: it is found."""
    if parameter is None:
        return None
    if not is_whole(parameter):
        raise PlanError(f"how many hashes are kept is a whole number, and not {parameter}")
    silent = [kind for kind in kinds().values() if form in kind.forms and not kind.forms[form].says_parameter]
    if not silent:
        raise PlanError(f"sketches of form {form} say their parameter: it cannot be given")
    for kind in silent:
        kind.reopened(parameter)
    return parameter


def exported(texts: pl.Series, form: str) -> pl.Series:
    """Sketches in this form; null of null. Raises Refused."""
    found: list[str | None] = [None] * texts.len()
    refusals = Refusals(texts.len())
    for part in opened(texts):
        try:
            for place, data in zip(part.at, _written(part, form), strict=True):
                found[place] = base64.b64encode(data).decode()
        except DataError as error:
            refusals.add(part.at, error)
    refusals.check()
    return pl.Series(texts.name, found, dtype=pl.String)


def imported(texts: pl.Series, form: str, parameter: float | None) -> pl.Series:
    """Sketches of what has this form; null of null. `parameter`: for forms that do not say it. Raises Refused."""
    found: list[str | None] = [None] * texts.len()
    refusals = Refusals(texts.len())
    for place, text in enumerate(texts):
        try:
            found[place] = None if text is None else _sketch_of(_decoded(text), form, parameter)
        except DataError as error:
            refusals.add([place], error)
    refusals.check()
    return pl.Series(texts.name, found, dtype=pl.String)


def _written(part: Opened, name: str) -> Iterator[bytes]:
    """The bytes of each. Raises DataError if that kind and parameter has none."""
    form = part.sketch.forms.get(name)
    if form is None:
        has = f"it has {' and '.join(sorted(part.sketch.forms))}" if part.sketch.forms else "it has none"
        raise DataError(f"a sketch of kind {part.sketch.name()} has no form {name}: {has}")
    by_place = part.rows.partition_by(GROUP, as_dict=True, include_key=False)
    nothing = part.rows.drop(GROUP).clear()
    for place in part.at:
        yield form.written(part.sketch, by_place.get((place,), nothing))


def _sketch_of(data: bytes, name: str, parameter: float | None) -> str:
    kind, form = _recognised(data, name)
    said, rows = form.read(data)
    try:
        sketch = kind.reopened(said) if said is not None else kind.reopened(parameter) if parameter else kind.fitting(rows)
    except (PlanError, ValueError, OverflowError) as error:
        raise DataError(f"a sketch in the form {name} that cannot be one here: {error}") from None
    pieces = {piece: piece for piece in rows.columns if piece != SUB_KEY}
    return str(sketch.values(sketch.trimmed(rows, [], pieces), [], pieces)[VALUE].item())


def _recognised(data: bytes, name: str) -> tuple[type[Sketch], Form]:
    """Which kind it is."""
    able = [kind for kind in kinds().values() if name in kind.forms]
    for kind in able:
        if kind.forms[name].is_one(data):
            return kind, kind.forms[name]
    raise DataError(f"{_shown(data)} is none of the sketches of form {name} that can be read: {_spoken(able)}")


def _spoken(able: Sequence[type[Sketch]]) -> str:
    return ", ".join(kind.name() for kind in able)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{text[:24]!r} is not base64") from None


def _shown(data: bytes) -> str:
    return f"{data[:12].hex(' ')}…" if len(data) > 12 else data.hex(" ") or "nothing"
