"""OTLP metrics as JSON: what the OpenTelemetry Collector's Kafka exporter writes with `encoding: otlp_json`.

64-bit numbers come as text or as numbers, `NaN` as text, and names in lowerCamelCase (protobuf's JSON mapping).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.formats.lenient_json import read_json
from pipeline.formats.otlp import (
    DELTA,
    Series,
    attribute_text,
    exponential_bounds,
    histogram_point,
    labelled,
    number_point,
)
from pipeline.formats.point import Kind, Point, Undecodable, bounded

NAME = "otlp_json"
_VALUES = ("stringValue", "intValue", "doubleValue", "boolValue")


def points(raw: bytes) -> Iterator[Point]:
    """The points of an export request.  Raises Undecodable where it is none."""
    yield from bounded(_points(json_object(raw)))


def json_object(raw: bytes) -> Mapping[str, Any]:
    """The JSON object that a value is.  Raises Undecodable for anything else."""
    found = json_value(raw)
    if not isinstance(found, dict):
        raise Undecodable("not_an_object", "", "another JSON value", "an object")
    return found


def json_value(raw: bytes) -> Any:
    """The JSON value that a message is.  Raises Undecodable."""
    try:
        return read_json(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Undecodable("not_utf8") from error
    except ValueError as error:
        raise Undecodable("not_json") from error


def _points(request: Mapping[str, Any]) -> Iterator[Point]:
    if not isinstance(request.get("resourceMetrics"), list):
        raise Undecodable("not_otlp", "", "no resourceMetrics", "an export request of metrics")
    for of_resource in _objects(request, "resourceMetrics"):
        resource = dict(_attributes(_object(of_resource, "resource")))
        for scope in _objects(of_resource, "scopeMetrics"):
            for metric in _objects(scope, "metrics"):
                yield from _of_metric(metric, resource)


def _of_metric(metric: Mapping[str, Any], resource: Mapping[str, str]) -> Iterator[Point]:
    name = str(metric.get("name", ""))
    for of, kind in (
        ("gauge", "gauge"),
        ("sum", "counter"),
        ("histogram", "histogram"),
        ("exponentialHistogram", ""),
    ):
        data = _object(metric, of)
        if not data:
            continue
        series = Series(name, _kind(kind, data), _whole(data.get("aggregationTemporality", 0)) != DELTA)
        for each in _objects(data, "dataPoints"):
            yield _point(series, of, each, labelled(resource, _attributes(each)))


def _kind(kind: str, data: Mapping[str, Any]) -> Kind:
    if kind == "counter":
        return "counter" if data.get("isMonotonic") is True else "gauge"
    return "gauge" if kind == "gauge" else "histogram"


def _point(series: Series, of: str, point: Mapping[str, Any], labels: Mapping[str, str]) -> Point:
    time, flags = _whole(point.get("timeUnixNano", 0)), _whole(point.get("flags", 0))
    if of in ("gauge", "sum"):
        value = _whole(point["asInt"]) if "asInt" in point else _double(point.get("asDouble"))
        return number_point(series, labels, value, time, flags)
    start = _whole(point.get("startTimeUnixNano", 0))
    if of == "histogram":
        bounds = [_double(b) or 0.0 for b in _list(point, "explicitBounds")]
        counts = [_whole(n) for n in _list(point, "bucketCounts")]
    else:
        positive = _object(point, "positive")
        counts = [_whole(n) for n in _list(positive, "bucketCounts")]
        bounds = exponential_bounds(
            _whole(point.get("scale", 0)), _whole(positive.get("offset", 0)), len(counts)
        )
        counts = [_whole(point.get("zeroCount", 0)), *counts, 0]
    return histogram_point(series, labels, bounds, counts, time, start, flags)


def _attributes(of: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for pair in _objects(of, "attributes"):
        value = _object(pair, "value")
        found = next((value[key] for key in _VALUES if key in value), None)
        yield str(pair.get("key", "")), attribute_text(found)


def _object(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = of.get(name)
    return found if isinstance(found, dict) else {}


def _objects(of: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = _list(of, name)
    if not all(isinstance(each, dict) for each in found):
        raise Undecodable("not_otlp", name, "another value", "a list of objects")
    return found


def _list(of: Mapping[str, Any], name: str) -> list[Any]:
    found = of.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise Undecodable("not_otlp", name, "another value", "a list")
    return found


def _whole(value: Any) -> int:
    """A 64-bit integer, as text or as a number."""
    try:
        if isinstance(value, str) and len(value) <= 20:
            return int(value)
        if isinstance(value, int) or (isinstance(value, float) and value == int(value)):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise Undecodable("not_otlp", "", repr(value)[:60], "a whole number, as text or as a number")


def _double(value: Any) -> float | None:
    """A double: a number, or its text (`NaN`, `Infinity`).  None where there is none."""
    if value is None:
        return None
    try:
        return float(value) if isinstance(value, int | float | str) and value != "" else None
    except (ValueError, OverflowError):
        raise Undecodable("not_otlp", "", repr(value)[:60], "a number") from None
