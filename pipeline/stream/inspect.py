"""The slow path: one Kafka record, opened with care, and the fate of each of its samples with the reason.

How a record is opened, its format knows (`pipeline/formats`); what of it is good is said here.  The vectorised decoder
hands over only what it is not sure of.  This module is the specification that the decoder must agree with: what it
accepts here is aggregated, with the same values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.catalog import EventType, Field, Measure
from pipeline.formats.event_format import INTERVAL, MAX_CLOCK_AHEAD, MAX_INTERVAL, Headers, json_of
from pipeline.formats.gpu_uuid import stands_for
from pipeline.formats.inside import found, tidied
from pipeline.formats.lenient_json import TOO_DEEP
from pipeline.formats.measures import Fate, SetAside, Unfit, amount, measured
from pipeline.formats.registry import format_of
from pipeline.formats.times import read_time

_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The fate of sample `idx` of a message; `row` holds the column values when it is aggregated, `aside` what it lacks.

    `sample` is the JSON value as found (None for a message that could not be opened), and `time`, `source`
    and `id` are set as far as they could be read.
    """

    idx: int
    fate: Fate
    reason: str
    row: Mapping[str, Any] = field(default_factory=dict)
    sample: Any = None
    time: datetime | None = None
    source: str | None = None
    id: str | None = None
    aside: tuple[SetAside, ...] = ()


def inspect(
    event: EventType,
    value: bytes | None,
    headers: Headers,
    record_time: datetime,
    max_bytes: int,
    ahead: bool = False,
    certain: Container[int] = (),
) -> Iterator[Outcome]:
    """Open one record of `event`'s topic; yields an outcome for each sample but those of `certain`, or one for the message.

    `record_time` is the Kafka timestamp, naive UTC, or the broker's clock if that is less; `ahead`: the timestamp is
    later than that clock by more than MAX_CLOCK_AHEAD.  `max_bytes` bounds the value.
    """
    try:
        attributes, data = _open(value, headers, max_bytes)
        source, ident, moment = _envelope(event, attributes)
        interval, doubted = _interval(attributes.get(INTERVAL))
    except Unfit as refused:
        yield Outcome(0, refused.fate, refused.reason)
        return
    many = isinstance(data, Sequence) and not isinstance(data, str)
    samples = data if many else [data]
    if not len(samples):
        yield Outcome(0, "dead_lettered", "data_empty_array", source=source, id=ident, time=moment)
    for idx in range(len(samples)):
        if idx in certain:
            continue
        sample = None
        try:
            sample = samples[idx]
            if ahead:
                raise Unfit("quarantined", "record_time_in_future")
            if moment > record_time + MAX_CLOCK_AHEAD:
                raise Unfit("quarantined", "time_in_future")
            row, aside = _row(event, sample, idx if many else None)
            row[INTERVAL] = interval
            yield Outcome(idx, "aggregated", "", row, sample, moment, source, ident, (*aside, *doubted))
        except Unfit as refused:
            yield Outcome(idx, refused.fate, refused.reason, {}, sample, moment, source, ident)


def _open(value: bytes | None, headers: Headers, max_bytes: int) -> tuple[Mapping[str, Any], Any]:
    """Attributes and data of a CloudEvent, in whatever format it came."""
    if value is None:
        raise Unfit("dead_lettered", "null_value")
    if len(value) > max_bytes:
        raise Unfit("dead_lettered", "too_large")
    if value[:1] == b"\x00":
        raise Unfit("dead_lettered", "confluent_wire_format")
    if value[:2] == _GZIP_MAGIC:
        raise Unfit("dead_lettered", "compressed_value")
    return format_of(headers, value).opened(value, headers)


def _envelope(event: EventType, attributes: Mapping[str, Any]) -> tuple[str, str, datetime]:
    for name in ("specversion", "type", "source", "id", "time"):
        value = attributes.get(name)
        if value is None:
            raise Unfit("dead_lettered", "not_a_cloudevent" if name == "specversion" else f"{name}_missing")
        if not isinstance(value, str):
            raise Unfit("dead_lettered", f"{name}_mistyped")
    if attributes["specversion"] != "1.0":
        raise Unfit("dead_lettered", "not_a_cloudevent")
    if attributes["type"] != event.type:
        raise Unfit("dead_lettered", "unknown_type")
    for name in ("source", "id"):
        if _has_surrogate(attributes[name]):
            raise Unfit("dead_lettered", f"{name}_not_unicode")
        if not 1 <= len(attributes[name].encode()) <= 1024:
            raise Unfit("dead_lettered", f"{name}_length")
    return attributes["source"], attributes["id"], _time("time", attributes["time"])


