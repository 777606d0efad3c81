"""Topics of what people already have: their messages become events, which are decoded as any other.

    record → points (format) → samples (mapping) → one event each → Decoder

What it costs is a JSON text for each sample, not for each point: a message of OTLP has ten points to a sample.  A sample has
no id of its own.  Its source is what it is of, its id the time, the entity and the measures that it has: what an HA pair or
a collector that tries again sends twice counts once, and the parts of a sample that come in messages of their own all count.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
from aiokafka.structs import ConsumerRecord

from pipeline.catalog import Catalog, EventType
from pipeline.errors import MappingError, SettingsError
from pipeline.formats.histograms import Differences
from pipeline.formats.point import LATEST, Point, Undecodable, time_text
from pipeline.formats.point_format import PointFormat
from pipeline.formats.registry import event_families, format_named
from pipeline.mappings.gather import MappedSample, report_mark
from pipeline.mappings.mapping_file import check_given, lacking, load_source_mapping
from pipeline.mappings.mapping_spec import NOTHING_GIVEN, Given, SourceMapping
from pipeline.mappings.plans import PlannedGatherer
from pipeline.settings import SourceSettings
from pipeline.stream.batch import Records, topic_records
from pipeline.stream.decode import Decoder
from pipeline.stream.decoded import BEYOND, Decoded, Refusal
from pipeline.stream.event_topics import EventTopicDecoder

EVENT = (("content-type", b"application/cloudevents+json"),)
IGNORED_NAMES = 1_000
"""Names of metrics that nobody reads, of which each is counted; the others together."""
OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class SourceTopic:
    """One topic of a source: how its messages are read, and which event types they become.

    `wire` is None where the messages are events of ours already.
    """

    topic: str
    format: str
    wire: PointFormat | None
    mappings: tuple[SourceMapping, ...]
    given: Given
    events: tuple[EventType, ...]


def source_topics(sources: Sequence[SourceSettings], catalog: Catalog) -> tuple[SourceTopic, ...]:
    """The sources of the settings.  Raises MappingError, or SettingsError that says where."""
    found: dict[str, SourceTopic] = {}
    for place, each in enumerate(sources):
        where = f"sources[{place}] ({each.topic})"
        if each.topic in catalog.topics or each.topic in found:
            raise SettingsError(f"{where}: found a topic that is read already, expected one of its own")
        found[each.topic] = _source_topic(each, catalog, where)
    return tuple(found.values())


def _source_topic(each: SourceSettings, catalog: Catalog, where: str) -> SourceTopic:
    if each.format in event_families():
        return _of_events(each, catalog, where)
    wire = _format(each.format, where)
    if not each.mappings:
        raise SettingsError(f"{where}: found no mapping, expected one; gigawatch map list has them")
    mappings = tuple(load_source_mapping(name, catalog) for name in each.mappings)
    given = Given.model_validate(
        {"constants": each.constants, "from_label": each.from_label, "where": each.where}
    )
    wrong = list(check_given(given, mappings, catalog))
    for mapping in mappings:
        for samples in mapping.samples:
            if lacks := lacking(given, samples, catalog.by_topic(samples.topic)):
                wrong.append(
                    f"found nothing for {', '.join(lacks)} of {samples.topic} (mapping {mapping.mapping}), "
                    "expected constants or from_label"
                )
    if wrong:
        raise SettingsError("\n  ".join([f"{where}:", *wrong]))
    topics = dict.fromkeys(samples.topic for mapping in mappings for samples in mapping.samples)
    return SourceTopic(
        each.topic, wire.name, wire, mappings, given, tuple(catalog.by_topic(topic) for topic in topics)
    )


def _format(name: str, where: str) -> PointFormat:
    """The format of that name, if it comes on Kafka.  Raises SettingsError."""
    try:
        wire = format_named(name)
    except MappingError as error:
        raise SettingsError(f"{where}: {error}; {' and '.join(event_families())} need no mapping") from error
    if not wire.on_kafka:
        raise SettingsError(f"{where}: found the format {wire.name}, expected one that comes on Kafka")
    return wire


def _of_events(each: SourceSettings, catalog: Catalog, where: str) -> SourceTopic:
    """A topic of our own events, of any type.  Raises SettingsError for what would have no effect."""
    given = {
        "mapping": each.mapping,
        "constants": each.constants,
        "from_label": each.from_label,
        "where": each.where,
    }
    if useless := [name for name, value in given.items() if value]:
        raise SettingsError(
            f"{where}: found {' and '.join(useless)}, expected none of them: what is {each.format} is events that say all "
            "by themselves; take that out, or name the format that the mapping reads"
        )
    return SourceTopic(each.topic, each.format, None, (), NOTHING_GIVEN, catalog.types)


def fed_by(sources: Sequence[SourceTopic], catalog: Catalog) -> dict[str, frozenset[str]]:
    """Topic of an event type → the topics from which its events come: its own, and those of sources."""
    return {
        event.topic: frozenset({event.topic, *(s.topic for s in sources if event in s.events)})
        for event in catalog.types
    }


class _Made(NamedTuple):
    """The `place`-th event of the record `origin`.

    `beyond`: (measure, least, how many) of the values above the last bound of a histogram.
    """

    record: ConsumerRecord
    origin: ConsumerRecord
    place: int = 0
    beyond: tuple[tuple[str, float, int], ...] = ()


def source_decoder(
    source: SourceTopic, catalog: Catalog, decoders: Mapping[str, Decoder], max_bytes: int
) -> SourceDecoder | EventTopicDecoder:
    """What decodes the records of a source's topic."""
    if source.wire is None:
        return EventTopicDecoder(source.events, decoders, max_bytes)
    return SourceDecoder(source, source.wire, catalog, decoders, max_bytes)


