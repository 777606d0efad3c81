"""prometheus-kafka-adapter: Prometheus' remote write as one JSON message a point, `{"timestamp", "value", "name", "labels"}`.

`value` is text, `timestamp` RFC 3339 in whole seconds.  Both Prometheis of an HA pair send everything: the same point
twice, which differ in the label that names the replica, if that is kept at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pipeline.formats.otlp_json import json_value
from pipeline.formats.point import Point, Undecodable, bounded, micros_of
from pipeline.formats.prometheus import read_number
from pipeline.formats.times import read_time

NAME = "prometheus_kafka_adapter"
REPLICAS = ("__replica__", "prometheus_replica", "replica")
"""Labels that say which of an HA pair saw it: no part of what was seen."""


def points(raw: bytes) -> Iterator[Point]:
    """The points of a message: one, or a list of them.  Raises Undecodable where it is neither."""
    found = json_value(raw)
    yield from bounded(_point(each) for each in (found if isinstance(found, list) else [found]))


def _point(found: Any) -> Point:
    labels = found.get("labels") if isinstance(found, dict) else None
    if not isinstance(labels, dict) or "value" not in found:
        raise Undecodable(
            "not_prometheus_kafka_adapter", "", "another value", "timestamp, value, name and labels"
        )
    name = str(found.get("name") or labels.get("__name__") or "")
    value = read_number(str(found["value"]))
    if value is None or not name:
        raise Undecodable(
            "not_prometheus_kafka_adapter", name[:80], repr(found["value"])[:60], "a name and a number"
        )
    kept = {k: str(v) for k, v in labels.items() if k != "__name__" and k not in REPLICAS}
    return Point(name, kept, None if math.isnan(value) else value, _time(found.get("timestamp")))


def _time(text: Any) -> int | None:
    moment = read_time(text) if isinstance(text, str) else None
    return micros_of(moment) if isinstance(moment, datetime) else None
