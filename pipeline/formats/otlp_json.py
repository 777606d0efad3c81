"""OTLP metrics as JSON: what the OpenTelemetry Collector's Kafka exporter writes with `encoding: otlp_json`.

64-bit numbers come as text or as numbers, `NaN` as text, and names in lowerCamelCase (protobuf's JSON mapping).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pipeline.formats.lenient_json import read_json
from pipeline.formats.otlp import (
    DELTA,
    NO_RECORDED_VALUE,
    Series,
    attribute_text,
    exponential_bounds,
    histogram_point,
    labelled,
    number_point,
)
from pipeline.formats.point import MAX_POINTS, Kind, Point, SharedLabels, Undecodable, bounded

NAME = "otlp_json"
_VALUES = ("stringValue", "intValue", "doubleValue", "boolValue")


def points(raw: bytes) -> list[Point]:
    """The points of an export request.  Raises Undecodable where it is none."""
    try:
        return _read(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError):
        return list(carefully(raw))


def carefully(raw: bytes) -> Iterator[Point]:
    """The same, a point at a time."""
    return bounded(_points(json_object(raw)))


class _Number(msgspec.Struct, gc=False):
    """A point of a gauge or sum; its attributes stay as they are until they are met."""

    attributes: msgspec.Raw = msgspec.Raw(b"[]")
    timeUnixNano: int | str = 0
    asDouble: float | str | None = None
    asInt: int | str | None = None
    flags: int = 0


class _Numbers(msgspec.Struct):
    dataPoints: list[_Number] = []
    isMonotonic: bool = False
    aggregationTemporality: int = 0


class _Metric(msgspec.Struct):
    name: str = ""
    gauge: _Numbers | None = None
    sum: _Numbers | None = None
    histogram: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    exponentialHistogram: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Scope(msgspec.Struct):
    metrics: list[_Metric] = []


class _Resource(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw(b"{}")
    scopeMetrics: list[_Scope] = []


class _Request(msgspec.Struct):
    resourceMetrics: list[_Resource]


_DECODER = msgspec.json.Decoder(_Request)
MAX_KEPT = 200_000
_KEPT: dict[tuple[bytes, bytes], SharedLabels] = {}
"""(resource, attributes) as they stand in a message → labels: a collector sends the same texts again and again."""


def _read(raw: bytes) -> list[Point]:
    """What `_points` gives, for requests of gauges and sums as collectors write them; any other raises ValueError."""
    found: list[Point] = []
    for of_resource in _DECODER.decode(raw).resourceMetrics:
        resource = bytes(of_resource.resource)
        for scope in of_resource.scopeMetrics:
            for metric in scope.metrics:
                found += _numbers(metric, resource)
    if len(found) > MAX_POINTS:
        raise ValueError("too many")
    return found


def _numbers(metric: _Metric, resource: bytes) -> list[Point]:
    data, name = metric.gauge or metric.sum, metric.name
    if (
        data is None
        or metric.histogram is not msgspec.UNSET
        or metric.exponentialHistogram is not msgspec.UNSET
    ):
        raise ValueError("not only numbers")
    kind: Kind = "counter" if metric.gauge is None and data.isMonotonic else "gauge"
    cumulative = data.aggregationTemporality != DELTA
    found = []
    for each in data.dataPoints:
        key = (resource, bytes(each.attributes))
        labels = _KEPT.get(key) or _keep(key, name)
        value = int(each.asInt) if each.asInt is not None else each.asDouble
        if type(value) is str:
            value = float(value)
        if each.flags & NO_RECORDED_VALUE or value != value:
            value = None
        found.append(Point(name, labels, value, int(each.timeUnixNano) // 1000, kind, "", cumulative))
    return found


def _keep(key: tuple[bytes, bytes], name: str) -> SharedLabels:
    """The labels of a text that was not met yet, checked as those of any point."""
    resource, own = (read_json(text.decode()) for text in key)
    if not isinstance(resource, dict) or not isinstance(own, list):
        raise ValueError("not as OTLP has them")
    labels = SharedLabels(labelled(dict(_attributes(resource)), _attributes({"attributes": own})))
    list(bounded(iter([Point(name, labels, None)])))
    if len(_KEPT) >= MAX_KEPT:
        _KEPT.clear()
    _KEPT[key] = labels
    return labels


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
        value = _whole(point["asInt"]) if point.get("asInt") is not None else _double(point.get("asDouble"))
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
