"""A recorded day as events: CSV files and a mapping that says which column is which field.

    mapping = load_mapping("gentd26.mapping.yaml")
    recording = record(mapping, Path("recordings/"))     # every event, in the order of its arrival
    sent = await replay("localhost:9092", recording, speed=60)

Files may be plain, gzipped, or members of a .tar.gz.  Rows of several files that carry the same time and the
same entity become one event; with `every`, the rows of each such interval become one report.  A row that
comes later than others of its file, though its time is earlier, stays late: its event keeps its own time, and
takes its place in the order of arrival.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.catalog import Catalog, EventType, Field, Measure
from pipeline.catalog import load as load_catalog
from pipeline.contract.faults import did_you_mean, one_of
from pipeline.errors import ScenarioError
from pipeline.mappings.recorded_cells import cell_moment, cell_value
from pipeline.mappings.recording_mapping import FileSpec, Mapping, TopicMapping, load_mapping

__all__ = ["Mapping", "Recorded", "Recording", "load_mapping", "record"]


@dataclass(slots=True)
class Recorded:
    """One event of a recording: `time_ms` is recorded time, `arrived_ms` when it was seen, never less."""

    topic: str
    type: str
    source: str
    id: str
    time_ms: int
    arrived_ms: int
    data: dict[str, Any]


@dataclass(slots=True)
class Recording:
    """Every event of a recording, in the order of arrival; `rows`: rows read of each file."""

    name: str
    events: list[Recorded]
    rows: dict[str, int]
    time_scale: float = 1.0

    @property
    def late(self) -> int:
        """Events whose time is earlier than that of one before them in their file."""
        return sum(event.time_ms < event.arrived_ms for event in self.events)


def record(mapping: Mapping, directory: Path, catalog: Catalog | None = None) -> Recording:
    """Reads every file of the mapping from `directory`.

    Raises ScenarioError for a missing file or column, or a cell that is not what it should be.
    """
    if not directory.is_dir():
        raise ScenarioError(f"trace {directory}: found no directory, expected one with {mapping.mapping}")
    catalog = catalog or load_catalog()
    events: list[Recorded] = []
    rows: dict[str, int] = {}
    for topic in mapping.topics:
        reader = _Reader(topic, catalog.by_topic(topic.topic))
        for spec in topic.files:
            with _opened(directory, spec.file) as text:
                rows[spec.file] = reader.read(spec, text)
        events += reader.events()
    events.sort(key=lambda event: event.arrived_ms)
    if not events:
        raise ScenarioError(f"trace {directory}: found no row in {one_of(rows)}, expected at least one")
    return Recording(mapping.mapping, events, rows, mapping.time_scale)


@dataclass(slots=True)
class _Event:
    time_ms: int
    arrived_ms: int
    data: dict[str, Any]
    files: set[str] = field(default_factory=set)

    def join(self, file: str, arrived: int) -> None:
        """A row of another file is about it."""
        self.files.add(file)
        self.arrived_ms = max(self.arrived_ms, arrived)


class _Reader:
    """Joins the rows of one topic's files."""

    def __init__(self, spec: TopicMapping, event_type: EventType) -> None:
        self.spec, self.event_type = spec, event_type
        columns: tuple[Field | Measure, ...] = (*event_type.fields, *event_type.measures)
        self._columns = {column.name: column for column in columns}
        self._events: dict[tuple[Any, ...], list[_Event]] = {}

    def read(self, spec: FileSpec, text: Iterable[str]) -> int:
        """Takes in every row; gives their number."""
        lines = csv.reader(text)
        header = next(lines, [])
        wanted = [spec.time, *self.spec.entity.values(), *(c.column for c in spec.fields.values())]
        for column in wanted:
            if column not in header:
                hint = did_you_mean(column, header)
                raise ScenarioError(
                    f"trace {spec.file}:1: found no column {column!r}, expected it among {one_of(header)}"
                    + (f"; {hint}" if hint else "")
                )
        at = {column: header.index(column) for column in wanted}
        count, clock = 0, -math.inf
        for row in lines:
            if not row:
                continue
            if len(row) != len(header):
                raise ScenarioError(
                    f"trace {spec.file}:{lines.line_num}: found {len(row)} cells, expected {len(header)}"
                )
            clock = self._take(spec, {c: row[i] for c, i in at.items()}, lines.line_num, clock)
            count += 1
        return count

    def _take(self, spec: FileSpec, row: dict[str, str], line: int, clock: float) -> float:
        """One row into its event; gives the greatest time of the file so far, in ms."""
        with _cell_of(spec.file, line, spec.time, row[spec.time]):
            seen = cell_moment(row[spec.time], spec.unit)
        time_ms, clock = round(seen), max(clock, seen)
        entity = [row[column] for column in self.spec.entity.values()]
        if "" in entity:
            column = list(self.spec.entity.values())[entity.index("")]
            raise ScenarioError(
                f"trace {spec.file}:{line} column {column}: found an empty cell, expected an entity"
            )
        arrived = round(clock)
        if self.spec.every:
            every = self.spec.every * 1000
            time_ms, arrived = (t // every * every + every for t in (time_ms, arrived))
        event = self._event((time_ms, *entity), spec, time_ms, arrived, entity)
        for name, source in spec.fields.items():
            if cell := row[source.column].strip():
                with _cell_of(spec.file, line, source.column, cell):
                    value = cell_value(self._columns[name], cell, source.scale)
                if source.take == "list":
                    event.data.setdefault(name, []).append(value)
                else:
                    event.data[name] = value
        return clock

    def _event(
        self, key: tuple[Any, ...], spec: FileSpec, time_ms: int, arrived: int, entity: list[str]
    ) -> _Event:
        """The event that a row belongs to.  A second row of the same file begins another, unless gathered."""
        same = self._events.setdefault(key, [])
        for event in same:
            if self.spec.every or spec.file not in event.files:
                event.join(spec.file, arrived)
                return event
        data: dict[str, Any] = {**self.spec.constants, **dict(zip(self.spec.entity, entity, strict=True))}
        same.append(_Event(time_ms, arrived, data, {spec.file}))
        return same[-1]

    def events(self) -> Iterator[Recorded]:
        if self.spec.every:
            self._fill()
        for same in self._events.values():
            for copy, event in enumerate(same):
                suffix = f"-{copy + 1}" if copy else ""
                yield Recorded(
                    self.spec.topic, self.event_type.type, self.spec.source.format(**event.data),
                    f"{event.time_ms}{suffix}", event.time_ms, event.arrived_ms, event.data,
                )  # fmt: skip

    def _fill(self) -> None:
        """A report for every interval of every entity; the last value is held where nothing was recorded."""
        every = (self.spec.every or 0) * 1000
        lists = [n for f in self.spec.files for n, c in f.fields.items() if c.take == "list"]
        by_entity: dict[tuple[Any, ...], dict[int, _Event]] = {}
        for key, same in self._events.items():
            by_entity.setdefault(key[1:], {})[key[0]] = same[0]
        for entity, reports in by_entity.items():
            held: dict[str, Any] = {}
            for time_ms in range(min(reports), max(reports) + 1, every):
                event = reports.get(time_ms) or _Event(time_ms, time_ms, {})
                data = {**held, **{name: [] for name in lists}, **event.data}
                held = {name: value for name, value in data.items() if name not in lists}
                self._events[(time_ms, *entity)] = [replace(event, data=data)]


@contextmanager
def _cell_of(file: str, line: int, column: str, cell: str) -> Iterator[None]:
    """What a cell is not is told with its place."""
    try:
        yield
    except ValueError as error:
        raise ScenarioError(
            f"trace {file}:{line} column {column}: found {cell!r}, expected {error}"
        ) from error


@contextmanager
def _opened(directory: Path, name: str) -> Iterator[Iterable[str]]:
    """The text of `name`: plain, `name.gz`, or a member of a .tar.gz in `directory`."""
    plain, zipped = directory / name, directory / f"{name}.gz"
    if plain.is_file():
        with plain.open(encoding="utf-8-sig", newline="") as text:
            yield text
        return
    if zipped.is_file():
        with gzip.open(zipped, "rt", encoding="utf-8-sig", newline="") as text:
            yield text
        return
    named = directory / f"{name.removesuffix('.csv')}.tar.gz"
    archives = [named] if named.is_file() else sorted(directory.glob("*.tar.gz"))
    for archive in archives:
        with tarfile.open(archive) as tar:
            for member in tar:
                content = tar.extractfile(member) if Path(member.name).name == name else None
                if content:
                    yield io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
                    return
    raise ScenarioError(
        f"trace {directory}: found no {name}, expected it there as it is, as {name}.gz or inside a .tar.gz"
    )
