"""Questions that differ only in whom they ask about are asked once, and the answer is parted.

A contract with a clause for each of a hundred queues asks a hundred times the same of other series.  To plan a query costs
more than to answer it for all of them: read one by one, forty queues and twenty regions took eleven times as long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

from pipeline.readings.reading import Match, Readings
from pipeline.readings.spec import ReadingSpec


class Shared(NamedTuple):
    """A question wide enough for all of `specs`, and they."""

    wide: ReadingSpec
    specs: Sequence[ReadingSpec]

    def parted(self, readings: Readings) -> dict[ReadingSpec, Readings]:
        """What the answer to `wide` says of each."""
        if len(self.specs) == 1:
            return {self.specs[0]: readings}
        return {spec: readings.of(_groups(spec)) for spec in self.specs}


def together(specs: Iterable[ReadingSpec]) -> list[Shared]:
    """`specs` by what they have in common: all but the values of dimensions that they are grouped by.

    Each group of a wide answer is one of them alone, so what the others say does not change it.  Where it would, as a
    bound on all that is read, or where the answer is remembered, a spec is `alone`.
    """
    alike: dict[Any, list[ReadingSpec]] = defaultdict(list)
    for spec in specs:
        alike[spec if _is_alone(spec) else _narrowed(spec, ())].append(spec)
    return [Shared(_widened(own), own) for own in alike.values()]


def _is_alone(spec: ReadingSpec) -> bool:
    return spec.alone or not {"match", "by"} <= {field.name for field in fields(spec)}  # type: ignore[arg-type]


def _groups(spec: Any) -> Mapping[int, frozenset[str]]:
    """Place in `by` → the values that the spec asks about."""
    return {spec.by.index(name): frozenset(values) for name, values in spec.match if name in spec.by}


def _narrowed(spec: Any, grouped: Match) -> ReadingSpec:
    """The spec with `grouped` in place of what it matches of the dimensions that it is grouped by."""
    kept = tuple((name, values) for name, values in spec.match if name not in spec.by)
    found: ReadingSpec = replace(spec, match=tuple(sorted((*kept, *grouped))))
    return found


def _widened(specs: Sequence[Any]) -> ReadingSpec:
    """One spec that asks about whatever any of `specs` does, and may be about more."""
    if len(specs) == 1:
        only: ReadingSpec = specs[0]
        return only
    asked = [dict(spec.match) for spec in specs]
    grouped = tuple(
        (name, tuple(sorted({value for match in asked for value in match[name]})))
        for name in specs[0].by
        if all(name in match for match in asked)
    )
    return _narrowed(specs[0], grouped)
