"""OTLP metrics as protobuf: what the OpenTelemetry Collector's Kafka exporter writes unless told otherwise.

Read by the classes of the package opentelemetry-proto, over protobuf's own C parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from pipeline.formats.otlp import (
    DELTA,
    Series,
    attribute_text,
    exponential_bounds,
    histogram_point,
    labelled,
    number_point,
)
from pipeline.formats.point import Point, Undecodable, bounded

NAME = "otlp_proto"


def points(raw: bytes) -> Iterator[Point]:
    """The points of an export request.  Raises Undecodable where it is none."""
    request = ExportMetricsServiceRequest()
    try:
        request.ParseFromString(raw)
    except DecodeError as error:
        raise Undecodable("not_protobuf") from error
    if raw and not request.resource_metrics:
        raise Undecodable("not_otlp", "", "no resource_metrics", "an export request of metrics")
    yield from bounded(_points(request))


def _points(request: Any) -> Iterator[Point]:
    for of_resource in request.resource_metrics:
        resource = dict(_attributes(of_resource.resource.attributes))
        for scope in of_resource.scope_metrics:
            for metric in scope.metrics:
                yield from _of_metric(metric, resource)


def _of_metric(metric: Any, resource: Mapping[str, str]) -> Iterator[Point]:
    of = metric.WhichOneof("data")
    if of in ("gauge", "sum"):
        counted = of == "sum" and metric.sum.is_monotonic
        delta = of == "sum" and metric.sum.aggregation_temporality == DELTA
        series = Series(metric.name, "counter" if counted else "gauge", not delta)
        for point in getattr(metric, of).data_points:
            own = point.WhichOneof("value")
            value = getattr(point, own) if own else None
            labels = labelled(resource, _attributes(point.attributes))
            yield number_point(series, labels, value, point.time_unix_nano, point.flags)
    elif of in ("histogram", "exponential_histogram"):
        data = getattr(metric, of)
        series = Series(metric.name, "histogram", data.aggregation_temporality != DELTA)
        for point in data.data_points:
            bounds, counts = _buckets(of, point)
            labels = labelled(resource, _attributes(point.attributes))
            yield histogram_point(
                series, labels, bounds, counts, point.time_unix_nano, point.start_time_unix_nano, point.flags
            )


def _buckets(of: str, point: Any) -> tuple[list[float], list[int]]:
    if of == "histogram":
        return list(point.explicit_bounds), list(point.bucket_counts)
    counts = list(point.positive.bucket_counts)
    bounds = exponential_bounds(point.scale, point.positive.offset, len(counts))
    return bounds, [point.zero_count, *counts, 0]


def _attributes(pairs: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for pair in pairs:
        which = pair.value.WhichOneof("value")
        yield pair.key, attribute_text(getattr(pair.value, which)) if which else ""
