"""The mapping of a recording: which file and column is which field, checked against the event types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from pipeline.catalog import Catalog
from pipeline.catalog import load as load_catalog
from pipeline.contract.checked_parts import Duration, fault_text
from pipeline.contract.document import Document, read
from pipeline.contract.faults import did_you_mean, one_of
from pipeline.errors import ContractError, ScenarioError
from pipeline.mappings.mapping_spec import MappingPart


class RecordingPart(MappingPart, populate_by_name=False):
    """A part of a recording's mapping: its keys are those of the file alone."""


class ColumnSpec(RecordingPart):
    """Where a field or measure comes from: `column`, a number times `scale`, gathered `as` the last value or a list of all."""

    column: str
    scale: float = 1.0
    take: Annotated[Literal["last", "list"], Field(alias="as")] = "last"


class FileSpec(RecordingPart):
    """One CSV file with a header; `time` names its column, `unit` what that counts since 1970, or `rfc3339`."""

    file: str
    time: str
    unit: Literal["s", "ms", "us", "ns", "rfc3339"] = "s"
    fields: Annotated[dict[str, ColumnSpec], Field(min_length=1)]


class TopicMapping(RecordingPart):
    """How files become the events of one topic.

    `entity`: field → column, part of what makes two rows one event; `constants`: field → value, for what the
    recording lacks; `every`: gather the rows of each such interval into one report.
    """

    topic: str
    source: str
    constants: dict[str, str] = Field(default_factory=dict)
    entity: dict[str, str] = Field(default_factory=dict)
    every: Duration | None = None
    files: Annotated[list[FileSpec], Field(min_length=1)]

    @model_validator(mode="after")
    def _gathered(self) -> TopicMapping:
        lists = [n for f in self.files for n, c in f.fields.items() if c.take == "list"]
        if lists and not self.every:
            raise ValueError(f"every: found nothing, expected an interval to gather {lists[0]} over")
        return self


class Mapping(RecordingPart):
    """A mapping file.  `time_scale` below 1 makes the recording's time pass faster in event time too."""

    mapping: str
    text: str = ""
    time_scale: Annotated[float, Field(gt=0)] = 1.0
    topics: Annotated[list[TopicMapping], Field(min_length=1)]


def load_mapping(path: Path | str, catalog: Catalog | None = None) -> Mapping:
    """Reads and checks a mapping file against the event types.

    Raises ScenarioError with file, line, column, what was found and what was expected.
    """
    path = Path(path)
    try:
        document = read(path, path.name)
    except ContractError as error:
        raise ScenarioError(str(error).replace("contract", "mapping", 1)) from error
    faults = [str(fault) for fault in document.faults]
    if not faults:
        try:
            mapping = Mapping.model_validate(document.value)
            faults = list(_unknown(mapping, document, catalog or load_catalog()))
        except ValidationError as error:
            faults = [fault_text(document, problem) for problem in error.errors()]
    if faults:
        raise ScenarioError("mapping refused:\n  " + "\n  ".join(faults))
    return mapping


def _unknown(mapping: Mapping, document: Document, catalog: Catalog) -> Iterator[str]:
    """Topics and fields that no schema has, and required ones that the mapping leaves out."""
    for i, topic in enumerate(mapping.topics):
        if topic.topic not in catalog.topics:
            yield _misnamed(document, ("topics", i, "topic"), topic.topic, catalog.topics)
            continue
        event_type = catalog.by_topic(topic.topic)
        known = {f.name for f in event_type.fields} | {m.name for m in event_type.measures}
        given: dict[str, tuple[str | int, ...]] = {}
        given |= {name: ("topics", i, "constants", name) for name in topic.constants}
        given |= {name: ("topics", i, "entity", name) for name in topic.entity}
        for j, file in enumerate(topic.files):
            given |= {name: ("topics", i, "files", j, "fields", name) for name in file.fields}
        for name, place in given.items():
            if name not in known:
                yield _misnamed(document, place, name, known)
        missing = [f.name for f in event_type.fields if not f.optional and f.name not in given]
        if missing:
            line, column = document.place(("topics", i))
            yield f"{document.file}:{line}:{column} topics[{i}]: found no {missing[0]}, expected it"


def _misnamed(document: Document, path: tuple[str | int, ...], found: str, known: Iterable[str]) -> str:
    line, column = document.place(path, key=True)
    hint = did_you_mean(found, known)
    return f"{document.file}:{line}:{column}: found {found!r}, expected {one_of(sorted(known))}" + (
        f"; {hint}" if hint else ""
    )