class SourceDecoder:
    """Decodes the records of one source's topic, batch by batch, in their order."""

    def __init__(
        self,
        source: SourceTopic,
        wire: PointFormat,
        catalog: Catalog,
        decoders: Mapping[str, Decoder],
        max_bytes: int,
    ) -> None:
        self._source, self._wire, self._decoders, self._max_bytes = source, wire, decoders, max_bytes
        self.differences = Differences()
        self._gatherers = [
            PlannedGatherer(m, catalog, source.given, self.differences) for m in source.mappings
        ]
        self._make = EventMaker(source.events)
        self.ignored: Counter[str] = Counter()
        """Metric → points that no mapping of the topic reads, since the start."""

    def decode(self, parts: Sequence[tuple[int, Records]], clock: float) -> list[Decoded]:
        """What the records became, for each event type that has any."""
        made: dict[str, list[_Made]] = {event.topic: [] for event in self._source.events}
        broken: list[tuple[ConsumerRecord, str]] = []
        for _, records in parts:
            for record in records:
                self.differences.hear(int(min(record.timestamp * 1000, clock * 1_000_000)))
                try:
                    for topic, event in self._events(record):
                        made[topic].append(event)
                except Undecodable as error:
                    broken.append((record, error.reason))
        first = self._source.events[0].topic
        return [
            self._decoded(topic, events, broken if topic == first else [], clock)
            for topic, events in made.items()
            if events or (broken and topic == first)
        ]

    def _decoded(
        self,
        topic: str,
        events: Sequence[_Made],
        broken: Sequence[tuple[ConsumerRecord, str]],
        clock: float,
    ) -> Decoded:
        """The events decoded; a message that cannot be read takes part as a record without a value, and is named after."""
        blank = [_Made(replace(record, value=None, headers=()), record) for record, _ in broken]
        made = sorted([*events, *blank], key=lambda each: each.record.partition)
        by_part = groupby((each.record for each in made), key=lambda record: record.partition)
        parts = [(part, list(records)) for part, records in by_part]
        decoded = self._decoders[topic].decode(topic_records(parts, self._max_bytes, clock))
        beyond = [
            {"row": row, "idx": 0, "measure": measure, "least": least, "n": n}
            for row, each in enumerate(made)
            for measure, least, n in each.beyond
        ]
        if beyond:
            decoded = replace(decoded, beyond=pa.Table.from_pylist(beyond, BEYOND))
        reasons = {(record.partition, record.offset): reason for record, reason in broken}
        return replace(
            decoded,
            refusals=[_named(refusal, made[refusal.position], reasons) for refusal in decoded.refusals],
        )

    def _events(self, record: ConsumerRecord) -> Iterator[tuple[str, _Made]]:
        """(topic, event) of each sample that a message holds.  Raises Undecodable before the first."""
        points = self._points(record)
        unread: Counter[str] | None = None
        found: list[tuple[SourceMapping, MappedSample]] = []
        for mapping, gatherer in zip(self._source.mappings, self._gatherers, strict=True):
            gathered = gatherer.gather(points)
            found += [(mapping, sample) for sample in gathered.samples]
            unread = gathered.ignored if unread is None else unread & gathered.ignored
        for name, n in (unread or Counter()).items():
            known = name in self.ignored or len(self.ignored) < IGNORED_NAMES
            self.ignored[name if known else OTHERS] += n
        for place, (mapping, sample) in enumerate(found):
            made = self._make.record(record, mapping.mapping, sample)
            yield sample.topic, _Made(made, record, place, tuple(_beyond(sample)))

    def _points(self, record: ConsumerRecord) -> list[Point]:
        if record.value is None:
            raise Undecodable("null_value")
        if len(record.value) > self._max_bytes:
            raise Undecodable("too_large")
        return list(self._wire.points(record.value))


