"""Mapping files: read, checked with the line and column of every fault, found by name.

The shipped ones are data of this package; each says which versions of its source it knows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.catalog import Catalog, EventType, Measure
from pipeline.contract.document import Document, read
from pipeline.contract.faults import ContractRefused as Unread
from pipeline.contract.faults import DocumentPath, Fault, did_you_mean, dotted, one_of, shown
from pipeline.errors import MappingError
from pipeline.mappings.mapping_spec import Given, MeasureFrom, SamplesOf, SourceMapping
from pipeline.mappings.units import unit_of, units_for

DIRECTORY = Path(__file__).parent / "shipped"


def shipped() -> tuple[str, ...]:
    """The names of the mappings that come with the program."""
    return tuple(sorted(path.stem for path in DIRECTORY.glob("*.yaml")))


def load_source_mapping(name: str, catalog: Catalog) -> SourceMapping:
    """A mapping by its name, or by the path of its file.  Raises MappingError with every fault and its place."""
    mapping, faults = check_mapping(name, catalog)
    if mapping is None or faults:
        raise MappingError("mapping refused:\n  " + "\n  ".join(map(str, faults)))
    return mapping


def check_mapping(name: str, catalog: Catalog) -> tuple[SourceMapping | None, list[Fault]]:
    """The mapping, and what is wrong with it; MappingError where there is no such file or it is no YAML at all."""
    try:
        document = read(*_found(name))
    except Unread as error:
        raise MappingError(str(error).replace("contract", "mapping")) from error
    if document.faults:
        return None, document.faults
    try:
        mapping = SourceMapping.model_validate(_plain(document.value))
    except ValidationError as error:
        return None, sorted(_fault(document, problem) for problem in error.errors())
    for i, samples in enumerate(mapping.samples):
        _check_samples(document, ("samples", i), samples, mapping, catalog)
    return mapping, document.faults


def _found(name: str) -> tuple[Path, str]:
    if name in shipped():
        return DIRECTORY / f"{name}.yaml", f"{name}.yaml"
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name), name
    hint = did_you_mean(name, shipped())
    wanted = f"{one_of(shipped())}, or the path of a file"
    raise MappingError(f"mapping: found {name!r}, expected {wanted}" + (f"; {hint}" if hint else ""))


def _plain(value: Any) -> Any:
    """The document's values as pydantic takes them: a Decimal as a float."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | int | bool) else float(value)


def _fault(document: Document, problem: Mapping[str, Any]) -> Fault:
    path = _path_in(document.value, problem["loc"])
    kind, message = problem["type"], str(problem["msg"]).removeprefix("Value error, ")
    line, column = document.place(path, key=kind == "extra_forbidden")
    if kind == "extra_forbidden":
        return Fault(
            document.file,
            line,
            column,
            dotted(path),
            f"the unknown field {path[-1]!r}",
            "a field of this place",
        )
    if kind == "missing":
        return Fault(
            document.file, line, column, dotted(path), "nothing", f"the field {problem['loc'][-1]!r}"
        )
    found, _, expected = message.partition(", expected ")
    if not expected:
        found, expected = shown(problem["input"]), message[:1].lower() + message[1:]
    return Fault(document.file, line, column, dotted(path), found.removeprefix("found "), expected)


def _path_in(value: Any, loc: tuple[str | int, ...]) -> DocumentPath:
    """The part of pydantic's path that is in the file: it also names the types that it tried."""
    path: list[str | int] = []
    for key in loc:
        if isinstance(value, dict) and (key in value or key == loc[-1]):
            path.append(key)
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            path.append(key)
            value = value[key]
    return tuple(path)


def _check_samples(
    document: Document, at: DocumentPath, samples: SamplesOf, mapping: SourceMapping, catalog: Catalog
) -> None:
    """Topics, fields, measures, words and units that no event type has."""
    if samples.topic not in catalog.topics:
        _unknown(document, (*at, "topic"), samples.topic, catalog.topics)
        return
    event = catalog.by_topic(samples.topic)
    fields = {f.name for f in event.fields}
    for name in samples.fields:
        if name not in fields:
            _unknown(document, (*at, "fields", name), name, fields, key=True)
    for place, name in enumerate(samples.key or ()):
        if name not in fields:
            _unknown(document, (*at, "key", place), name, fields)
    for name, ways in samples.measures.items():
        here: DocumentPath = (*at, "measures", name)
        measures = {m.name: m for m in event.measures}
        if name not in measures:
            _unknown(document, here, name, measures, key=True)
            continue
        for i, way in enumerate(ways):
            listed = isinstance(document.value["samples"][at[1]]["measures"][name], list)
            _check_way(document, (*here, i) if listed else here, way, measures[name], mapping)


def _check_way(
    document: Document, at: DocumentPath, way: MeasureFrom, measure: Measure, mapping: SourceMapping
) -> None:
    if measure.kind == "text":
        for word in way.words or {"": []}:
            if word not in measure.enum:
                _unknown(document, (*at, "words", word), word, measure.enum, key=True)
        return
    units = way.unit if isinstance(way.unit, list) else []
    named = [(("unit",), way.unit)] if isinstance(way.unit, str) else []
    named += [(("unit", i, "unit"), each.unit) for i, each in enumerate(units)]  # type: ignore[misc]
    for path, unit in named:
        if unit_of(unit, measure.unit) is None:
            _unknown(document, (*at, *path), unit, units_for(measure.unit))
    for i, each in enumerate(units):
        for setting, word in each.settings.items():
            place: DocumentPath = (*at, "unit", i, "settings", setting)
            if setting not in mapping.settings:
                _unknown(document, place, setting, mapping.settings, key=True)
            elif word not in mapping.settings[setting]:
                _unknown(document, place, word, mapping.settings[setting])


def _unknown(
    document: Document, path: DocumentPath, found: str, known: Collection[str] | Any, key: bool = False
) -> None:
    known = list(known)
    document.fault(path, repr(found), one_of(sorted(known)), did_you_mean(found, known), key)


def check_given(given: Given, mappings: Sequence[SourceMapping], catalog: Catalog) -> Iterator[str]:
    """What a user says of a source and no sample can have, in words.

    A dimension of another type is no mistake: where something stands is said once for all that stands there.
    """
    elsewhere = {dimension.name for event in catalog.types for dimension in event.dimensions}
    events = [catalog.by_topic(samples.topic) for mapping in mappings for samples in mapping.samples]
    fields = {f.name for event in events for f in event.fields}
    settings = {name: words for mapping in mappings for name, words in mapping.settings.items()}
    for name, word in given.constants.items():
        if word not in settings.get(name, [word]):
            yield f"constants.{name}: found {word!r}, expected {one_of(settings[name])}"
        elif name not in fields | elsewhere and name not in settings:
            yield _said(f"constants.{name}", name, sorted({*fields, *settings}))
    for name in (*given.from_label, *(name for rule in given.where for name in rule.set)):
        if name not in fields:
            yield _said(f"from_label.{name}", name, sorted(fields))


def _said(where: str, name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    return f"{where}: found {name!r}, expected {one_of(known)}" + (f"; {hint}" if hint else "")


def lacking(given: Given, samples: SamplesOf, event: EventType) -> list[str]:
    """The required fields that no place, table or constant gives."""
    known = {
        *given.constants,
        *given.from_label,
        *samples.fields,
        *(n for rule in given.where for n in rule.set),
    }
    return [f.name for f in event.fields if not f.optional and not f.form and f.name not in known]
