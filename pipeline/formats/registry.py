"""The wire formats that the product knows: a new one is one file and one line here."""

from __future__ import annotations

from pipeline.contract.faults import did_you_mean, one_of
from pipeline.errors import MappingError
from pipeline.formats import (
    arrow_stream,
    cloudevents_binary,
    cloudevents_structured,
    csv_rows,
    entsoe,
    json_document,
    otlp_json,
    otlp_proto,
    prometheus,
    prometheus_kafka_adapter,
    scontrol,
    telegraf,
    vector,
)
from pipeline.formats.event_format import EventFormat, Headers, content_types
from pipeline.formats.point_format import PointFormat

FORMATS: tuple[EventFormat | PointFormat, ...] = (
    cloudevents_structured.FORMAT,
    arrow_stream.FORMAT,
    cloudevents_binary.FORMAT,  # takes what no other recognises
    PointFormat(prometheus.NAME, "what an exporter answers to a scrape, or OpenMetrics", prometheus.points),
    PointFormat(otlp_proto.NAME, "OpenTelemetry metrics, protobuf", otlp_proto.points),
    PointFormat(
        otlp_json.NAME, "OpenTelemetry metrics, JSON", otlp_json.points, carefully=otlp_json.carefully
    ),
    PointFormat(
        telegraf.NAME,
        "Telegraf's metrics, JSON or line protocol",
        telegraf.points,
        carefully=telegraf.carefully,
    ),
    PointFormat(vector.NAME, "Vector's metrics, JSON", vector.points),
    PointFormat(
        prometheus_kafka_adapter.NAME, "prometheus-kafka-adapter's JSON", prometheus_kafka_adapter.points
    ),
    PointFormat(
        json_document.NAME, "any JSON document: Redfish, carbon intensity", json_document.points, False
    ),
    PointFormat(entsoe.NAME, "ENTSO-E's market documents, XML", entsoe.points, False),
    PointFormat(csv_rows.NAME, "CSV with a header", csv_rows.points, False),
    PointFormat(scontrol.NAME, "scontrol show nodes -o", scontrol.points, False),
)


def event_formats() -> tuple[EventFormat, ...]:
    """The formats of events, in the order in which they are asked whether they recognise a record."""
    return tuple(each for each in FORMATS if isinstance(each, EventFormat))


def event_families() -> tuple[str, ...]:
    """What settings may call the format of a topic that carries events already."""
    return tuple(dict.fromkeys(each.family for each in event_formats()))


def point_formats() -> tuple[PointFormat, ...]:
    """The formats of points, which mappings are for."""
    return tuple(each for each in FORMATS if isinstance(each, PointFormat))


def format_of(headers: Headers, value: bytes) -> EventFormat:
    """The format of a record on a topic of events."""
    return next(each for each in event_formats() if each.recognises(headers, value))


def formats_declared(headers: Headers) -> tuple[EventFormat, ...]:
    """The formats that a record with these headers may be of: the first of them as whose values its own begins."""
    types = content_types(headers)
    return tuple(each for each in event_formats() if each.declared_by(types))


def format_named(name: str) -> PointFormat:
    """The format of points of that name.  Raises MappingError with the nearest one."""
    found = {each.name: each for each in point_formats()}
    if name not in found:
        hint = did_you_mean(name, found)
        raise MappingError(
            f"format: found {name!r}, expected {one_of(found)}" + (f"; {hint}" if hint else "")
        )
    return found[name]
