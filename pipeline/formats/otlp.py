"""OTLP metrics, whichever encoding they came in: the walk over a request whose numbers are numbers.

opentelemetry.io/docs/specs/otlp/ and metrics.proto of opentelemetry-proto.  The attributes of a resource are
labels of each of its points; a point's own attribute counts before one of its resource.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.formats.point import Buckets, Kind, Point, Undecodable

NO_RECORDED_VALUE = 1
"""A flag: the series has ended.  What Prometheus marks as stale comes so."""
DELTA = 1
"""The temporality of values that are counted since the report before; 2 is cumulative."""
MAX_BUCKETS = 2_000


@dataclass(frozen=True, slots=True)
class Series:
    """What the points of one metric of one resource share."""

    name: str
    kind: Kind
    cumulative: bool


def number_point(
    series: Series, labels: Mapping[str, str], value: float | int | None, nanoseconds: int, flags: int
) -> Point:
    """A gauge or sum; `value` is None for a point that has neither asDouble nor asInt."""
    if flags & NO_RECORDED_VALUE or (isinstance(value, float) and math.isnan(value)):
        value = None
    return Point(series.name, labels, value, nanoseconds // 1000, series.kind, cumulative=series.cumulative)


def histogram_point(
    series: Series,
    labels: Mapping[str, str],
    bounds: Sequence[float],
    counts: Sequence[int],
    nanoseconds: int,
    start: int,
    flags: int,
) -> Point:
    """A histogram with explicit bounds.  Raises Undecodable where counts and bounds do not belong together."""
    value: Buckets | None = None
    if not flags & NO_RECORDED_VALUE and counts:
        if len(counts) != len(bounds) + 1 or len(counts) > MAX_BUCKETS:
            found = f"{len(counts)} counts for {len(bounds)} bounds"
            raise Undecodable(
                "bad_histogram", series.name, found, "one count more than bounds, at most 2,000"
            )
        value = Buckets(tuple(bounds), tuple(counts), series.cumulative, start // 1000 or None)
    return Point(series.name, labels, value, nanoseconds // 1000, "histogram", cumulative=series.cumulative)


def exponential_bounds(scale: int, offset: int, count: int) -> list[float]:
    """The bounds of `count` buckets of an exponential histogram, which begin above `base^offset`.

    opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram: base = 2^(2^-scale), and bucket
    i holds (base^i, base^(i+1)].
    """
    if not -10 <= scale <= 20 or abs(offset) > 1 << 20 or count > MAX_BUCKETS:
        raise Undecodable("bad_histogram")
    step = 2.0**-scale
    return [_power((offset + i) * step) for i in range(count + 1)]


def _power(exponent: float) -> float:
    return 2.0**exponent if exponent < 1024 else math.inf


def attribute_text(value: Any) -> str:
    """An attribute's value as a label: text as it is, a number or bool as JSON writes it, anything deeper as nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else ""


def labelled(resource: Mapping[str, str], own: Iterator[tuple[str, str]]) -> dict[str, str]:
    """The labels of a point: those of its resource, and its own before them."""
    return {**resource, **dict(own)}
