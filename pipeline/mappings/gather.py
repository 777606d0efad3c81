"""From points to samples: which points are one sample, what names it, and what its measures are.

`samples_of` is the whole way for one message or scrape.  This is the specification: what `plans.py` keeps must agree.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.catalog import Catalog, EventType, Measure
from pipeline.formats.gpu_uuid import spelt, stands_for
from pipeline.formats.histograms import Differences, assembled, spreads
from pipeline.formats.point import Buckets, Point, micros_of
from pipeline.formats.times import read_time
from pipeline.mappings.combine import in_whole, passes, unit_for, value_of
from pipeline.mappings.counters import counted_on, totals
from pipeline.mappings.mapping_spec import (
    NOTHING_GIVEN,
    CountOf,
    Given,
    MeasureFrom,
    SamplesOf,
    SourceMapping,
    TextFrom,
)

_NOTHING = re.compile(r"\[?n/?a\]?|none|null|unknown|[-0:]*|not (available|supported)", re.IGNORECASE)
COUNTS_ON = "counted since the source started: the next report says what was added"
MAX_COUNT = 1_000
"""Entities that one sample may stand for: GPUs of a node."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a field or measure of a sample comes from."""

    field: str
    value: Any
    place: str


@dataclass(frozen=True, slots=True)
class MappedSample:
    """One sample: `data` of its event, `time` in microseconds since 1970 UTC if the source says one, `interval` in
    seconds if the mapping does.  `lacks`: required fields that nothing gave.  `named`: what names it, the same object for
    each report of the same series; empty where that is worked out anew."""

    topic: str
    data: Mapping[str, Any]
    time: int | None
    interval: int | None
    origins: Sequence[Origin]
    lacks: Sequence[str]
    named: Mapping[str, str] = field(default_factory=dict)


def report_mark(event: EventType, data: Mapping[str, Any]) -> str:
    """What tells the reports of one reading apart: an estimate is another event than what is final.  Mostly nothing."""
    rule = event.revision
    return "".join(f"/{data[name]}" for name in (rule.status, rule.issued) if name in data) if rule else ""


@dataclass(slots=True)
class Gathered:
    """What the points became.  `ignored`: metric → points that no mapping knows; `notes`: (metric, what) → how often."""

    samples: list[MappedSample] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)


def samples_of(
    raw: bytes,
    mapping: SourceMapping,
    points: Callable[[bytes], Iterable[Point]],
    catalog: Catalog,
    given: Given = NOTHING_GIVEN,
    differences: Differences | None = None,
) -> Gathered:
    """The samples of one message or scrape; `points` is that of a format.  Raises Undecodable.

    `differences` remembers the histograms of the reports before; without it the first of a source adds nothing.
    """
    return Gatherer(mapping, catalog, given, differences).gather(points(raw))


class Gatherer:
    """Makes samples of the points of one source, message by message: what histograms add is known from the one before."""

    def __init__(
        self,
        mapping: SourceMapping,
        catalog: Catalog,
        given: Given = NOTHING_GIVEN,
        differences: Differences | None = None,
    ) -> None:
        self.differences = differences or Differences()
        self.parts = [
            SampleGatherer(mapping, samples, catalog.by_topic(samples.topic), given, self.differences, place)
            for place, samples in enumerate(mapping.samples)
        ]
        self.known = {name for part in self.parts for name in part.metrics}

    def gather(self, points: Iterable[Point]) -> Gathered:
        """The samples that the points are, in the order in which each was first met."""
        found, every = Gathered(), list(assembled(points))
        for part in self.parts:
            found.samples.extend(part.samples(every, found.notes))
        for point in every:
            if point.name not in self.known and not part_of_known(point.name, self.known):
                found.ignored[point.name] += 1
        return found


def part_of_known(name: str, known: set[str]) -> bool:
    """Whether it is the count or the sum of a histogram that the mapping reads."""
    base, _, part = name.rpartition("_")
    return part in ("count", "sum", "created") and base in known


