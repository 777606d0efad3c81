"""How the series of one sample become the value of one measure: units, blanks, copies and parts.

One physical GPU has several series when pods share it, when a job tracker copies it, or when MIG divides it.  Copies
say the same thing again; parts are disjoint.  Where the whole has a series of its own, that one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.catalog import Measure
from pipeline.formats.point import Buckets, Point
from pipeline.mappings.mapping_spec import Given, MeasureFrom, SamplesOf, SourceMapping, UnitWhen
from pipeline.mappings.units import SAME, Unit, unit_of

Tell = Callable[[str, str], None]
"""Notes `(metric, what is to be said of it)`."""
EXPORTED = "exported_"
"""Prometheus renames the labels of a target that clash with its own: then `pod` is the exporter's."""


def value_of(
    way: MeasureFrom,
    measure: Measure,
    points: Sequence[Point],
    spec: SamplesOf,
    mapping: SourceMapping,
    given: Given,
    tell: Tell,
) -> Any:
    """The value that `way` gives the measure; None where the source says that there is none."""
    if measure.kind == "text":
        return worst_word(way, measure, _series(way.metric or (), way, points), tell)
    parts = [label for label in spec.parts or () if any(p.labels.get(label) for p in points)]
    if parts and way.parts == "absent":
        tell(way.metrics[0], f"no {measure.name} of a GPU that is divided into instances")
        return None

    def one(names: Sequence[str]) -> float | int | None:
        series = _series(names, way, points)
        values = [(p, _number(p, way, measure, mapping, given, tell)) for p in series]
        return _combined(values, way, spec, tell)

    if way.add:
        added = [one([name]) for name in way.add]
        return None if None in added else sum(value for value in added if value is not None)
    value = one(way.metric or ())
    less = one([way.less]) if way.less else None
    return value if value is None or less is None else value - less


def _series(names: Sequence[str], way: MeasureFrom, points: Sequence[Point]) -> list[Point]:
    return [p for p in points if p.name in names and p.value is not None and passes(way, p)]


def passes(way: MeasureFrom, point: Point) -> bool:
    """Whether the labels of a point are those that `way` asks for."""
    return all(test.passes(point.labels.get(label, "")) for label, test in way.where.items())


def _number(
    point: Point, way: MeasureFrom, measure: Measure, mapping: SourceMapping, given: Given, tell: Tell
) -> float | int | None:
    """The value in the measure's unit; None for a blank."""
    value = point.value
    if isinstance(value, Buckets | None):
        return None
    if isinstance(value, str):
        if value:
            tell(point.name, f"{value[:40]!r} is no number")
        return None
    if mapping.is_blank(value):
        tell(point.name, f"{value} stands for nothing measured")
        return None
    unit = unit_for(way, measure, point, given)
    if unit is None:
        tell(point.name, way.otherwise or "its unit cannot be told")
        return None
    return unit.of(value)


def in_whole(measure: Measure) -> bool:
    """Whether the numbers of a measure are whole: what a unit made of a last digit is no joule."""
    return measure.integer or (measure.kind == "number" and measure.quantum >= 1)


def unit_for(way: MeasureFrom, measure: Measure, point: Point, given: Given) -> Unit | None:
    """The unit of a point; None where nothing tells it."""
    if way.unit is None:
        return SAME
    if isinstance(way.unit, str):
        return unit_of(way.unit, measure.unit)
    found = next((each for each in way.unit if _is_so(each, point, given)), None)
    return unit_of(found.unit, measure.unit) if found else None


def _is_so(when: UnitWhen, point: Point, given: Given) -> bool:
    return (
        all(given.constants.get(name) == word for name, word in when.settings.items())
        and all(test.passes(point.labels.get(label, "")) for label, test in when.labels.items())
        and (when.form is None or when.form == _form(point, when.form))
    )


def _form(point: Point, asked: str) -> str:
    if asked == "fraction":
        whole = isinstance(point.value, int | float) and point.value == int(point.value)
        return "" if whole else "fraction"
    if not point.digits:
        return ""
    return "whole" if point.digits.lstrip("+-").isdigit() else "decimal"


_Valued = Sequence[tuple[Point, float | int | None]]


def _combined(values: _Valued, way: MeasureFrom, spec: SamplesOf, tell: Tell) -> float | int | None:
    """One value of all: the whole if it has a series, else of each part its copies, and then the parts together."""
    copies = _sharers(values, spec)
    by_part: dict[tuple[str, ...], list[tuple[Point, float | int | None]]] = {}
    for point, value in values:
        by_part.setdefault(tuple(point.labels.get(label, "") for label in spec.parts or ()), []).append(
            (point, value)
        )
    whole = by_part.get(("",) * len(spec.parts or ()))
    if whole is not None:
        return _one_of_copies(whole, copies, way, tell)
    if not values:
        return None
    if way.parts == "whole":
        tell(values[0][0].name, "the parts of a GPU do not say it of the whole")
        return None
    found = [_one_of_copies(part, copies, way, tell) for part in by_part.values()]
    return together(found, "sum" if way.parts == "sum" else "greatest")


def _sharers(values: _Valued, spec: SamplesOf) -> list[str]:
    """The labels that say who shares the entity: with `exported_pod` there, `pod` is the exporter itself."""
    renamed = any(label.startswith(EXPORTED) for point, _ in values for label in point.labels)
    copies = spec.copies or []
    return [c for c in copies if not renamed or c.startswith(EXPORTED) or f"{EXPORTED}{c}" not in copies]


def _one_of_copies(
    values: _Valued, copies: Sequence[str], way: MeasureFrom, tell: Tell
) -> float | int | None:
    whole = [value for point, value in values if not any(point.labels.get(label) for label in copies)]
    chosen = whole or [value for _, value in values]
    if copies and len(values) > 1:
        what = "the series of the whole counts" if whole else "they are copies"
        tell(values[0][0].name, f"{len(values)} series of one GPU: {what}")
    return together(chosen, way.series)


def together(values: Sequence[float | int | None], how: str) -> float | int | None:
    """The sum, None where one of them is missing; or the greatest of those that are there."""
    known = [value for value in values if value is not None]
    if not known or (how == "sum" and len(known) < len(values)):
        return None
    return sum(known) if how == "sum" else max(known)


def worst_word(way: MeasureFrom, measure: Measure, series: Sequence[Point], tell: Tell) -> str | None:
    """The first of the mapping's words, in its order, that one of the source's own stands for.

    A source's word may be several, `MIXED+DRAIN`, and end in a flag, `idle*`.
    """
    said = [p.labels.get(label, "") for p in series for label in way.label or ()]
    tokens = {token for text in said for token in tokens_of(text)}
    words: Mapping[str, Sequence[str]] = way.words or {}
    found = next((word for word, own in words.items() if tokens & {each.upper() for each in own}), None)
    if found is None and tokens:
        tell(series[0].name, f"{', '.join(sorted(tokens))} is no state that the mapping knows")
    return found


def tokens_of(text: str) -> set[str]:
    """The words of a compound state, in capitals, and the flags that Slurm writes as a last sign.

    >>> sorted(tokens_of("DOWN*+DRAIN")), sorted(tokens_of("mixed-"))
    (['*', 'DOWN', 'DRAIN'], ['-', 'MIXED'])
    """
    found: set[str] = set()
    for word in text.upper().split("+"):
        plain = word.rstrip("*~#!%$@^-")
        found |= {plain, *word[len(plain) :]}
    return found - {""}
