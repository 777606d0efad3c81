"""Histograms: put together from the series that Prometheus makes of them, and their differences between two reports.

A source counts since it started.  What a report adds is the difference to the one before it from the same source; after
a restart all that it has counted.  The first report of a source is where counting begins, and adds nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

from pipeline.formats.point import Buckets, Point
from pipeline.rollup.grid import DAY

_FORGOTTEN_AFTER = DAY * 1_000_000
"""Microseconds; for so long a series is expected, and what is expected no longer is forgotten elsewhere too."""
_Key = tuple[str, tuple[tuple[str, str], ...], int | None]


def assembled(points: Iterable[Point]) -> Iterator[Point]:
    """The points, with the series `…_bucket{le}` as one histogram each: they are cumulative over `le`."""
    found: dict[_Key, dict[float, float]] = {}
    for point in points:
        bound = _bound(point)
        if bound is None:
            yield point
            continue
        labels = tuple(sorted((k, v) for k, v in point.labels.items() if k != "le"))
        key = (point.name.removesuffix("_bucket"), labels, point.time)
        if isinstance(point.value, int | float):
            found.setdefault(key, {})[bound] = float(point.value)
    for (name, labels, time), upto in found.items():
        yield Point(name, dict(labels), buckets_of(upto), time, "histogram")


def _bound(point: Point) -> float | None:
    if not point.name.endswith("_bucket") or "le" not in point.labels:
        return None
    try:
        return float(point.labels["le"])
    except ValueError:
        return None


def buckets_of(upto: Mapping[float, float], total: float | None = None) -> Buckets:
    """Buckets of `bound → how many are at most that`; `total` counts those above all bounds too.

    >>> buckets_of({1.0: 3, 2.5: 4, float("inf"): 6})
    Buckets(bounds=(1.0, 2.5), counts=(3, 1, 2), cumulative=True, since=None)
    """
    bounds = sorted(le for le in upto if math.isfinite(le))
    counted = [upto[le] for le in bounds]
    counted.append(upto.get(math.inf, total if total is not None else counted[-1] if counted else 0))
    before = [0.0, *counted[:-1]]
    counts = tuple(max(0, round(now - then)) for then, now in zip(before, counted, strict=True))
    return Buckets(tuple(bounds), counts)


@dataclass(frozen=True, slots=True)
class Reported:
    """What a source last reported of a series.

    `time`: microseconds since 1970, None where it says none.  `heard`: when it came, by the clock of `Differences`.
    """

    time: int | None
    buckets: Buckets
    heard: int = 0

    def text(self) -> str:
        """As JSON, for the ledger."""
        b = self.buckets
        return json.dumps([self.time, b.bounds, b.counts, b.since, self.heard])

    @staticmethod
    def read(text: str) -> Reported:
        """The inverse of `text`."""
        time, bounds, counts, since, *heard = json.loads(text)
        return Reported(time, Buckets(tuple(bounds), tuple(counts), True, since), *heard)


@dataclass(frozen=True, slots=True)
class Spread:
    """`count` values above `over` and at most `to`; `to` is None above the last bound: they are at least `over`."""

    over: float
    to: float | None
    count: int


def spreads(buckets: Buckets, scale: float = 1.0) -> tuple[Spread, ...]:
    """What is counted, bucket by bucket, in the unit that `scale` makes of the bounds."""
    bounds = [bound * scale for bound in buckets.bounds]
    edges: list[tuple[float, float | None]] = list(zip([0.0, *bounds], [*bounds, None], strict=True))
    return tuple(
        Spread(over, to, count) for (over, to), count in zip(edges, buckets.counts, strict=True) if count
    )


class Differences:
    """The last report of each series of each source, and what the next one adds to it.

    A series that was not heard for a day is forgotten, and begins anew when it comes again.  Its clock is the newest time at
    which anything was heard, so that a backlog, which comes in faster than it was written, forgets what the days forgot.
    """

    def __init__(self, known: Mapping[str, Reported] | None = None) -> None:
        self._last: dict[str, Reported] = {}
        self._changed: set[str] = set()
        self._now = 0
        self.know(known or {})

    def know(self, saved: Mapping[str, Reported]) -> None:
        """The series as they were saved, all at once."""
        self._last.update(sorted(saved.items(), key=lambda each: each[1].heard))
        self._now = max((last.heard for last in saved.values()), default=self._now)

    def hear(self, time: int) -> None:
        """What comes next was written at `time` (microseconds since 1970); an earlier one changes nothing."""
        self._now = max(self._now, time)

    def changed(self) -> dict[str, Reported | None]:
        """The series that have reported since this was last asked, to be saved; None for those that are forgotten now."""
        found: dict[str, Reported | None] = {key: self._last[key] for key in self._changed}
        self._changed.clear()
        for key in [*takewhile(self._is_old, self._last)]:  # they stand in the order in which they were heard
            del self._last[key]
            found[key] = None
        return found

    def _is_old(self, key: str) -> bool:
        return self._last[key].heard < self._now - _FORGOTTEN_AFTER

    def added(self, key: str, time: int | None, now: Buckets) -> Buckets | None:
        """What `now`, counted up to `time`, adds since the report before of the same `key`.  Without a time it is newer.

        None for the first report, and for one that is not newer.  Where a count fell, or the source says that it
        began anew, it restarted: all that it has counted since is new.
        """
        if not now.cumulative:
            return now
        before = None if key in self._last and self._is_old(key) else self._last.get(key)
        if before and time is not None and before.time is not None and time <= before.time:
            return None
        self._last.pop(key, None)
        self._last[key] = Reported(time, now, self._now)
        self._changed.add(key)
        if before is None:
            return None
        then = before.buckets
        if then.bounds != now.bounds or _restarted(then, now):
            return replace(now, cumulative=False)
        counts = tuple(b - a for a, b in zip(then.counts, now.counts, strict=True))
        return Buckets(now.bounds, counts, cumulative=False)


def _restarted(then: Buckets, now: Buckets) -> bool:
    anew = then.since is not None and now.since is not None and now.since > then.since
    return anew or any(b < a for a, b in zip(then.counts, now.counts, strict=True))