@dataclass(slots=True)
class PointGroup:
    """The points of one sample."""

    key: tuple[str, ...]
    time: int | None
    points: list[Point] = field(default_factory=list)
    joined: list[Point] = field(default_factory=list)

    @property
    def all(self) -> list[Point]:
        return [*self.points, *self.joined]


class SampleGatherer:
    """Gathers the points of one part of a mapping."""

    def __init__(
        self,
        mapping: SourceMapping,
        samples: SamplesOf,
        event: EventType,
        given: Given,
        differences: Differences,
        place: int,
    ) -> None:
        self.mapping, self.spec, self.event, self.given = mapping, samples, event, given
        self.differences, self.place = differences, place
        counted = samples.count.metric if samples.count else []
        self.own = {m for ways in samples.measures.values() for way in ways for m in way.metrics} | set(
            counted
        )
        self.joined = set(samples.joined or ())
        self.own -= self.joined
        self.metrics = self.own | self.joined
        self._ways: dict[str, list[MeasureFrom]] = {}
        for way in (way for ways in samples.measures.values() for way in ways):
            for metric in way.metrics:
                self._ways.setdefault(metric, []).append(way)
        self.notes: Counter[tuple[str, str]] = Counter()

    def note_in(self, notes: Counter[tuple[str, str]]) -> None:
        """What is to be said of the points goes there from now on."""
        self.notes = notes

    def samples(self, points: Sequence[Point], notes: Counter[tuple[str, str]]) -> Iterator[MappedSample]:
        self.note_in(notes)
        groups: dict[tuple[tuple[str, ...], int | None], PointGroup] = {}
        for point in each_once(points):
            if point.name in self.own and self.wanted(point):
                key, time = self.keys(point)[:1], self._time(point)
                if not key:
                    self._tell(point.name, "nothing says whose it is")
                    continue
                groups.setdefault((key[0], time), PointGroup(key[0], time)).points.append(point)
        for point in points:
            if point.name in self.joined:
                keys = self.keys(point)
                for group in groups.values():
                    if any(_agree(key, group.key) for key in keys):
                        group.joined.append(point)
        groups = {at: group for at, group in groups.items() if any(p.value is not None for p in group.points)}
        if self.spec.count:
            yield from self._counted(self.spec.count, groups.values())
        else:
            for group in groups.values():
                yield from self.sample(group)

    def wanted(self, point: Point) -> bool:
        """Whether one of the ways to a measure asks for it, or it is a histogram: these are followed whatever they say."""
        if isinstance(point.value, Buckets) or self.spec.count:
            return True
        return any(passes(way, point) for way in self._ways.get(point.name, ()))

    def keys(self, point: Point) -> list[tuple[str, ...]]:
        """What the point may be known by, the surest first; none where nothing says whose it is."""
        entity = self.event.entity
        if self.spec.key or entity is None:
            names = self.spec.key or [d.name for d in self.event.dimensions if self._places(d.name)]
            return [tuple(self._said(name, [point]) for name in names)]
        same = [("same", text) for p in self.spec.same or () if (text := _usable(_read(p, point)))]
        raw = [text for p in self._places(entity.name) if (text := _read(p, point))]
        named = [("name", spelt(text) or text) for text in raw if _usable(text)]
        host = tuple(self._said(name, [point]) for name in entity.otherwise)
        hosted = [("host", *host)] if host and host[-1] else []
        return [*same, *named, *hosted, *(("raw", text) for text in raw)]

    def _places(self, name: str) -> Sequence[TextFrom]:
        return [*self.given.from_label.get(name, ()), *self.spec.fields.get(name, ())]

    def _said(self, name: str, points: Sequence[Point]) -> str:
        """The text of a field as the points say it: a constant tells nothing apart."""
        found, place = self._found(name, points)
        return "" if place == "constant" else found

    def _found(self, name: str, points: Sequence[Point]) -> tuple[str, str]:
        """(text, where it was found) of a field: the user's label, the table, the mapping's label, the constant."""
        constant = self.given.constants.get(name, "")
        return (
            self._labelled(name, self.given.from_label.get(name, ()), points)
            or self._ruled(name, points)
            or self._labelled(name, self.spec.fields.get(name, ()), points)
            or (constant, "constant" if constant else "")
        )

    def _labelled(
        self, name: str, places: Sequence[TextFrom], points: Sequence[Point]
    ) -> tuple[str, str] | None:
        """The text of the first place that has one; of several texts the least, whatever the order of the points."""
        names_one = self.event.entity is not None and name == self.event.entity.name
        for place in places:
            texts = {text for p in points if (text := _read(place, p)) and (not names_one or _usable(text))}
            if texts:
                return min(texts), f"label {place.label}" if place.label else f"metric {place.metric}"
        return None

    def _ruled(self, name: str, points: Sequence[Point]) -> tuple[str, str] | None:
        for rule in self.given.where:
            if name in rule.set and any(
                re.search(rule.matches, p.labels.get(rule.label, "")) for p in points
            ):
                return rule.set[name], f"where {rule.label} matches {rule.matches}"
        return None

    def _time(self, point: Point) -> int | None:
        for place in self.spec.time or ():
            moment = read_time(_read(place, point), "UTC")
            if isinstance(moment, datetime):
                return micros_of(moment)
        return point.time

    def _counted(self, count: CountOf, groups: Iterable[PointGroup]) -> Iterator[MappedSample]:
        """A sample for each of the entities that a group stands for, numbered on within what `within` names."""
        before: Counter[tuple[str, int | None]] = Counter()
        for group in sorted(groups, key=lambda g: (g.time or 0, g.key)):
            counts = [p for p in group.points if p.name in count.metric and _passes(count, p)]
            many = max((int(p.value) for p in counts if isinstance(p.value, int | float)), default=0)
            if not 0 <= many <= MAX_COUNT:
                self._tell(counts[0].name, f"{many} is no number of GPUs of a node")
                continue
            at = (self._said(count.within, group.points), group.time)
            for number in range(before[at], before[at] + many):
                yield from self.sample(group, {"index": str(number)})
            before[at] += many

    def sample(self, group: PointGroup, own: Mapping[str, str] | None = None) -> Iterator[MappedSample]:
        points = group.all
        data, origins, lacks = self.named(points, own or {})
        for name, ways in self.spec.measures.items():
            way = self.way_of(ways, points)
            value = None if way is None else self._value(way, self.event.measure(name), group)
            if way is not None and value is not None:
                data[name] = value
                origins.append(Origin(name, value, " + ".join(way.metrics[: None if way.add else 1])))
        if self.event.entity is None and not any(m.name in data for m in self.event.measures):
            self._tell(group.points[0].name, "no reading: nothing of it is known")
            return
        yield MappedSample(self.event.topic, data, group.time, self.spec.interval, origins, lacks)

    def named(
        self, points: Sequence[Point], own: Mapping[str, str]
    ) -> tuple[dict[str, Any], list[Origin], list[str]]:
        """What names a sample: its fields, where each comes from, and which required ones nothing gave."""
        data, origins = dict[str, Any](), list[Origin]()
        for column in self.event.fields:
            counted = own.get(column.name)
            text, place = (counted, "counted") if counted else self._found(column.name, points)
            if text:
                data[column.name] = spelt(text) or text if column.form else text
                origins.append(Origin(column.name, data[column.name], place))
        self._name_by_host(data, origins)
        lacks = [f.name for f in self.event.fields if not f.optional and not f.form and f.name not in data]
        return data, origins, lacks

    def _name_by_host(self, data: dict[str, Any], origins: list[Origin]) -> None:
        """An entity without a name of its own is its host and number, as it is in events."""
        entity = self.event.entity
        if entity is None or entity.name in data or not entity.otherwise:
            return
        host, number = (data.get(name) for name in entity.otherwise)
        if name := stands_for(None, host, number, None):
            data[entity.name] = name
            origins.append(Origin(entity.name, name, " and ".join(entity.otherwise)))
        else:
            self._tell(self.event.topic, f"no {entity.name}, and no {' or no '.join(entity.otherwise)}")

    @staticmethod
    def way_of(ways: Sequence[MeasureFrom], points: Sequence[Point]) -> MeasureFrom | None:
        """The first way whose metric is there."""
        for way in ways:
            wanted = set(way.add or way.metric or ())
            if any(p.name in wanted and p.value is not None and passes(way, p) for p in points):
                return way
        return None

    def _value(self, way: MeasureFrom, measure: Measure, group: PointGroup) -> Any:
        if measure.kind == "histogram":
            return self._added(way, measure, group)
        if way.difference:
            key = (self.mapping.mapping, self.place, measure.name, group.key)
            total = totals(way, measure, group.points, self.mapping, self.given)
            if (added := counted_on(total, measure, group.time, self.differences, key)) is None and total:
                self._tell(way.metrics[0], COUNTS_ON)
            return added
        value = value_of(way, measure, group.all, self.spec, self.mapping, self.given, self._tell)
        return whole(value) if in_whole(measure) else value

    def _added(self, way: MeasureFrom, measure: Measure, group: PointGroup) -> list[dict[str, Any]] | None:
        """What the histograms of a sample count since their last report, as `{over, to, count}`; None at the first."""
        found: Counter[tuple[float, float | None]] = Counter()
        first = True
        for point in group.points:
            if point.name not in way.metrics or not isinstance(point.value, Buckets):
                continue
            added = self.differences.added(self._series_key(way, group, point), point.time, point.value)
            if added is None or not passes(way, point):
                continue
            first = False
            unit = unit_for(way, measure, point, self.given)
            for each in spreads(added, 1.0 if unit is None else unit.times / unit.over):
                found[each.over, each.to] += each.count
        if first:
            self._tell(way.metrics[0], COUNTS_ON)
            return None
        ends = sorted(found, key=lambda span: (span[0], span[1] is None, span[1]))
        return [{"over": a, **({} if b is None else {"to": b}), "count": found[a, b]} for a, b in ends]

    def _series_key(self, way: MeasureFrom, group: PointGroup, point: Point) -> str:
        """What a series is remembered by; without the labels that are tested, for a replica that takes over goes on."""
        labels = sorted((k, v) for k, v in point.labels.items() if k not in way.where)
        return json.dumps(
            [self.mapping.mapping, self.place, point.name, group.key, labels], ensure_ascii=False
        )

    def _tell(self, metric: str, what: str) -> None:
        self.notes[metric, what] += 1


