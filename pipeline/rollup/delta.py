"""The delta: what a batch of Kafka records adds up to, ready to be applied once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

Place = tuple[str, int]
"""A topic and a partition."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A private file of raw rows, written and fsynced; event times naive UTC, `max_time` inclusive."""

    name: str
    topic: str
    rows: int
    min_time: datetime
    max_time: datetime


ARRIVED = "in"
"""The count that the fates aggregated, duplicate, quarantined and dead_lettered must add up to."""


@dataclass(frozen=True, slots=True)
class Fate:
    """How `n` events of a partition ended; `minute` is that of their Kafka timestamp, naive UTC.

    `fate` is `ARRIVED` for those that came in, counted independently of what became of them.
    """

    topic: str
    part: int
    minute: datetime
    fate: str
    reason: str
    n: int


@dataclass(frozen=True, slots=True)
class AsideCount:
    """How many samples of a partition were taken in without `field`, by reason; `minute` as of a `Fate`.

    These are measures, not events: none of them is among the fates.
    """

    topic: str
    part: int
    minute: datetime
    field: str
    reason: str
    n: int


@dataclass(frozen=True, slots=True)
class Delta:
    """At most one contiguous offset range `[lo, hi)` per partition, and what it adds up to.

    `views` names the event types with rows.  Their partial roll-ups stand in temporary tables of the
    ledger's connection: `delta_samples_{view}`, `delta_partials_{view}`, `delta_hist_{view}`,
    `delta_series_{view}`; in the one-process form they are handed over where they are.

    `written` returns the segments once they are on the disk, and raises DiskFull when they cannot be.
    """

    ranges: Mapping[Place, tuple[int, int]] = field(default_factory=dict)
    progress: Mapping[Place, datetime] = field(default_factory=dict)
    views: tuple[str, ...] = ()
    written: Callable[[], Sequence[Segment]] = tuple
    fates: tuple[Fate, ...] = ()
    set_aside: tuple[AsideCount, ...] = ()
    reported: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(topic of a source, series) → its last cumulative histogram, from which the next report counts on."""

    @property
    def events(self) -> int:
        """How many events came in."""
        return sum(f.n for f in self.fates if f.fate == ARRIVED)
