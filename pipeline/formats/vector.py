"""Vector: a metric as its JSON codec writes it, `{"name", "namespace", "tags", "timestamp", "kind", "gauge": {"value"}}`.

The counts of its histograms are of each bucket alone, and the last bucket is left out: what is above all bounds is the
difference to `count`.  `kind: incremental` counts since the report before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from pipeline.formats.otlp_json import json_value
from pipeline.formats.point import Buckets, Kind, Point, Undecodable, bounded, micros_of
from pipeline.formats.times import read_time

NAME = "vector"
_NUMBERS: dict[str, Kind] = {"gauge": "gauge", "counter": "counter"}


def points(raw: bytes) -> Iterator[Point]:
    """The points of a message: one metric, or a list of them.  Raises Undecodable where it is neither."""
    found = json_value(raw)
    yield from bounded(_point(each) for each in (found if isinstance(found, list) else [found]))


def _point(metric: Any) -> Point:
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise Undecodable("not_vector", "", "another value", "name, tags, timestamp, kind and a value")
    prefix = metric.get("namespace")
    name = f"{prefix}_{metric['name']}" if prefix else metric["name"]
    labels, time = _labels(metric.get("tags")), _time(metric.get("timestamp"))
    cumulative = metric.get("kind") != "incremental"
    for of, kind in _NUMBERS.items():
        if isinstance(value := metric.get(of), dict):
            number = value.get("value")
            good = isinstance(number, int | float) and number == number
            return Point(name, labels, number if good else None, time, kind, cumulative=cumulative)
    if isinstance(histogram := metric.get("aggregated_histogram"), dict):
        return Point(
            name, labels, _buckets(name, histogram, cumulative), time, "histogram", cumulative=cumulative
        )
    return Point(name, labels, None, time)


def _buckets(name: str, histogram: Mapping[str, Any], cumulative: bool) -> Buckets:
    try:
        found = sorted((float(b["upper_limit"]), int(b["count"])) for b in histogram["buckets"])
        total = int(histogram["count"])
    except (KeyError, TypeError, ValueError) as error:
        raise Undecodable(
            "bad_histogram", name, "another shape", "buckets of upper_limit and count, and count"
        ) from error
    counts = [count for _, count in found]
    return Buckets(tuple(b for b, _ in found), (*counts, max(0, total - sum(counts))), cumulative)


def _labels(tags: Any) -> dict[str, str]:
    if tags is None:
        return {}
    if not isinstance(tags, dict):
        raise Undecodable("not_vector", "tags", "another value", "an object")
    return {name: value if isinstance(value, str) else "" for name, value in tags.items()}


def _time(text: Any) -> int | None:
    found = read_time(text) if isinstance(text, str) else None
    return micros_of(found) if isinstance(found, datetime) else None
