"""The libraries that clickpipe computes with: whether they are there, load on this machine, and are of versions that it knows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module

from clickpipe.cli.doctor.verdict import Verdict, bad, note, ok

_TOLD = ("polars", "orjson", "zstandard", "sqlglot", "numpy", "msgspec")  # the others only where they are wrong
_COMPILED = ("polars", "polars-hash", "orjson", "zstandard", "numpy", "msgspec")  # for a processor, which may be another one
_NEEDED = re.compile(r"([A-Za-z0-9_.-]+)((?:[<>=!~]=?[0-9.]+,?)*)")
_BOUND = re.compile(r"(>=|<)([0-9.]+)")


@dataclass(frozen=True)
class Library:
    """`needed`: as the package says it, `>=2.1,<2.2`. `version`: None where it is missing. `trouble`: why it fails to load."""

    name: str
    needed: str
    version: str | None
    trouble: str = ""

    def fits(self) -> bool:
        """As far as versions of numbers go."""
        mine = _numbers(self.version or "")
        bounds = [(sign, _numbers(bound)) for sign, bound in _BOUND.findall(self.needed)]
        return all(mine >= bound if sign == ">=" else mine < bound for sign, bound in bounds)


def look(_: str) -> list[Library]:
    from importlib.metadata import PackageNotFoundError, requires

    try:
        said = requires("clickpipe") or []
    except PackageNotFoundError:  # it runs from its source
        said = list(_TOLD)
    return [_library(one) for one in said if "extra ==" not in one]


def _library(said: str) -> Library:
    from importlib.metadata import PackageNotFoundError, version

    match = _NEEDED.match(said)
    name, needed = (match[1], match[2]) if match else (said, "")
    try:
        found = version(name)
    except PackageNotFoundError:
        return Library(name, needed, None)
    return Library(name, needed, found, _trouble(name) if name in _COMPILED else "")


def _trouble(name: str) -> str:
    try:
        import_module(name.replace("-", "_"))
    except Exception as error:  # whatever a library that was built for another machine comes to
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return ""


def verdict(found: list[Library]) -> Verdict:
    missing = [one.name for one in found if one.version is None]
    broken = [one for one in found if one.trouble]
    strange = [one for one in found if one.version and not one.fits()]
    if missing:
        return bad(f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    if broken:
        said = "; ".join(f"{one.name} {one.version} does not load: {one.trouble}" for one in broken)
        return bad(said, f"pip install --force-reinstall {' '.join(one.name for one in broken)}")
    if strange:
        said = ", ".join(f"{one.name} {one.version}" for one in strange)
        wanted = " ".join(f"'{one.name}{one.needed}'" for one in strange)
        return note(f"{said}: not what clickpipe is tested with", f"pip install {wanted}")
    return ok(", ".join(f"{one.name} {one.version}" for one in found if one.name in _TOLD))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"[0-9]+", version.split("+")[0])[:3])
