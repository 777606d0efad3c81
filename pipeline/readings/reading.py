"""What is read at an instant, as values.

Instants are epoch seconds on the 10 s grid.  What a clause asks is a `ReadingSpec` (`spec.py`); each quantity has a
file of its own beside this one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from pipeline.rollup.grid import DAY
from pipeline.rollup.grid import GRID as GRID

GRID_US = GRID * 1_000_000

#: A reading looks back three reporting intervals unless its clause says otherwise: one lost report in a
#: row of three does not make an entity vanish.
LOOKBACK_INTERVALS = 3
LONGEST = 2 * DAY
"""Seconds that a reading looks back for a slow series at most: 10 s partials are kept as long."""
EXPECTED = DAY
"""A series is expected for this long after its last sample, in seconds; so is a measure after its last value."""

#: `((dimension, (value, …)), …)`, sorted: hashable form of a clause's `match`.
Match = tuple[tuple[str, tuple[str, ...]], ...]
By = tuple[str, ...]
"""Names of dimensions, or their values in one group; '' is that of an absent one."""


def match_of(match: Mapping[str, tuple[str, ...]]) -> Match:
    """The hashable, sorted form of a clause's `match`."""
    return tuple(sorted((name, tuple(sorted(values))) for name, values in match.items()))


class DaySpend(NamedTuple):
    """Charges of one day of the contract's zone: `usage` is ChargeCategory Usage, `other` the rest.

    `day`: the calendar date, as the epoch seconds of its midnight in UTC.
    """

    day: int
    usage: Decimal
    other: Decimal


class Mute(NamedTuple):
    """A series that reports, but has not said `measure` since `since` (epoch seconds)."""

    series: tuple[str, ...]
    measure: str
    since: float


class Reading(NamedTuple):
    """One answer: at instant `t`, for the dimension values `by` (absent optional ones are '').

    `value` None: nothing to go by.  `silent` and `lost` in the unit of `value`; `silent_series` counts both.
    `settled` False: none of its series has been heard for a whole reporting interval yet (a start, a return),
    so that entities may be there that have not had their turn.
    `basis` says in words what the value rests on when that is not the obvious.
    `left_out`: what could not be counted, in words; then `amount` and `days` are what is known, and that is less.
    `counts`: every way of counting entities, of an EntityCount: (observed, healthy, in use).
    `mute`: the series that report, but without the measure that is read; `silent_series` counts them too.
    `at_most`: what the value can be at most, where it is known in bounds only (infinite: at least so much).
    `without`: entities that are there without the measure; the value takes them at the others' mean, which makes
    `estimated` of it.
    `due`: seconds after its last sample at which the next of a silent series was due.
    `moved`: entities that were last seen here within a day and now live on in another group: (where, how many).
    `frozen`: entities that report, but whose counter and numbers stand still: they do not count.
    """

    t: int
    by: tuple[str, ...]
    value: float | None
    silent: float = 0.0
    lost: float = 0.0
    samples: int = 0
    silent_series: int = 0
    series: int = 0
    settled: bool = True
    basis: str = ""
    amount: Decimal | None = None
    days: tuple[DaySpend, ...] = ()
    left_out: str = ""
    counts: tuple[float, float, float] | None = None
    mute: tuple[Mute, ...] = ()
    due: float = 0.0
    at_most: float | None = None
    without: int = 0
    estimated: float = 0.0
    moved: tuple[tuple[str, int], ...] = ()
    frozen: int = 0

    @property
    def left(self) -> bool:
        """Nothing is here any more, and nothing is missing: all has moved."""
        return bool(self.moved) and not self.series


class Readings:
    """The answers to one spec over a range of instants, looked up by instant."""

    __slots__ = ("_rows", "_slow")

    def __init__(self, rows: Iterable[Reading], slow: Sequence[tuple[int, int, int]] = ()) -> None:
        """`slow`: (after, until, seconds): the longest interval, beyond the schema's, that a source declared then."""
        self._rows: dict[int, list[Reading]] = {}
        self._slow = slow
        for row in rows:
            self._rows.setdefault(row.t, []).append(row)
        for found in self._rows.values():
            found.sort(key=lambda row: row.by)

    def at(self, t: int) -> Sequence[Reading]:
        """The readings at `t`, one for each group that has any, ordered by group."""
        return self._rows.get(t, ())

    def of(self, groups: Mapping[int, Container[str]]) -> Readings:
        """Those of the groups whose value at each place of `groups` is one of these."""
        rows = (row for found in self._rows.values() for row in found)
        return Readings(
            (row for row in rows if all(row.by[at] in values for at, values in groups.items())), self._slow
        )

    def slowest(self, t: int) -> int:
        """Seconds between two reports of the slowest source at `t`; 0 where all report as the schema says."""
        return next((seconds for after, until, seconds in self._slow if after < t <= until), 0)


class Steps(Readings):
    """Answers that hold until the next one: those at `t` are the last at or before it (spend)."""

    __slots__ = ("_instants",)

    def __init__(self, rows: Iterable[Reading]) -> None:
        super().__init__(rows)
        self._instants = sorted(self._rows)

    def at(self, t: int) -> Sequence[Reading]:
        i = bisect_right(self._instants, t)
        return self._rows[self._instants[i - 1]] if i else ()
