"""The fast way from points to samples: what was worked out for a set of series is kept, and only its numbers are new.

A source reports the same series again and again.  Whose they are, what names their sample and which of them is which
measure, in which unit, follows from names and labels alone.  So it is asked of `gather.py` once, for each set of series
that makes a sample.  What depends on the numbers too goes the whole way: blanks, parts, copies, states, histograms,
whatever is joined.  The law that both ways agree is a test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.catalog import Catalog
from pipeline.formats.histograms import Differences
from pipeline.formats.point import Point, SharedLabels
from pipeline.mappings.combine import in_whole, passes
from pipeline.mappings.gather import (
    Gathered,
    Gatherer,
    MappedSample,
    PointGroup,
    SampleGatherer,
    each_once,
    part_of_known,
    whole,
)
from pipeline.mappings.mapping_spec import NOTHING_GIVEN, Given, MeasureFrom, SourceMapping
from pipeline.mappings.units import SAME, Unit, unit_of

MAX_SERIES = 1_000_000
"""Series that are kept; beyond, all are met again."""


@dataclass(slots=True, eq=False)
class _KnownSeries:
    """A series that was met: the part of the mapping and the key of its sample; `part` -1: nobody's.

    `group` stands for the two.
    """

    number: int
    part: int
    group: int
    key: tuple[str, ...]
    ignored: bool
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _MeasurePlan:
    """Which points of a group are added to a measure, in which unit."""

    name: str
    at: tuple[int, ...]
    unit: Unit
    integer: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    data: Mapping[str, Any]
    lacks: Sequence[str]
    measures: Sequence[_MeasurePlan]


class PlannedGatherer:
    """Does what a Gatherer does, and remembers how."""

    def __init__(
        self,
        mapping: SourceMapping,
        catalog: Catalog,
        given: Given = NOTHING_GIVEN,
        differences: Differences | None = None,
    ) -> None:
        self._specification = Gatherer(mapping, catalog, given, differences)
        self._given = given
        self._simple = [_is_simple(part) for part in self._specification.parts]
        self._is_blank = mapping.is_blank
        self._blank = min((each.least for each in mapping.blank if each.least > 0), default=float("inf"))
        self._forget()

    def _forget(self) -> None:
        self._by_labels: dict[tuple[str, int], _KnownSeries | None] = {}
        self._by_content: dict[tuple[str, frozenset[tuple[str, str]]], _KnownSeries | None] = {}
        self._plans: dict[tuple[int, ...], _Plan | None] = {}
        self._groups: dict[tuple[int, tuple[str, ...]], int] = {}
        self._keys: dict[tuple[int, int], tuple[Mapping[str, str], list[tuple[str, ...]]]] = {}
        self._met = 0

    def gather(self, points: Iterable[Point]) -> Gathered:
        """The samples that the points are, as a Gatherer finds them."""
        every = points if isinstance(points, list) else list(points)
        if self._met > MAX_SERIES:
            self._forget()
        groups: dict[tuple[int, int | None], tuple[_KnownSeries, list[int], list[Point]]] = {}
        ignored: Counter[str] = Counter()
        met = self._by_labels
        for point in every:
            series = met.get((point.name, id(point.labels)))
            if series is None or series.labels is not point.labels:
                series = self._series(point)
                if series is None:
                    return self._specification.gather(every)
            if series.part < 0:
                if series.ignored:
                    ignored[point.name] += 1
                continue
            group = (series.group, point.time)
            if group in groups:
                _, numbers, points_ = groups[group]
                numbers.append(series.number)
                points_.append(point)
            else:
                groups[group] = (series, [series.number], [point])
        return self._gathered(groups, ignored)

    def _gathered(
        self,
        groups: Mapping[tuple[int, int | None], tuple[_KnownSeries, list[int], list[Point]]],
        ignored: Counter[str],
    ) -> Gathered:
        gathered = Gathered(ignored=ignored)
        for place, part in enumerate(self._specification.parts):
            part.note_in(gathered.notes)
            for (_, time), (series, numbers, points) in groups.items():
                if series.part != place:
                    continue
                sample = self._planned(part, tuple(numbers), points, time)
                if sample is not None:
                    gathered.samples.append(sample)
                elif any(p.value is not None for p in points):
                    gathered.samples.extend(
                        part.sample(PointGroup(series.key, time, list(each_once(points))))
                    )
        return gathered

    def _planned(
        self, part: SampleGatherer, signature: tuple[int, ...], points: Sequence[Point], time: int | None
    ) -> MappedSample | None:
        """The sample by its plan; None where the whole way has to be gone."""
        values: list[Any] = [point.value for point in points]
        for value in values:
            if type(value) is not float and type(value) is not int:
                return None
            if (value >= self._blank or value < 0) and self._is_blank(value):
                return None
        if signature in self._plans:
            plan = self._plans[signature]
        else:
            plan = self._plans[signature] = self._plan(part, signature, points)
        if plan is None:
            return None
        data = dict(plan.data)
        for measure in plan.measures:
            found = measure.unit.of(values[measure.at[0]])
            for at in measure.at[1:]:
                found += measure.unit.of(values[at])
            data[measure.name] = whole(found) if measure.integer else found
        return MappedSample(part.event.topic, data, time, part.spec.interval, (), plan.lacks, plan.data)

    def _plan(self, part: SampleGatherer, signature: Sequence[int], points: Sequence[Point]) -> _Plan | None:
        divided = any(point.labels.get(label) for label in part.spec.parts or () for point in points)
        if divided or len(set(signature)) < len(signature):
            return None
        measures: list[_MeasurePlan] = []
        for name, ways in part.spec.measures.items():
            way = part.way_of(ways, points)
            if way is None:
                continue
            if way.difference:  # depends on the report before
                return None
            at = self._places(way, points)
            unit = None if at is None else self._unit(way, part.event.measure(name).unit, points[at[0]])
            if at is None or unit is None:
                return None
            if at:
                measures.append(_MeasurePlan(name, at, unit, in_whole(part.event.measure(name))))
        if part.event.entity is None and not measures:
            return None
        # labels alone name a sample, and mostly all its points share them
        data, _, lacks = part.named(list({id(point.labels): point for point in points}.values()), {})
        return _Plan(data, lacks, measures)

    @staticmethod
    def _places(way: MeasureFrom, points: Sequence[Point]) -> tuple[int, ...] | None:
        """The one point of each metric that a way needs; None where there are several, or something is missing."""
        at: list[int] = []
        for names in [[name] for name in way.add] if way.add else [way.metric or []]:
            found = [i for i, p in enumerate(points) if p.name in names and passes(way, p)]
            if len(found) != 1 or way.less:
                return None
            at += found
        return tuple(at)

    def _unit(self, way: MeasureFrom, measured: str, point: Point) -> Unit | None:
        """The unit that a point has whatever its number is; None where that decides."""
        if way.unit is None:
            return SAME
        if isinstance(way.unit, str):
            return unit_of(way.unit, measured)
        if point.digits or way.add:
            return None
        names: set[str] = set()
        for each in way.unit:
            asked = all(self._given.constants.get(n) == word for n, word in each.settings.items())
            labelled = all(test.passes(point.labels.get(label, "")) for label, test in each.labels.items())
            if asked and labelled and each.form in (None, "fraction"):
                names.add(each.unit)
                if each.form is None:
                    return unit_of(names.pop(), measured) if len(names) == 1 else None
        return None

    def _series(self, point: Point) -> _KnownSeries | None:
        """The series of a point, met now or before; None where its message has to go the whole way.

        Labels that many points share are known by the object: their content as a key would be most of the memory.
        """
        if isinstance(point.labels, SharedLabels):
            series = self._meet(point)
            if series is not None:
                self._by_labels[point.name, id(point.labels)] = series
            return series
        content = (point.name, frozenset(point.labels.items()))
        if content not in self._by_content:
            self._by_content[content] = self._meet(point)
        return self._by_content[content]

    def _meet(self, point: Point) -> _KnownSeries | None:
        self._met += 1
        if point.name.endswith("_bucket") and "le" in point.labels:
            return None
        known = self._specification.known
        parts = [i for i, part in enumerate(self._specification.parts) if point.name in part.metrics]
        if not parts:
            return _KnownSeries(-1, -1, -1, (), not part_of_known(point.name, known), point.labels)
        part = self._specification.parts[parts[0]]
        if len(parts) > 1 or not self._simple[parts[0]]:
            return None
        if not part.wanted(point):
            return _KnownSeries(-1, -1, -1, (), False, point.labels)
        keys = self._keys_of(parts[0], point)
        if not keys:
            return None
        group = self._groups.setdefault((parts[0], keys[0]), len(self._groups))
        return _KnownSeries(self._met, parts[0], group, keys[0], False, point.labels)

    def _keys_of(self, part: int, point: Point) -> list[tuple[str, ...]]:
        """What a point of a simple part may be known by: labels alone say it, and a series' metrics mostly share theirs."""
        kept = self._keys.get((part, id(point.labels)))
        if kept is None or kept[0] is not point.labels:
            kept = point.labels, self._specification.parts[part].keys(point)
            if isinstance(point.labels, SharedLabels):
                self._keys[part, id(point.labels)] = kept
        return kept[1]


def _is_simple(part: SampleGatherer) -> bool:
    """Whether names and labels alone say what a sample of this part is: no states, no counts, nothing that is joined."""
    spec = part.spec
    places = [place for places in spec.fields.values() for place in places]
    valued = any(place.metric for place in places)
    return not (part.joined or spec.count or spec.time or valued) and all(
        part.event.measure(name).kind == "number" for name in spec.measures
    )