def _named(refusal: Refusal, made: _Made, reasons: Mapping[tuple[int, int], str]) -> Refusal:
    """The refusal, of the record as it came: of one of its samples, or of all, for the reason that it could not be read."""
    outcome = replace(refusal.outcome, idx=made.place)
    if made.record.value is None:
        place = (made.origin.partition, made.origin.offset)
        outcome = replace(outcome, reason=reasons.get(place, outcome.reason))
    return replace(refusal, record=made.origin, outcome=outcome)


class EventMaker:
    """Makes events of samples: the same sample of the same thing at the same time is the same event, whoever sends it."""

    def __init__(self, events: Sequence[EventType]) -> None:
        self._events = {event.topic: event for event in events}
        self._heads: dict[tuple[int, int, str], tuple[Mapping[str, str], str, str]] = {}

    def record(self, record: ConsumerRecord, mapping: str, sample: MappedSample) -> ConsumerRecord:
        """The sample as a CloudEvent in structured mode, in the place of the record that it came in."""
        value = msgspec.json.encode(self.event(mapping, sample, record.timestamp * 1000))
        return ConsumerRecord(
            sample.topic, record.partition, record.offset, record.timestamp, record.timestamp_type,
            None, value, record.checksum, -1, len(value), EVENT,
        )  # fmt: skip

    def event(self, mapping: str, sample: MappedSample, otherwise: int) -> dict[str, Any]:
        """The CloudEvent of a sample; `otherwise`: the time, in microseconds since 1970, of one that says none."""
        event, data = self._events[sample.topic], sample.data
        source, ident = self._head(event, mapping, sample)
        time = min(max(sample.time if sample.time is not None else otherwise, 0), LATEST)
        if event.histograms:
            data = {
                name: _values(value) if isinstance(value, list) else value for name, value in data.items()
            }
        found = {
            "specversion": "1.0",
            "id": f"{time}/{ident}",
            "source": source,
            "type": event.type,
            "time": _time_text(time),
            "data": data,
        }
        return found if sample.interval is None else {**found, "interval": sample.interval}

    def _head(self, event: EventType, mapping: str, sample: MappedSample) -> tuple[str, str]:
        """Source, and what of the id is not the time; kept for those whose names are the same object as before."""
        key = (id(sample.named), len(sample.data), mapping)
        kept = self._heads.get(key)
        if kept is not None and kept[0] is sample.named:
            return kept[1], kept[2]
        head = _source_and_name(event, mapping, sample.data)
        if sample.named:
            if len(self._heads) > MAX_HEADS:
                self._heads.clear()
            self._heads[key] = (sample.named, *head)
        return head


def _source_and_name(event: EventType, mapping: str, data: Mapping[str, Any]) -> tuple[str, str]:
    of = event.entity.name if event.entity else event.dimensions[-1].name
    named = [str(data[d.name]) for d in event.dimensions if d.name in data]
    node = data.get("node") or "/".join(named[-2:]) or of
    measures = ",".join(m.name for m in event.measures if m.name in data)
    mark = zlib.crc32(f"{measures}|{named}{report_mark(event, data)}".encode())
    return f"/{mapping}/{node}"[:250], f"{str(data.get(of, ''))[:200]}/{mark:08x}"


_time_text = lru_cache(4096)(time_text)
MAX_HEADS = 500_000


def _beyond(sample: MappedSample) -> Iterator[tuple[str, float, int]]:
    for name, value in sample.data.items():
        if isinstance(value, list):
            yield from ((name, each["over"], each["count"]) for each in value if "to" not in each)


def _values(spreads: Sequence[Mapping[str, Any]]) -> list[float]:
    """The values that buckets stand for: the upper bound of each, as quantiles go; of those above all bounds the last."""
    return [each.get("to", each["over"]) for each in spreads for _ in range(each["count"])]