def whole(value: float | int | None) -> float | int | None:
    """A number that is whole but for what its unit made of its last digit, as an integer."""
    if value is None or type(value) is int or not math.isfinite(value):
        return value
    near = round(value)
    return near if abs(value - near) < 1e-6 * max(1.0, abs(value)) else value


def each_once(points: Iterable[Point]) -> Iterable[Point]:
    """The points without those of the same series and time: an HA pair sends everything twice."""
    return {(p.name, p.time, frozenset(p.labels.items())): p for p in points}.values()


def _agree(key: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return len(key) == len(other) and all(a == b or not a or not b for a, b in zip(key, other, strict=True))


def _read(place: TextFrom, point: Point) -> str:
    if place.label is not None:
        text = point.labels.get(place.label, "")
    elif point.name == place.metric and isinstance(point.value, int | float):
        text = str(int(point.value)) if point.value == int(point.value) else str(point.value)
    else:
        text = ""
    return place.read(text) if text else ""


def _usable(text: str) -> str:
    """The text if it identifies something: no `N/A`, no zeros."""
    return "" if _NOTHING.fullmatch(text) or spelt(text) is None else text


def _passes(count: CountOf, point: Point) -> bool:
    return all(test.passes(point.labels.get(label, "")) for label, test in count.where.items())
