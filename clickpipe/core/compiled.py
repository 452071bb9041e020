"""A call as it was typed -> a call over the columns that are given: which function, of which expressions."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Any

import polars as pl

from clickpipe.columns import Columns
from clickpipe.core.aggregate import ORDER, WEIGHT, Aggregate
from clickpipe.core.calls import SYNONYMS, Named
from clickpipe.core.catalog import Catalog
from clickpipe.core.functions import compile, least, predicate
from clickpipe.core.sketch import SKETCHES
from clickpipe.core.summary import Call
from clickpipe.errors import PlanError
from clickpipe.sql import Expression

AGGREGATES = Catalog("clickpipe.aggregates", "aggregate", "_")


@dataclass(frozen=True)
class Compiled:
    """`value` is its argument, `by` what else its records are ordered by, `where` its FILTER clause."""

    named: Named
    function: Aggregate
    value: Expression | None
    by: Expression | None
    constants: tuple[Any, ...]
    where: Expression | None

    def reads(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(name for read in self._expressions() for name in read.reads)

    def refuses(self) -> bool:
        """Whether it may have no value for a record: columns as they are always have one, if they are no sketches."""
        return any(not read.expr.meta.is_column() or read.kind == "sketch" for read in self._expressions())

    def _expressions(self) -> list[Expression]:
        return [read for read in (self.value, self.by, self.where) if read]

    def call(self) -> Call:
        # A star that is filtered counts a constant; one that is not counts rows.
        value = self.value.expr if self.value else pl.lit(True)
        where, by = (None if said is None else said.expr for said in (self.where, self.by))
        said = (self.named.argument, self.named.where or "")
        most_rows = least(read.most_rows for read in self._expressions())
        return Call(self.named.name, self.function, value, where, by, self.constants, said, most_rows)


def compiled(named: Named, given: Columns, functions: Catalog) -> Compiled:
    """Raises PlanError for what these columns cannot be asked. `functions`: those that there are."""
    function = function_of(named, functions)
    where = predicate(named.where, given) if named.where else None
    is_star = named.argument == "*"
    if is_star and not function.takes_star:
        raise PlanError(f"{named.function}(*) has no meaning; name a column", word=named.text)
    value = None if is_star else compile(named.argument, given)
    if value and function.takes and value.kind not in function.takes:
        raise PlanError(_unfit(named, function, value), word=named.text)
    if value and function.has_pieces and not value.reads:
        raise PlanError(f"{named.function}() needs a column, and {named.argument} is a constant", word=named.text)
    by, constants = _further(named, function, given)
    kind = value.kind if value else "bool" if where else "*"
    try:
        return Compiled(named, function(kind, *constants), value, by, constants, where)
    except PlanError as error:
        error.word = error.word or named.text
        raise


def function_of(named: Named, functions: Catalog) -> type[Aggregate]:
    """Raises PlanError, with what another step has by that name, or says the same."""
    if functions.has(named.function):
        return functions.find(named.function, Aggregate)  # type: ignore[no-any-return]  # it is one of that base
    is_sketching = functions is SKETCHES
    error = functions.unknown(named.text.partition("(")[0].strip(), () if is_sketching else SYNONYMS)
    if is_sketching and AGGREGATES.has(named.function):
        like = AGGREGATES.find(named.function, Aggregate).sketched
        error.hint = f'did you mean "{like}"?' if like else f"clickpipe aggregate has {error.word}"
    elif SKETCHES.has(named.function):
        error.hint = f"clickpipe sketch has {named.function}"
    raise error


def _further(named: Named, function: type[Aggregate], given: Columns) -> tuple[Expression | None, tuple[Any, ...]]:
    """What stands behind the first argument: what orders its records, and constants."""
    more, spoken = list(named.more), _spoken(named.function, function)
    by = compile(more.pop(0).text, given) if function.ordered_by == "argument" and more else None
    if by is not None and not by.reads:
        raise _same_for_all(named, function, by)
    if by is not None and function.is_weighed:
        by = _weighed(by, compile(more.pop().text, given) if more and not more[-1].is_constant else None, named)
    for said in more:
        if not said.is_constant:
            raise PlanError(f"{said.text} must be a constant in {spoken}", word=named.text)
    constants = tuple(said.value for said in more)
    is_short = function.ordered_by == "argument" and by is None
    try:
        signature(function).bind("*", *constants)
    except TypeError:
        is_short = True
    if is_short:
        raise PlanError(f"{named.text} has too few or too many arguments: it is {spoken}", word=named.text)
    return by, constants


def _same_for_all(named: Named, function: type[Aggregate], by: Expression) -> PlanError:
    """Of a constant where a column was meant."""
    needs = "what tells records apart" if function.is_weighed else "what orders records"
    size = f", {named.more[-1].text}" if function.is_weighed else ""
    hint = f"as in: {named.function}({named.argument}, {'event_id' if function.is_weighed else 'latency_ms'}{size})"
    return PlanError(f"{named.function}() needs {needs}, and {by.text} is the same for all", hint=hint, word=named.text)


def _weighed(by: Expression, weight: Expression | None, named: Named) -> Expression:
    """Without a weight all weigh the same."""
    if weight and weight.kind not in ("int", "float"):
        raise PlanError(f"{named.function}() weighs by numbers, and {weight.text} is none", word=named.text)
    weighs = weight.expr.cast(pl.Float64) if weight else pl.lit(1.0)
    both = pl.struct(by.expr.alias(ORDER), weighs.alias(WEIGHT))
    return Expression(by.text, both, (*by.reads, *(weight.reads if weight else ())), by.kind)


def _spoken(name: str, function: type[Aggregate]) -> str:
    """A function with its arguments, as in `quantile_disc(x, q)`; what can be left out stands in brackets."""
    by = ["by"] if function.ordered_by == "argument" else []
    said = [
        f"[{one.name}]" if one.default is not one.empty else one.name for one in list(signature(function).parameters.values())[1:]
    ]
    weight = ["[weight]"] if function.is_weighed else []
    return f"{name}({', '.join(['x', *by, *said, *weight])})"


def _unfit(named: Named, function: type[Aggregate], value: Expression) -> str:
    spoken = {
        "str": "text",
        "json": "nested JSON",
        "bool": "true or false",
        "time": "a time",
        "int": "a number",
        "float": "a number",
    }
    needs = "numbers" if "float" in function.takes else " or ".join(spoken[kind] for kind in function.takes)
    return f"{named.function}() needs {needs}, and {named.argument} is {spoken[value.kind]}"
