"""What `gigawatch map` shows: a mapping in words, and what becomes of a file, field by field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.catalog import Catalog
from pipeline.errors import MappingError
from pipeline.formats.measures import SetAside, Unfit, measured
from pipeline.formats.point import Point, Undecodable, time_text
from pipeline.formats.registry import format_named
from pipeline.mappings.gather import Gatherer, MappedSample
from pipeline.mappings.mapping_file import check_given
from pipeline.mappings.mapping_spec import Given, MeasureFrom, SourceMapping, TextFrom

MAX_BYTES = 64 << 20
"""Bytes of one file: more is no scrape."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A sample as it would count: what the schema does not let a measure be is set aside."""

    sample: MappedSample
    data: Mapping[str, Any]
    aside: Sequence[SetAside]


@dataclass(slots=True)
class Trial:
    """What became of files."""

    judged: list[Judged] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def documents(self) -> Iterator[dict[str, Any]]:
        """The `data` of each sample's event, with the `time` of its event where the source says one."""
        for each in self.judged:
            at = {} if each.sample.time is None else {"time": time_text(each.sample.time)}
            yield {**at, **each.data}

    def lines(self) -> Iterator[str]:
        """Every sample field by field, then what is to be said."""
        for number, each in enumerate(self.judged, 1):
            at = "" if each.sample.time is None else f" at {time_text(each.sample.time)}"
            yield f"sample {number} of {each.sample.topic}{at}"
            for origin in each.sample.origins:
                if origin.field in each.data:
                    yield f"  {origin.field:<22} {_shown(each.data[origin.field]):<44} {origin.place}"
            for aside in each.aside:
                yield f"  {aside.field:<22} {'set aside':<44} {aside.reason}: {_shown(aside.value)}"
            if each.sample.lacks:
                yield f"  {'lacks':<22} {', '.join(each.sample.lacks)}"
        yield from self.remarks()

    def remarks(self) -> Iterator[str]:
        """What is lacking, what was told on the way, and what no part of the mapping reads."""
        if not self.judged:
            yield "no sample"
        lacking = Counter(name for each in self.judged for name in each.sample.lacks)
        for name, n in lacking.items():
            yield f"{n} of {len(self.judged)} samples lack {name}: say --constant {name}=… or --from-label {name}=LABEL"
        for (metric, what), n in sorted(self.notes.items()):
            yield f"{metric}: {what}" + (f" ({n} times)" if n > 1 else "")
        for name, n in sorted(self.ignored.items()):
            yield f"ignored: {name} ({n} point{'' if n == 1 else 's'}), which the mapping does not read"


def tried(
    mapping: SourceMapping, files: Iterable[tuple[str, bytes]], wire: str, catalog: Catalog, given: Given
) -> Trial:
    """What becomes of files of one source, in the order they came.

    Raises MappingError for what is no message of that format, and for what `given` says of no field.
    """
    if wrong := list(check_given(given, [mapping], catalog)):
        raise MappingError("\n  ".join([f"mapping {mapping.mapping}:", *wrong]))
    trial, gatherer = Trial(), Gatherer(mapping, catalog, given)
    for name, raw in files:
        found = gatherer.gather(_points(name, raw, wire))
        trial.ignored.update(found.ignored)
        trial.notes.update(found.notes)
        trial.judged.extend(_judged(sample, catalog) for sample in found.samples)
    return trial


def _points(name: str, raw: bytes, wire: str) -> list[Point]:
    if len(raw) > MAX_BYTES:
        raise MappingError(f"{name}: found {len(raw):,} bytes, expected at most {MAX_BYTES:,}")
    wire_format = format_named(wire)
    points: list[Point] = []
    try:
        for number, message in enumerate(wire_format.messages(raw), 1):  # noqa: B007 - the refusal names it
            points += wire_format.points(message)
    except Undecodable as error:
        at = f":{number}" if points else ""
        raise MappingError(f"{name}{at}: {error}; is it of the format {wire}? (--format)") from error
    return points


def _judged(sample: MappedSample, catalog: Catalog) -> Judged:
    event = catalog.by_topic(sample.topic)
    data, aside = dict(sample.data), list[SetAside]()
    for measure in event.measures:
        if measure.name in data and measure.kind != "histogram":
            try:
                value = measured(measure, data[measure.name], aside)
            except Unfit as unfit:
                aside.append(SetAside(measure.name, unfit.reason, data.pop(measure.name)))
                continue
            if value is None:
                del data[measure.name]
            else:
                data[measure.name] = value
    return Judged(sample, data, aside)


def given_of(constants: Sequence[str], from_label: Sequence[str]) -> Given:
    """What options say, `NAME=VALUE` each.  Raises MappingError for one without `=`."""
    return Given(
        constants=dict(_pair("--constant", text) for text in constants),
        from_label={
            name: [TextFrom(label=label)]
            for name, label in (_pair("--from-label", text) for text in from_label)
        },
    )


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise MappingError(f"{option}: found {text!r}, expected NAME=VALUE")
    return name.strip(), value.strip()


def _shown(value: Any) -> str:
    if isinstance(value, list):
        counted = sum(each["count"] for each in value if isinstance(each, dict))
        ends = ", ".join(_spread(each) for each in value[:3] if isinstance(each, dict))
        return f"{counted} values: {ends}{', …' if len(value) > 3 else ''}" if value else "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _spread(each: Mapping[str, Any]) -> str:
    over = f"{each['over']:,.6g}"
    return f"{each['count']} of {over} to {each['to']:,.6g}" if "to" in each else f"{each['count']} > {over}"


def explained(mapping: SourceMapping, catalog: Catalog) -> Iterator[str]:
    """A mapping in words: its fields and measures, and where each comes from."""
    yield f"{mapping.mapping}: {mapping.text}"
    yield f"source: {mapping.source}; formats: {', '.join(mapping.formats)}"
    for name, words in mapping.settings.items():
        yield f"setting {name}: {' or '.join(words)}"
    for samples in mapping.samples:
        event = catalog.by_topic(samples.topic)
        yield f"{samples.topic}"
        for name, places in samples.fields.items():
            yield f"  {name:<22} {', else '.join(map(_place_text, places))}"
        given = [f.name for f in event.fields if not f.optional and f.name not in samples.fields]
        if given:
            yield f"  {'to be given':<22} {', '.join(given)}"
        for name, ways in samples.measures.items():
            for number, way in enumerate(ways):
                yield f"  {name if not number else '  else':<22} {_way_text(way)}"


def _place_text(place: TextFrom) -> str:
    named = f"label {place.label}" if place.label else f"value of {place.metric}"
    return f"{named} ({place.pattern})" if place.pattern else named


def _way_text(way: MeasureFrom) -> str:
    text = " + ".join(way.add) if way.add else " or ".join(way.metric or ())
    text += f" - {way.less}" if way.less else ""
    units = [way.unit] if isinstance(way.unit, str) else [each.unit for each in way.unit or ()]
    text += f" [{' or '.join(dict.fromkeys(units))}]" if units else ""
    text += "".join(f", {label} {_test_text(test)}" for label, test in way.where.items())
    text += ", added up" if way.series == "sum" else ""
    text += ", since the report before" if way.difference else ""
    return text + {"sum": ", parts added up", "absent": ", none of parts"}.get(way.parts, "")


def _test_text(test: Any) -> str:
    if test.matches is not None:
        return f"~ {test.matches}"
    if test.none_of is not None:
        return f"none of {len(test.none_of)} words"
    return f"= {' or '.join(repr(word) for word in test.any_of)}"
