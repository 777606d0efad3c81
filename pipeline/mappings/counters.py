"""Counters: what a metric that counts since its source started has added since the report before.

A counter is a histogram of one bucket: what holds there of resets, restarts and of what is remembered holds here too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

from pipeline.catalog import Measure
from pipeline.formats.histograms import Differences
from pipeline.formats.point import Buckets, Point
from pipeline.mappings.combine import passes, unit_for
from pipeline.mappings.mapping_spec import Given, MeasureFrom, SourceMapping
from pipeline.mappings.units import SAME

Which = tuple[str, ...]
"""The texts of the labels by which the counters of a sample are told apart."""


def totals(
    way: MeasureFrom, measure: Measure, points: Iterable[Point], mapping: SourceMapping, given: Given
) -> dict[Which, float]:
    """What each counter of a sample stands at, in the measure's unit; none of those that say nothing.

    They are told apart, for a sum that falls because one of them is missing would look like a reset.
    """
    found: dict[Which, list[float]] = {}
    for point in points:
        value = point.value
        counts = point.name in way.metrics and isinstance(value, int | float) and passes(way, point)
        if (
            not counts
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or mapping.is_blank(value)
        ):
            continue
        unit = unit_for(way, measure, point, given) or SAME
        which = tuple(point.labels.get(label, "") for label in way.apart or ())
        found.setdefault(which, []).append(unit.of(value))
    return {which: sum(each) if way.series == "sum" else max(each) for which, each in found.items()}


def counted_on(
    standing: Mapping[Which, float],
    measure: Measure,
    time: int | None,
    differences: Differences,
    key: tuple[object, ...],
) -> float | None:
    """What the counters have added since their last reports, in whole quanta; None where each is a first report.

    `key` is that of the sample, `time` its own in microseconds, None where it says none.
    """
    quantum = float(measure.quantum)
    found = [
        differences.added(json.dumps([*key, which]), time, Buckets((), (round(total / quantum),)))
        for which, total in standing.items()
    ]
    added = [each.counts[0] for each in found if each is not None]
    return sum(added) * quantum if added else None
