"""The wire formats that the product knows: a new one is one file and one line here."""

from __future__ import annotations

from pipeline.contract.faults import did_you_mean, one_of
from pipeline.errors import MappingError
from pipeline.formats import (
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
from pipeline.formats.wire import Format

POINT_FORMATS = (
    Format(prometheus.NAME, "what an exporter answers to a scrape, or OpenMetrics", prometheus.points),
    Format(otlp_proto.NAME, "OpenTelemetry metrics, protobuf", otlp_proto.points),
    Format(otlp_json.NAME, "OpenTelemetry metrics, JSON", otlp_json.points),
    Format(telegraf.NAME, "Telegraf's metrics, JSON or line protocol", telegraf.points),
    Format(vector.NAME, "Vector's metrics, JSON", vector.points),
    Format(prometheus_kafka_adapter.NAME, "prometheus-kafka-adapter's JSON", prometheus_kafka_adapter.points),
    Format(json_document.NAME, "any JSON document: Redfish, carbon intensity", json_document.points, False),
    Format(entsoe.NAME, "ENTSO-E's market documents, XML", entsoe.points, False),
    Format(csv_rows.NAME, "CSV with a header", csv_rows.points, False),
    Format(scontrol.NAME, "scontrol show nodes -o", scontrol.points, False),
)


def format_named(name: str) -> Format:
    """The format of that name.  Raises MappingError with the nearest one."""
    found = {each.name: each for each in POINT_FORMATS}
    if name not in found:
        hint = did_you_mean(name, found)
        raise MappingError(
            f"format: found {name!r}, expected {one_of(found)}" + (f"; {hint}" if hint else "")
        )
    return found[name]
