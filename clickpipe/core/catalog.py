"""Parts, found by the name of their module. No list to edit, no import as a side effect.

`Catalog("clickpipe.operators")` sees the modules of that folder, then the entry points of the
group with the same name. A part is its module's one public class of the wanted base.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clickpipe.errors import PlanError, near

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Catalog:
    def __init__(self, package: str, word: str, dash: str = "-") -> None:
        self._package, self._word, self._dash = package, word, dash

    @cached_property
    def _folder(self) -> Path:
        module = importlib.import_module(self._package)
        return Path(module.__path__[0])

    @cached_property
    def _modules(self) -> list[str]:
        return sorted(m.name for m in pkgutil.iter_modules([str(self._folder)]) if not m.name.startswith("_"))

    @cached_property
    def _outside(self) -> dict[str, EntryPoint]:
        from importlib.metadata import entry_points  # 18 ms, for a name that is none of ours only

        return {point.name: point for point in entry_points(group=self._package)}

    def names(self) -> list[str]:
        """As they are typed: with dashes, or in SQL with underscores."""
        return [name.replace("_", self._dash) for name in self._modules]

    def has(self, name: str) -> bool:
        return name.replace("-", "_") in self._modules or name in self._outside

    def summary(self, name: str) -> str:
        """First line of the module's docstring, read without importing it."""
        path = self._folder / f"{name.replace('-', '_')}.py"
        doc = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        return doc.split("\n", 1)[0]

    def unknown(self, name: str, also: Iterable[str] = ()) -> PlanError:
        known = self.names()
        notes = [f"there are: {', '.join(known)}"]
        return PlanError(f'no {self._word} "{name}"', hint=near(name, [*known, *also]), notes=notes, word=name)

    def find(self, name: str, base: type, also: Iterable[str] = ()) -> Any:
        """The part's class. Raises PlanError with the nearest name. `also`: other names that are understood."""
        if name.replace("-", "_") not in self._modules and name in self._outside:
            return self._outside[name].load()
        if not self.has(name):
            raise self.unknown(name, also)
        module = importlib.import_module(f"{self._package}.{name.replace('-', '_')}")
        return next(
            part
            for part in vars(module).values()
            if isinstance(part, type) and issubclass(part, base) and part.__module__ == module.__name__
        )