def _interval(value: Any) -> tuple[int | None, tuple[SetAside, ...]]:
    """The seconds that a source declares, as a JSON number or string; set aside when they are nothing sensible."""
    if value is None:
        return None, ()
    text = value if isinstance(value, str) else getattr(value, "text", str(value))
    if not _WHOLE.fullmatch(text):
        return None, (SetAside(INTERVAL, f"{INTERVAL}_mistyped", value),)
    if len(text) > 5 or not 1 <= int(text) <= MAX_INTERVAL:
        return None, (SetAside(INTERVAL, f"{INTERVAL}_out_of_range", value),)
    return int(text), ()


def _time(name: str, text: Any, zone: str | None = None) -> datetime:
    """The time as naive UTC; `zone` is that of a time that names none."""
    if not isinstance(text, str):
        raise Unfit("dead_lettered", f"{name}_mistyped")
    found = read_time(text, zone)
    if isinstance(found, str):
        without = found == "without_zone"
        raise Unfit("dead_lettered", f"{name}_without_zone" if without else f"{name}_malformed")
    return found


def _row(event: EventType, sample: Any, place: int | None) -> tuple[dict[str, Any], list[SetAside]]:
    """The typed columns of one sample, and what of it is set aside: measures and labels that may be absent.

    Anything else that is wrong refuses the sample; a fault of form dead-letters before a doubt of credence quarantines.
    """
    if not isinstance(sample, dict):
        raise Unfit("dead_lettered", "sample_not_an_object")
    row: dict[str, Any] = {}
    aside: list[SetAside] = []
    doubts: list[Unfit] = []
    columns: tuple[Field | Measure, ...] = (*event.fields, *event.measures)
    for column in columns:
        value = found(column, sample, event.nulls)
        try:
            if isinstance(column, Measure):
                row[column.name] = measured(column, value, aside)
            else:
                row[column.name] = _field(column, value, event.nulls)
        except Unfit as refused:
            if _may_lack(event, column):
                row[column.name] = None
                aside.append(SetAside(column.name, refused.reason, value))
            elif refused.fate == "dead_lettered":
                raise
            else:
                doubts.append(refused)
    if doubts:
        raise doubts[0]
    if event.entity and event.entity.form:
        host, number = (row[label] for label in event.entity.otherwise)
        row[event.entity.name] = stands_for(row[event.entity.name], host, number, place)
        if row[event.entity.name] is None:
            raise Unfit("dead_lettered", f"{event.entity.name}_missing")
    custom = {key: value for key, value in sample.items() if key.startswith("x_")}
    if event.retained:
        row["x_columns"] = json.dumps(custom, sort_keys=True) if custom else None
    return row, aside


def _may_lack(event: EventType, column: Field | Measure) -> bool:
    """Whether a sample counts without it: not what names its series or window, or what money is for."""
    if isinstance(column, Measure) or column == event.entity:
        return column.optional
    read = column.inside is not None and column.inside.properties
    return column in event.labels and column.optional and column.name != event.window_time and not read


def _field(column: Field, value: Any, nulls: Sequence[str]) -> Any:
    if value is None or (column.form and value == ""):
        if column.optional or column.form:
            return None
        raise Unfit("dead_lettered", f"{column.name}_missing")
    if column.whole and type(value) is int and 0 <= value < 10**9:
        value = str(value)
    if column.kind == "json":
        value = _object(value)
        if value is None:
            raise Unfit("dead_lettered", f"{column.name}_mistyped")
        tidy = tidied(column.inside, value, nulls, amount) if column.inside else value
        text = json.dumps(tidy, separators=(",", ":"), ensure_ascii=False)
        if TOO_DEEP in text:
            raise Unfit("dead_lettered", f"{column.name}_nested_too_deep")
        if _has_surrogate(text):
            raise Unfit("dead_lettered", f"{column.name}_not_unicode")
        return text
    if column.kind == "time":
        return _time(column.name, value, column.zone)
    if not isinstance(value, str):
        raise Unfit("dead_lettered", f"{column.name}_mistyped")
    if column.enum and value not in column.enum:
        raise Unfit("quarantined", f"{column.name}_not_in_enum")
    if not column.min_length <= len(value) <= (column.max_length or 1024):
        raise Unfit("dead_lettered", f"{column.name}_length")
    if _has_surrogate(value):
        raise Unfit("dead_lettered", f"{column.name}_not_unicode")
    return value


def _object(value: Any) -> dict[str, Any] | None:
    """A JSON object, or the one that a text holds: files have such columns as text.  None for anything else."""
    if isinstance(value, str):
        try:
            value = json_of(value.encode())
        except (Unfit, UnicodeEncodeError):
            return None
    return value if isinstance(value, dict) else None


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
