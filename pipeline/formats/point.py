"""A point: one value of one series at one time, as any of the formats carries it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import msgspec

Kind = Literal["", "gauge", "counter", "histogram"]

MAX_POINTS = 1_000_000
"""Points of one message: more is no scrape."""
MAX_LABELS = 128
"""Labels of one point."""
MAX_TEXT = 4096
"""Characters of a name, a label's name or its value."""
UNKNOWN = ""
"""The value of what is asked for and not known, such as null in JSON: the source is there, its measure is not."""
LATEST = 253_402_300_799_000_000
"""The last second of the year 9999 in microseconds: no later one is a date."""
_EPOCH = datetime(1970, 1, 1)


class Undecodable(ValueError):
    """A message that is not what its format says; `reason` is a short, countable phrase, `place` a line or path."""

    def __init__(self, reason: str, place: str = "", found: str = "", expected: str = "") -> None:
        at = f"{place}: " if place else ""
        what = f"found {found}, expected {expected}" if expected else reason
        super().__init__(at + what)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram: `counts[i]` values are in `(bounds[i - 1], bounds[i]]`, the last of them above all bounds.

    `since`: when counting began, microseconds since 1970, where the source says so.  `cumulative` in time: counted
    since then, not since the report before.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    cumulative: bool = True
    since: int | None = None

    @property
    def total(self) -> int:
        return sum(self.counts)


class SharedLabels(dict[str, str]):
    """Labels that many points have: a format that keeps them lets a series be known by the object alone."""

    __slots__ = ()


class Point(msgspec.Struct, frozen=True, gc=False):
    """One value of one series.

    `value` is None where the source says that it has none: the series has ended, or NaN.  `time`: microseconds since
    1970 UTC, None where the message has no time.  `digits`: the number as its exporter printed it, in the one format
    that keeps it.
    """

    name: str
    labels: Mapping[str, str]
    value: float | int | str | Buckets | None
    time: int | None = None
    kind: Kind = ""
    digits: str = ""
    cumulative: bool = True


def bounded(points: Iterator[Point], most: int = MAX_POINTS) -> Iterator[Point]:
    """The same points.  Raises Undecodable for a point or a number of points that no honest source has."""
    for n, point in enumerate(points, 1):
        if n > most:
            raise Undecodable("too_many_points", "", f"more than {most:,} points", "fewer in one message")
        labels = point.labels
        if len(labels) > MAX_LABELS:
            raise Undecodable(
                "too_many_labels", shown_name(point.name), f"{len(labels):,} labels", f"at most {MAX_LABELS}"
            )
        if len(point.name) > MAX_TEXT or any(
            len(k) > MAX_TEXT or len(v) > MAX_TEXT for k, v in labels.items()
        ):
            raise Undecodable(
                "text_too_long",
                shown_name(point.name),
                "a longer name or label",
                f"at most {MAX_TEXT:,} characters",
            )
        yield point


def shown_name(name: str) -> str:
    """A metric's name as a message quotes it."""
    return name if len(name) <= 80 else f"{name[:79]}…"


def from_epoch(number: float | int) -> int | None:
    """Microseconds since 1970 of a count of seconds, ms, µs or ns since 1970; None when it is none of them.

    The four do not overlap for any time from March 1973 to 5138, so that the number of digits is the unit.

    >>> from_epoch(1795461960), from_epoch(1795461960250), from_epoch(1795461960000000000)
    (1795461960000000, 1795461960250000, 1795461960000000)
    """
    size = abs(number)
    for least, micros, over in _EPOCH_UNITS:
        if least <= size < least * 1000:
            return int(number) * micros // over if isinstance(number, int) else round(number * micros / over)
    return None


_EPOCH_UNITS = ((10**8, 10**6, 1), (10**11, 1000, 1), (10**14, 1, 1), (10**17, 1, 1000))


def micros_of(moment: datetime) -> int:
    """Microseconds since 1970 of a naive UTC time."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(micros: int) -> datetime:
    """The naive UTC time of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=micros)


def time_text(micros: int) -> str:
    """RFC 3339 of microseconds since 1970, with no more digits than it needs.

    >>> time_text(1795461960250000), time_text(1795461960000000)
    ('2026-11-23T19:26:00.250Z', '2026-11-23T19:26:00Z')
    """
    moment = moment_of(micros)
    if micros % 1_000_000 == 0:
        return f"{moment.isoformat(timespec='seconds')}Z"
    return f"{moment.isoformat(timespec='microseconds' if micros % 1000 else 'milliseconds')}Z"
